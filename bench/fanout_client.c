/*
 * The anchor of bench_fanout: the same fanout in C over epoll, one frame for all nodes, without ciphers or parsing.
 *
 * Every function runs `rounds` fanouts to 25 loopback ports and writes the seconds of each; 0 is success.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { NODES = 25 };

typedef struct {
    int fd;
    size_t sent, have;
    uint8_t *answer;
} exchange;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct sockaddr_in address(int port)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return where;
}

static int begin(int epoll, exchange *e, int port)
{
    int one = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = e};
    struct sockaddr_in where = address(port);
    e->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(e->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(e->fd, (struct sockaddr *)&where, sizeof where) && errno != EINPROGRESS)
        return -1;
    return epoll_ctl(epoll, EPOLL_CTL_ADD, e->fd, &event);
}

/* send and receive what is possible; 1 when the exchange is complete */
static int advance(exchange *e, const uint8_t *frame, size_t size)
{
    ssize_t n;
    while (e->sent < size) {
        n = send(e->fd, frame + e->sent, size - e->sent, MSG_NOSIGNAL);
        if (n < 0)
            break;
        e->sent += (size_t)n;
    }
    while (e->have < size) {
        n = recv(e->fd, e->answer + e->have, size - e->have, 0);
        if (n <= 0)
            return n == 0 || errno != EAGAIN ? -1 : 0;
        e->have += (size_t)n;
    }
    return 1;
}

int fanout_tcp(const int *ports, const uint8_t *frame, size_t size, int rounds, int keep, double *seconds)
{
    int epoll = epoll_create1(0), failed = 0;
    exchange all[NODES] = {0};
    struct epoll_event events[64];
    for (int i = 0; i < NODES; i++) all[i].answer = malloc(size);
    if (keep) {
        for (int i = 0; i < NODES; i++) failed |= begin(epoll, &all[i], ports[i]);
        usleep(2000);
    }
    for (int round = 0; round < rounds && !failed; round++) {
        double start = now();
        int left = NODES;
        for (int i = 0; i < NODES; i++) {
            all[i].sent = all[i].have = 0;
            if (!keep)
                failed |= begin(epoll, &all[i], ports[i]);
            else if (advance(&all[i], frame, size) == 1)
                left--;
        }
        while (left && !failed) {
            int count = epoll_wait(epoll, events, 64, 5000);
            if (count <= 0)
                failed = 1;
            for (int i = 0; i < count; i++) {
                exchange *e = events[i].data.ptr;
                int state = e->have < size ? advance(e, frame, size) : 0;
                if (state < 0)
                    failed = 1;
                if (state == 1) {
                    left--;
                    if (!keep)
                        close(e->fd);
                }
            }
        }
        seconds[round] = now() - start;
    }
    for (int i = 0; i < NODES; i++) {
        if (keep)
            close(all[i].fd);
        free(all[i].answer);
    }
    close(epoll);
    return failed;
}

int fanout_udp(const int *ports, const uint8_t *frame, size_t size, int rounds, double *seconds)
{
    int large = 4 << 20, fd = socket(AF_INET, SOCK_DGRAM, 0), failed = 0;
    struct timeval patience = {.tv_sec = 2};
    struct mmsghdr out[NODES] = {0}, in[NODES] = {0};
    struct iovec data[NODES], space[NODES];
    struct sockaddr_in where[NODES];
    uint8_t *answers = malloc(NODES * size);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (int i = 0; i < NODES; i++) {
        where[i] = address(ports[i]);
        data[i] = (struct iovec){(void *)(uintptr_t)frame, size};
        space[i] = (struct iovec){answers + (size_t)i * size, size};
        out[i].msg_hdr = (struct msghdr){.msg_name = &where[i], .msg_namelen = sizeof where[i], .msg_iov = &data[i],
                                         .msg_iovlen = 1};
        in[i].msg_hdr = (struct msghdr){.msg_iov = &space[i], .msg_iovlen = 1};
    }
    for (int round = 0; round < rounds && !failed; round++) {
        double start = now();
        int left = NODES;
        sendmmsg(fd, out, NODES, 0);
        while (left && !failed) {
            int got = recvmmsg(fd, in, (unsigned)left, MSG_WAITFORONE, NULL);
            if (got <= 0)
                failed = 1;
            left -= got;
        }
        seconds[round] = now() - start;
    }
    free(answers);
    close(fd);
    return failed;
}
