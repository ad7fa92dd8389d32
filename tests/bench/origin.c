// The origin of `cargo xtask bench`: a keep-alive HTTP/1.1 server that costs far less than any proxy in front of it.
// One thread, epoll, one read and one write a request. Usage: origin PORT BODY_BYTES
// It reads heads up to the empty line, skips Content-Length bodies, and answers everything with 200.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 16384, EVENTS = 256, BACKLOG = 4096 };

struct connection {
    int fd;
    size_t have;      // bytes in buffer
    size_t skip;      // bytes of a request body still to come
    size_t sent;      // bytes of the answer already sent
    int answering;
    char buffer[BUFFER];
};

static char *answer;
static size_t answer_length;

static void drop(struct connection *c) {
    close(c->fd);
    free(c);
}

// Sends what is left of the answer. 0: all sent; 1: the socket is full; -1: gone.
static int push(struct connection *c) {
    while (c->sent < answer_length) {
        ssize_t n = send(c->fd, answer + c->sent, answer_length - c->sent, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN ? 1 : -1;
        c->sent += (size_t)n;
    }
    c->answering = 0;
    c->sent = 0;
    return 0;
}

// Answers every whole request in the buffer. As push().
static int work(struct connection *c) {
    for (;;) {
        if (c->answering) {
            int state = push(c);
            if (state) return state;
        }
        size_t skip = c->skip < c->have ? c->skip : c->have;
        memmove(c->buffer, c->buffer + skip, c->have - skip);
        c->have -= skip;
        c->skip -= skip;
        if (c->skip) return 0;
        char *end = memmem(c->buffer, c->have, "\r\n\r\n", 4);
        if (!end) return c->have == BUFFER ? -1 : 0;
        size_t head = (size_t)(end - c->buffer) + 4;
        char *field = memmem(c->buffer, head, "\r\ncontent-length:", 17);
        if (!field) field = memmem(c->buffer, head, "\r\nContent-Length:", 17);
        c->skip = head + (field ? strtoul(field + 17, NULL, 10) : 0);
        c->answering = 1;
    }
}

int main(int count, char **arguments) {
    if (count != 3) return fprintf(stderr, "usage: origin PORT BODY_BYTES\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    size_t body = strtoul(arguments[2], NULL, 10);
    answer = malloc(body + 256);
    int head = sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", body);
    memset(answer + head, 'x', body);
    answer_length = (size_t)head + body;

    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(arguments[1])),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, BACKLOG)) return perror("origin"), 1;
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN}, events[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    c = calloc(1, sizeof *c);
                    c->fd = fd;
                    struct epoll_event added = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &added);
                }
                continue;
            }
            int gone = 0;
            for (;;) {
                size_t room = BUFFER - c->have;
                ssize_t n = recv(c->fd, c->buffer + c->have, room, 0);
                if (n == 0 || (n < 0 && errno != EAGAIN)) gone = 1;
                if (n > 0) c->have += (size_t)n;
                int state = gone ? -1 : work(c);
                if (state < 0) gone = 1;
                if (gone || state || n < 0 || (size_t)n < room) break;
            }
            if (gone) drop(c);
        }
    }
}
