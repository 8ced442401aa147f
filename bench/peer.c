/*
 * The other two sides of bench_node: an epoll server that does no cryptography, and the client that loads both servers.
 *
 * Frames are those of the wire with a 32-byte header and a 16-bit body length; every answer has one known size. Errors
 * end a run with -1. Nothing of this is installed.
 */
#define _GNU_SOURCE
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

enum { ROOM = 1 << 16, EVENTS = 256, FDS = 1 << 16 };

typedef struct {
    int listening;
    size_t have;
    uint8_t *in;
} line;

static struct sockaddr_in place(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    return a;
}

static int watch(int poll, int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data = {.fd = fd}};
    return epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e);
}

/* Open `n` listening sockets on ports the system chooses. */
int peer_listen(int n, int *fds, uint16_t *ports)
{
    for (int i = 0; i < n; i++) {
        struct sockaddr_in a = place(0);
        socklen_t size = sizeof a;
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (fds[i] < 0 || bind(fds[i], (void *)&a, size) || listen(fds[i], 1024)) return -1;
        if (getsockname(fds[i], (void *)&a, &size)) return -1;
        ports[i] = ntohs(a.sin_port);
    }
    return 0;
}

static int serve_line(int fd, line *l, const uint8_t *answer, size_t answer_size)
{
    ssize_t got = recv(fd, l->in + l->have, ROOM - l->have, 0);
    size_t at = 0;
    if (got <= 0) return got < 0 && errno == EAGAIN ? 0 : -1;
    l->have += (size_t)got;
    while (l->have - at >= 32) {
        size_t size = 32 + (size_t)(l->in[at + 22] << 8 | l->in[at + 23]);
        if (l->have - at < size) break;
        at += size;
        if (send(fd, answer, answer_size, MSG_NOSIGNAL) != (ssize_t)answer_size) return -1;
    }
    memmove(l->in, l->in + at, l->have - at);
    l->have -= at;
    return 0;
}

/* Answer every frame with `answer_size` bytes, for ever. */
int peer_serve(int n, const int *fds, size_t answer_size)
{
    static line lines[FDS];
    uint8_t answer[ROOM] = {[2] = 250};
    struct epoll_event e[EVENTS];
    int poll = epoll_create1(0);
    for (int i = 0; i < n; i++) {
        lines[fds[i]].listening = 1;
        if (watch(poll, fds[i])) return -1;
    }
    for (;;) {
        int ready = epoll_wait(poll, e, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = e[i].data.fd, one = 1;
            if (lines[fd].listening) {
                int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
                if (peer < 0 || peer >= FDS) continue;
                setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                lines[peer] = (line){0, 0, malloc(ROOM)};
                if (watch(poll, peer)) return -1;
            } else if (serve_line(fd, &lines[fd], answer, answer_size)) {
                close(fd);
                free(lines[fd].in);
            }
        }
    }
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct {
    int fd;
    long next; /* frame to be sent next */
    size_t have;
} caller;

/* Connection i, of `n`, goes to ports[i] and sends frames i, i + n, i + 2n ... one after another, up to `count` in all.
 * Returns the seconds from the first request to the last answer. */
double peer_load(int n, const uint16_t *ports, const uint8_t *frames, size_t size, long count, size_t answer_size)
{
    caller *callers = calloc((size_t)n, sizeof *callers);
    uint8_t in[ROOM];
    struct epoll_event e[EVENTS];
    int poll = epoll_create1(0), one = 1;
    long left = count;
    double begun, spent = -1;
    for (int i = 0; i < n; i++) {
        struct sockaddr_in a = place(ports[i]);
        int fd = callers[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        struct epoll_event want = {.events = EPOLLIN, .data = {.u32 = (uint32_t)i}};
        if (fd < 0 || connect(fd, (void *)&a, sizeof a) || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &want)) goto out;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        callers[i].next = i;
    }
    begun = seconds();
    for (int i = 0; i < n && i < count; i++) {
        if (send(callers[i].fd, frames + (size_t)i * size, size, MSG_NOSIGNAL) != (ssize_t)size) goto out;
        callers[i].next += n;
    }
    while (left) {
        int ready = epoll_wait(poll, e, EVENTS, 5000);
        if (ready <= 0) goto out;
        for (int i = 0; i < ready; i++) {
            caller *c = callers + e[i].data.u32;
            ssize_t got = recv(c->fd, in, answer_size - c->have, 0);
            if (got <= 0 || (!c->have && got > 2 && in[2] != 250)) goto out;
            c->have += (size_t)got;
            if (c->have < answer_size) continue;
            c->have = 0;
            left--;
            if (c->next >= count) continue;
            if (send(c->fd, frames + (size_t)c->next * size, size, MSG_NOSIGNAL) != (ssize_t)size) goto out;
            c->next += n;
        }
    }
    spent = seconds() - begun;
out:
    for (int i = 0; i < n; i++)
        if (callers[i].fd > 0) close(callers[i].fd);
    close(poll);
    free(callers);
    return spent;
}
