/*
 * The servers of bench_fanout: 25 nodes in one process, one epoll loop, every request echoed as a signed answer.
 *
 * An answer of type 1 may use the request's keystream again, so the request's body, sent back as it came, is a valid
 * encrypted answer; only the signature in the header needs the first 16 bytes in clear, one block of AES.
 * Arguments: the key in hex. Output: for each node the port that keeps connections and the one that closes them; the
 * first also takes datagrams. Ends when standard input does.
 */
#define _GNU_SOURCE
#include "aes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NODES = 25, HEADER = 32, LARGEST = (1 << 20) + 256, LISTEN, KEEP, CLOSE, DATAGRAM, INPUT };

typedef struct {
    int fd, kind, node, closes;
    size_t have, size, sent;
    uint8_t *frame;
} peer;

static qm_aes_key schedule;
static uint8_t secret[16];

static size_t frame_size(const uint8_t *h)
{
    if (h[4] == 6 && h[5] >= 75)
        return HEADER + ((size_t)h[10] << 24 | (size_t)h[11] << 16 | (size_t)h[12] << 8 | h[13]);
    return HEADER + ((size_t)h[22] << 8 | h[23]);
}

/* turn a request into its answer, in place */
static void answer(uint8_t *f, size_t size)
{
    uint8_t head[HEADER] = {0}, ctr[16] = {0};
    size_t body = size - HEADER;
    head[0] = f[2];
    head[2] = 250;
    head[3] = f[4];
    head[5] = 1;
    memcpy(head + 6, f + 30, 2);
    head[9] = (uint8_t)(body >> 16), head[10] = (uint8_t)(body >> 8), head[11] = (uint8_t)body;
    if (f[16]) {
        memcpy(ctr, f + 24, 8);
        qm_aes_ctr(&schedule, ctr, f + HEADER, head + 16, 16);
        for (int i = 0; i < 16; i++) head[16 + i] ^= secret[i];
    } else {
        memcpy(head + 16, f + HEADER, 16);
    }
    memcpy(f, head, HEADER);
}

static int listener(int type, int *port)
{
    int one = 1, fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    socklen_t length = sizeof where;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&where, sizeof where) || (type == SOCK_STREAM && listen(fd, 1024)))
        return -1;
    getsockname(fd, (struct sockaddr *)&where, &length);
    *port = ntohs(where.sin_port);
    return fd;
}

static void watch(int epoll, int fd, int kind, int node)
{
    peer *p = calloc(1, sizeof *p);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
    p->fd = fd, p->kind = kind, p->node = node;
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void drop(peer *p)
{
    close(p->fd);
    free(p->frame);
    free(p);
}

/* write what is left; 0 when the peer is gone */
static int flush(int epoll, peer *p)
{
    while (p->sent < p->size) {
        ssize_t n = send(p->fd, p->frame + p->sent, p->size - p->sent, MSG_NOSIGNAL);
        if (n < 0) {
            struct epoll_event event = {.events = EPOLLOUT, .data.ptr = p};
            if (errno != EAGAIN) {
                drop(p);
                return 0;
            }
            epoll_ctl(epoll, EPOLL_CTL_MOD, p->fd, &event);
            return 1;
        }
        p->sent += (size_t)n;
    }
    if (p->closes) {
        drop(p);
        return 0;
    }
    p->have = p->size = p->sent = 0;
    return 1;
}

static void readable(int epoll, peer *p)
{
    for (;;) {
        size_t want = p->have < HEADER ? 4096 : p->size;
        ssize_t n;
        if (!p->frame)
            p->frame = malloc(LARGEST);
        n = recv(p->fd, p->frame + p->have, want - p->have, 0);
        if (n <= 0) {
            if (n == 0 || errno != EAGAIN)
                drop(p);
            return;
        }
        p->have += (size_t)n;
        if (p->have < HEADER)
            continue;
        p->size = frame_size(p->frame);
        if (p->size > LARGEST || p->size < HEADER + 18) {
            drop(p);
            return;
        }
        if (p->have >= p->size) {
            answer(p->frame, p->size);
            flush(epoll, p);
            return;
        }
    }
}

static void datagrams(int fd)
{
    static uint8_t frame[65536];
    struct sockaddr_in from;
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t n = recvfrom(fd, frame, sizeof frame, 0, (struct sockaddr *)&from, &length);
        if (n < HEADER + 18)
            return;
        answer(frame, (size_t)n);
        sendto(fd, frame, (size_t)n, 0, (struct sockaddr *)&from, length);
    }
}

int main(int argc, char **argv)
{
    int epoll = epoll_create1(0), large = 4 << 20;
    struct epoll_event events[256];
    if (argc != 2 || strlen(argv[1]) != 32)
        return 2;
    for (int i = 0; i < 16; i++) sscanf(argv[1] + 2 * i, "%2hhx", &secret[i]);
    if (qm_aes_select(QM_AES_NI) == QM_AES_NONE)
        return 3;
    qm_aes_expand(&schedule, secret, 16);
    for (int node = 0; node < NODES; node++) {
        int keep = 0, closing = 0, fd = listener(SOCK_STREAM, &keep), udp;
        watch(epoll, fd, LISTEN, KEEP);
        watch(epoll, listener(SOCK_STREAM, &closing), LISTEN, CLOSE);
        udp = listener(SOCK_DGRAM, &keep);
        setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
        watch(epoll, udp, DATAGRAM, node);
        printf("%d %d\n", keep, closing);
    }
    fflush(stdout);
    watch(epoll, 0, INPUT, 0);
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            peer *p = events[i].data.ptr;
            if (p->kind == INPUT)
                return 0;
            if (p->kind == DATAGRAM) {
                datagrams(p->fd);
            } else if (p->kind == LISTEN) {
                int one = 1, fd;
                while ((fd = accept4(p->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    peer *made = calloc(1, sizeof *made);
                    struct epoll_event event = {.events = EPOLLIN, .data.ptr = made};
                    made->fd = fd, made->closes = p->node == CLOSE;
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                }
            } else if (events[i].events & EPOLLOUT) {
                struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
                epoll_ctl(epoll, EPOLL_CTL_MOD, p->fd, &event);
                flush(epoll, p);
            } else {
                readable(epoll, p);
            }
        }
    }
}
