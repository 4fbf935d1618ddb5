/* The limit: bytes between a TCP peer and a UNIX socket, 64 KiB at a time, no websocket:  relay PORT UNIX-PATH [PEM] */
#include "bench.h"
#include <openssl/err.h>
#include <openssl/ssl.h>

enum { CHUNK = 64 * 1024 };

struct pair;
struct end {
    struct pair *pair;
    int fd;
    SSL *ssl;
    uint32_t watched;
    int wants_write; /* what SSL said it waits for */
};
struct way {
    size_t at, size; /* what was read and is not written yet */
    unsigned char *data;
};
struct pair {
    struct end peer, console;
    struct way down, up;
    int handshaken, dead;
    struct pair *next;
};

static int poller;
static struct pair *graves;
static unsigned char shared[CHUNK];

static void watch(struct end *e, uint32_t events)
{
    if (e->watched == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = e};
    epoll_ctl(poller, EPOLL_CTL_MOD, e->fd, &event);
    e->watched = events;
}

static ssize_t ssl_result(struct end *e, int n)
{
    if (n > 0)
        return n;
    int error = SSL_get_error(e->ssl, n);
    ERR_clear_error();
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        e->wants_write = error == SSL_ERROR_WANT_WRITE;
        errno = EAGAIN;
        return -1;
    }
    errno = EPIPE;
    return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static ssize_t take(struct end *e, void *data, size_t size)
{
    if (!e->ssl)
        return recv(e->fd, data, size, 0);
    size_t got = 0; /* a record is 16 KiB: fill the chunk, as the plain side does in one call */
    while (got < size) {
        ssize_t n = ssl_result(e, SSL_read(e->ssl, (char *)data + got, (int)(size - got)));
        if (n <= 0)
            return got ? (ssize_t)got : n;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

static ssize_t give(struct end *e, const void *data, size_t size)
{
    if (!e->ssl)
        return send(e->fd, data, size, MSG_NOSIGNAL);
    size_t put = 0;
    while (put < size) {
        ssize_t n = ssl_result(e, SSL_write(e->ssl, (const char *)data + put, (int)(size - put)));
        if (n <= 0)
            return put ? (ssize_t)put : n;
        put += (size_t)n;
    }
    return (ssize_t)put;
}

/* One chunk from `from` to `to`; -1 at the end of either. What does not go is kept, and `from` not read until it went. */
static int move(struct way *w, struct end *from, struct end *to)
{
    if (!w->size) {
        ssize_t n = take(from, shared, CHUNK);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        if (n == 0)
            return -1;
        ssize_t sent = give(to, shared, (size_t)n);
        if (sent < 0 && errno != EAGAIN)
            return -1;
        if (sent < 0)
            sent = 0;
        if (sent == n)
            return 0;
        if (!w->data)
            w->data = malloc(CHUNK);
        w->at = 0;
        w->size = (size_t)(n - sent);
        memcpy(w->data, shared + sent, w->size);
        return 0;
    }
    ssize_t sent = give(to, w->data + w->at, w->size);
    if (sent < 0)
        return errno == EAGAIN ? 0 : -1;
    w->at += (size_t)sent;
    w->size -= (size_t)sent;
    return 0;
}

static void bury(struct pair *p)
{
    if (p->dead)
        return;
    p->dead = 1;
    close(p->console.fd);
    if (p->peer.ssl)
        SSL_free(p->peer.ssl);
    close(p->peer.fd);
    p->next = graves;
    graves = p;
}

static void serve(struct end *e, uint32_t events)
{
    struct pair *p = e->pair;
    if (p->dead)
        return;
    if (p->peer.ssl && !p->handshaken) {
        if (e != &p->peer)
            return;
        int n = SSL_accept(p->peer.ssl);
        if (n == 1)
            p->handshaken = 1;
        else if (ssl_result(&p->peer, n) < 0 && errno != EAGAIN)
            bury(p);
        return;
    }
    int failed = 0;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        struct way *w = e == &p->peer ? &p->up : &p->down;
        if (!w->size)
            failed |= move(w, e, e == &p->peer ? &p->console : &p->peer) < 0;
    }
    if (!failed && events & EPOLLOUT) {
        struct way *w = e == &p->peer ? &p->down : &p->up;
        if (w->size)
            failed |= move(w, e == &p->peer ? &p->console : &p->peer, e) < 0;
    }
    while (!failed && p->peer.ssl && !p->up.size && SSL_pending(p->peer.ssl) > 0)
        failed |= move(&p->up, &p->peer, &p->console) < 0; /* bytes that epoll no longer sees */
    if (failed) {
        bury(p);
        return;
    }
    watch(&p->peer, (p->up.size ? 0u : (uint32_t)EPOLLIN) | (p->down.size ? (uint32_t)EPOLLOUT : 0u));
    watch(&p->console, (p->down.size ? 0u : (uint32_t)EPOLLIN) | (p->up.size ? (uint32_t)EPOLLOUT : 0u));
}

static void join(int fd, const char *path, SSL_CTX *tls)
{
    struct pair *p = calloc(1, sizeof *p);
    p->peer = (struct end){.pair = p, .fd = fd, .watched = EPOLLIN};
    p->console = (struct end){.pair = p, .fd = dial_unix(path), .watched = EPOLLIN};
    nodelay(fd);
    nonblocking(p->console.fd, 1);
    if (tls) {
        p->peer.ssl = SSL_new(tls);
        SSL_set_fd(p->peer.ssl, fd);
    }
    struct end *ends[2] = {&p->peer, &p->console};
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = ends[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, ends[i]->fd, &event);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX *tls = NULL;
    if (argc > 3) {
        tls = SSL_CTX_new(TLS_server_method());
        SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        if (SSL_CTX_use_certificate_chain_file(tls, argv[3]) != 1 ||
            SSL_CTX_use_PrivateKey_file(tls, argv[3], SSL_FILETYPE_PEM) != 1)
            die("certificate");
    }
    int listener = listen_tcp(atoi(argv[1]));
    nonblocking(listener, 1);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr, events[i].events);
            else
                for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;)
                    join(fd, argv[2], tls);
        }
        while (graves) { /* not before the events of this turn, which may point at it, are done with */
            struct pair *p = graves;
            graves = p->next;
            free(p->down.data);
            free(p->up.data);
            free(p);
        }
    }
}
