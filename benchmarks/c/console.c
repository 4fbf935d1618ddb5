/* Stands in for a VM's console:  console plain|rfb UNIX-PATH TCP-PORT
 *
 * plain: the first byte of a connection says what it is: D sends without end, T lines of plain text, X what full-screen
 *        programs write (colours, cursor moves, UTF-8), U sinks and tells every MiB how much it has had (8 bytes,
 *        little-endian), E echoes.
 * rfb:   an RFB 3.8 server (RFC 6143) with a Raw 1920x1080 screen, which it redraws without end from the first
 *        FramebufferUpdateRequest on; it answers each KeyEvent, and each POINTERS-th PointerEvent, with a Bell.
 * A connection that sends without end gets a process of its own, so that it does not slow the others' echoes.
 */
#include "bench.h"
#include <poll.h>

enum { BLOCK = 256 * 1024, WIDTH = 1920, HEIGHT = 1080, SCREEN = WIDTH * HEIGHT * 4, ACK = 1 << 20, POINTERS = 64 };
enum stage { PLAIN_NEW, ECHO, SINK, RFB_VERSION, RFB_SECURITY, RFB_INIT, RFB_MESSAGES };

struct console {
    int fd;
    enum stage stage;
    uint64_t sunk, told;
    unsigned pointed; /* PointerEvents */
    size_t held; /* bytes of an unfinished RFB message */
    unsigned char message[4096];
};

static unsigned char block[BLOCK];

static const char plain_text[] = "[    4.203174] systemd[1]: Started Journal Service, 4711 lines of a boot's long log follow\r\n";
static const char escapes[] =
    "\033[1;24r\033[7;1H\033[K\033[0;1;32m  4711 root      \033[m20   0 \033[38;5;208m 61.2m\033[0m 4.1m S "
    "\033[7m 0.7 \033[27m\033[33m0:01.33\033[39m sh\033[8;80H\342\224\202\033[1C\342\224\200\342\224\200\033[2P\033[?25l\033[9;3H"
    "vi: na\303\257ve \033[?25h\033[4h\033[4l\r\n";

/* Fills the block with whole copies of `text`; gives how much of it that is. */
static size_t repeat(const char *text, size_t size)
{
    size_t whole = BLOCK / size * size;
    for (size_t at = 0; at < whole; at += size)
        memcpy(block + at, text, size);
    return whole;
}

static int send_all(int fd, const void *data, size_t size)
{
    const char *p = data;
    while (size) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
            continue;
        }
        if (n <= 0)
            return -1;
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

static void flood(int fd, char what)
{
    if (fork() != 0)
        return;
    nonblocking(fd, 0);
    int rfb = what == 'R';
    size_t whole = BLOCK;
    if (what == 'T')
        whole = repeat(plain_text, sizeof plain_text - 1);
    if (what == 'X')
        whole = repeat(escapes, sizeof escapes - 1);
    unsigned char head[16] = {0, 0, 0, 1, 0, 0, 0, 0, WIDTH >> 8, WIDTH & 255, HEIGHT >> 8, HEIGHT & 255, 0, 0, 0, 0};
    for (;;) {
        char drop[4096];
        while (recv(fd, drop, sizeof drop, MSG_DONTWAIT) > 0) /* the client's further requests */
            ;
        if (rfb && send_all(fd, head, sizeof head) < 0)
            _exit(0);
        for (size_t left = rfb ? SCREEN : whole; left;) {
            size_t n = left < whole ? left : whole;
            if (send_all(fd, block, n) < 0)
                _exit(0);
            left -= n;
        }
    }
}

/* Handles one RFB client message at `m`; gives its length, 0 if it is not whole yet, -1 to close. */
static int rfb_step(struct console *c, const unsigned char *m, size_t have)
{
    static const unsigned char server_init[24] = {WIDTH >> 8, WIDTH & 255, HEIGHT >> 8, HEIGHT & 255, 32, 24, 0, 1,
                                                  0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 5};
    switch (c->stage) {
    case RFB_VERSION:
        if (have < 12)
            return 0;
        c->stage = RFB_SECURITY;
        return send_all(c->fd, "\1\1", 2) < 0 ? -1 : 12;
    case RFB_SECURITY:
        c->stage = RFB_INIT;
        return send_all(c->fd, "\0\0\0\0", 4) < 0 ? -1 : 1;
    case RFB_INIT:
        c->stage = RFB_MESSAGES;
        return send_all(c->fd, server_init, 24) < 0 || send_all(c->fd, "bench", 5) < 0 ? -1 : 1;
    default:
        break;
    }
    size_t need;
    switch (m[0]) {
    case 0: need = 20; break;
    case 2: need = have < 4 ? 4 : 4 + 4 * (size_t)(m[2] << 8 | m[3]); break;
    case 3: need = 10; break;
    case 4: need = 8; break;
    case 5: need = 6; break;
    case 255: need = 12; break;
    default: return -1;
    }
    if (have < need || (m[0] == 2 && have < 4))
        return 0;
    if (m[0] == 3) {
        flood(c->fd, 'R');
        return -1; /* the child has it now */
    }
    if (m[0] == 4 || m[0] == 255 || (m[0] == 5 && ++c->pointed % POINTERS == 0))
        if (send_all(c->fd, "\2", 1) < 0)
            return -1;
    return (int)need;
}

/* Gives -1 when the connection is done with here. */
static int serve(struct console *c)
{
    static unsigned char data[BLOCK];
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        return -1;
    const unsigned char *p = data;
    if (c->stage == PLAIN_NEW) {
        if (*p == 'D' || *p == 'T' || *p == 'X') {
            flood(c->fd, (char)*p);
            return -1;
        }
        c->stage = *p == 'U' ? SINK : ECHO;
        p++, n--;
    }
    if (c->stage == ECHO)
        return n ? send_all(c->fd, p, (size_t)n) : 0;
    if (c->stage == SINK) {
        c->sunk += (uint64_t)n;
        if (c->sunk - c->told < ACK)
            return 0;
        c->told = c->sunk;
        return send_all(c->fd, &c->told, sizeof c->told);
    }
    while (n > 0) {
        size_t take = sizeof c->message - c->held < (size_t)n ? sizeof c->message - c->held : (size_t)n;
        memcpy(c->message + c->held, p, take);
        c->held += take, p += take, n -= (ssize_t)take;
        size_t at = 0;
        int step = 0;
        while (at < c->held && (step = rfb_step(c, c->message + at, c->held - at)) > 0)
            at += (size_t)step;
        if (step < 0)
            return -1;
        memmove(c->message, c->message + at, c->held -= at);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int rfb = !strcmp(argv[1], "rfb");
    int listeners[2] = {listen_unix(argv[2]), listen_tcp(atoi(argv[3]))};
    signal(SIGCHLD, SIG_IGN);
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = (unsigned char)(i * 2654435761u >> 13);
    int poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.u64 = (uint64_t)i};
        epoll_ctl(poller, EPOLL_CTL_ADD, listeners[i], &e);
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 < 2) {
                int fd = accept4(listeners[events[i].data.u64], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0)
                    continue;
                nodelay(fd);
                struct console *c = calloc(1, sizeof *c);
                c->fd = fd;
                c->stage = rfb ? RFB_VERSION : PLAIN_NEW;
                struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
                if (rfb && send_all(fd, "RFB 003.008\n", 12) < 0)
                    perror("version");
                continue;
            }
            struct console *c = events[i].data.ptr;
            if (serve(c) < 0) {
                epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL); /* by hand: a child may hold it still */
                close(c->fd);
                free(c);
            }
        }
    }
}
