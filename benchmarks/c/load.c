/* The load generator: one operator, or many, at a relay's port. Prints one line of JSON.
 *
 *   load down|up|pointer|echo|connect|idle PORT [--raw] [--rfb] [--tls] [--seconds S] [--connections N] [--at-once K]
 *                                               [--every MS] [--frame BYTES] [--path PATH] [--offer FILE] [--ask LETTER]
 *
 * --raw      no websocket: the peer is the raw relay, or the console itself (what the generator can do at most)
 * --rfb      the console speaks RFB: shake hands, ask for Raw; an echo is a KeyEvent answered by a Bell
 * --at-once  echo: how many connections have an echo under way at any time (default: all)
 * --every    echo: each connection has a key every so many ms, all evenly apart, answered or not: as people type. A key's
 *            time counts from when it was due. Without it the next key follows the answer, as fast as the relay can
 * --ask      down: which of the console's endless outputs (D, T, X: see console.c)
 * --offer    a file whose line i is connection i's Sec-WebSocket-Protocol
 */
#include "bench.h"
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { BUFFER = 256 * 1024, WORKERS = 4, MAX_SAMPLES = 4 << 20 };
static const double WARM_UP = 0.15; /* seconds before a window in which nothing is counted */

static struct {
    const char *mode, *path, *ask;
    int port, raw, rfb, tls, connections, at_once, every, frame;
    double seconds;
    char **offers;
    int offer_count;
} option = {.ask = "D", .path = "/", .connections = 1, .seconds = 1.0, .frame = 16384};

static SSL_CTX *tls;

struct connection {
    int fd;
    SSL *ssl;
    uint64_t left; /* payload bytes of the frame that is being read */
    int notice;    /* it is a text frame: a word of the broker's own, no console output */
    size_t head;   /* header bytes of the next frame that were read */
    unsigned char header[10];
    uint64_t sent_at;
};

/* -- bytes ---------------------------------------------------------------------------------------------------------- */

/* Up to `size` bytes; 0 if there are none now; the program ends with the connection. */
static size_t take_some(struct connection *c, void *data, size_t size)
{
    ssize_t n = c->ssl ? SSL_read(c->ssl, data, (int)size) : recv(c->fd, data, size, 0);
    if (n > 0)
        return (size_t)n;
    if (c->ssl && SSL_get_error(c->ssl, (int)n) == SSL_ERROR_WANT_READ)
        return 0;
    if (!c->ssl && n < 0 && errno == EAGAIN)
        return 0;
    fprintf(stderr, "%s: the relay closed the connection\n", option.mode);
    exit(1);
}

static size_t give_some(struct connection *c, const void *data, size_t size)
{
    ssize_t n = c->ssl ? SSL_write(c->ssl, data, (int)size) : send(c->fd, data, size, MSG_NOSIGNAL);
    if (n > 0)
        return (size_t)n;
    int again = c->ssl ? SSL_get_error(c->ssl, (int)n) : 0;
    if (again == SSL_ERROR_WANT_READ || again == SSL_ERROR_WANT_WRITE || (!c->ssl && errno == EAGAIN))
        return 0;
    fprintf(stderr, "%s: the relay closed the connection\n", option.mode);
    exit(1);
}

static void wait_for(struct connection *c, short events)
{
    struct pollfd p = {.fd = c->fd, .events = events};
    if (!(c->ssl && (events & POLLIN) && SSL_pending(c->ssl)) && poll(&p, 1, 10000) == 0) {
        fprintf(stderr, "%s: nothing for 10 s\n", option.mode);
        exit(1);
    }
}

static void give(struct connection *c, const void *data, size_t size)
{
    for (const char *p = data; size;) {
        size_t n = give_some(c, p, size);
        if (!n)
            wait_for(c, POLLOUT);
        p += n, size -= n;
    }
}

/* Walks frame headers in what was read and moves the payload to its start; gives the payload's size. */
static size_t payload(struct connection *c, unsigned char *data, size_t size)
{
    if (option.raw)
        return size;
    size_t out = 0;
    for (size_t at = 0; at < size;) {
        if (c->left) {
            size_t n = size - at < c->left ? size - at : c->left;
            if (!c->notice) {
                if (out != at && option.mode[0] != 'd') /* down counts bytes and does not look at them */
                    memmove(data + out, data + at, n);
                out += n;
            }
            at += n, c->left -= n;
            continue;
        }
        c->header[c->head++] = data[at++];
        if (c->head < 2)
            continue;
        size_t extra = c->header[1] == 126 ? 2 : c->header[1] == 127 ? 8 : 0;
        if (c->head < 2 + extra)
            continue;
        if ((c->header[0] & 0x0f) == 8) {
            fprintf(stderr, "%s: the relay sent a close frame\n", option.mode);
            exit(1);
        }
        c->notice = (c->header[0] & 0x0f) == 1;
        c->left = extra ? 0 : c->header[1];
        for (size_t i = 0; i < extra; i++)
            c->left = c->left << 8 | c->header[2 + i];
        c->head = 0;
    }
    return out;
}

static size_t take_payload(struct connection *c, unsigned char *data, size_t size)
{
    return payload(c, data, take_some(c, data, size));
}

/* A masked binary frame (the mask key is fixed: the relay has to unmask all the same); gives its size. */
static size_t frame(unsigned char *out, const void *data, size_t size)
{
    static const unsigned char key[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t at = 0;
    if (option.raw) {
        memcpy(out, data, size);
        return size;
    }
    out[at++] = 0x82;
    if (size < 126) {
        out[at++] = (unsigned char)(0x80 | size);
    } else {
        out[at++] = 0x80 | 126;
        out[at++] = (unsigned char)(size >> 8);
        out[at++] = (unsigned char)size;
    }
    memcpy(out + at, key, 4);
    at += 4;
    for (size_t i = 0; i < size; i++)
        out[at + i] = ((const unsigned char *)data)[i] ^ key[i & 3];
    return at + size;
}

static void say(struct connection *c, const void *data, size_t size)
{
    unsigned char out[256];
    give(c, out, frame(out, data, size));
}

/* Reads exactly `size` payload bytes, which must be all that has come. */
static void hear(struct connection *c, size_t size)
{
    unsigned char in[512];
    for (size_t have = 0; have < size;) {
        wait_for(c, POLLIN);
        have += take_payload(c, in, sizeof in < size - have + 10 ? sizeof in : size - have + 10);
    }
}

/* -- connections ---------------------------------------------------------------------------------------------------- */

static void upgrade(struct connection *c, int number)
{
    char text[1024], offer[600] = "";
    if (option.offer_count)
        snprintf(offer, sizeof offer, "Sec-WebSocket-Protocol: %s\r\n", option.offers[number % option.offer_count]);
    int size = snprintf(text, sizeof text,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                        option.path, option.port, offer);
    give(c, text, (size_t)size);
    size_t have = 0;
    while (have < 4 || memcmp(text + have - 4, "\r\n\r\n", 4)) { /* byte by byte: a frame may follow */
        if (have == sizeof text - 1)
            die("response too long");
        size_t n = take_some(c, text + have, 1);
        if (!n)
            wait_for(c, POLLIN);
        have += n;
    }
    text[have] = 0;
    if (!strstr(text, " 101 ")) {
        fprintf(stderr, "%s: refused: %.60s\n", option.mode, text);
        exit(1);
    }
}

static void open_connection(struct connection *c, int number)
{
    memset(c, 0, sizeof *c);
    c->fd = dial_tcp(option.port);
    if (option.tls) {
        c->ssl = SSL_new(tls);
        SSL_set_fd(c->ssl, c->fd);
        if (SSL_connect(c->ssl) != 1)
            die("TLS handshake");
    }
    nonblocking(c->fd, 1);
    if (!option.raw)
        upgrade(c, number);
    if (option.rfb) {
        hear(c, 12);
        say(c, "RFB 003.008\n", 12);
        hear(c, 2);
        say(c, "\1", 1);
        hear(c, 4);
        say(c, "\1", 1);
        hear(c, 24 + 5);
        say(c, "\2\0\0\1\0\0\0\0", 8); /* SetEncodings: Raw */
    } else {
        say(c, option.mode[0] == 'd' ? option.ask : option.mode[0] == 'u' ? "U" : "E", 1);
    }
}

static void close_hard(struct connection *c)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0}; /* no TIME_WAIT: thousands a minute would use the ports up */
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    if (c->ssl)
        SSL_free(c->ssl);
    close(c->fd);
}

/* -- measurements --------------------------------------------------------------------------------------------------- */

static double seconds_since(uint64_t start)
{
    return (double)(now_ns() - start) / 1e9;
}

static void down(void)
{
    static unsigned char data[BUFFER];
    struct connection c;
    open_connection(&c, 0);
    if (option.rfb)
        say(&c, "\3\0\0\0\0\0\7\200\4\70", 10); /* FramebufferUpdateRequest, 1920x1080 */
    nonblocking(c.fd, 0);
    uint64_t start = now_ns(), bytes = 0;
    while (seconds_since(start) < WARM_UP)
        take_payload(&c, data, sizeof data);
    start = now_ns();
    while (seconds_since(start) < option.seconds)
        bytes += take_payload(&c, data, sizeof data);
    printf("{\"bytes_per_second\": %.0f}\n", (double)bytes / seconds_since(start));
}

static void up(void)
{
    static unsigned char out[65536 + 16], in[4096];
    unsigned char *body = calloc(1, (size_t)option.frame);
    size_t size = frame(out, body, (size_t)option.frame), at = 0, held = 0;
    unsigned char word[8];
    struct connection c;
    open_connection(&c, 0);
    uint64_t start = now_ns(), first = 0, first_at = 0, last = 0, last_at = 0;
    while (seconds_since(start) < WARM_UP + option.seconds) {
        size_t n = give_some(&c, out + at, size - at);
        at = (at + n) % size;
        if (!n)
            wait_for(&c, POLLIN | POLLOUT);
        size_t got = take_payload(&c, in, sizeof in);
        for (size_t i = 0; i < got; i++) { /* the console's reports of what it has had */
            word[held++] = in[i];
            if (held < 8)
                continue;
            held = 0;
            memcpy(&last, word, 8);
            last_at = now_ns();
            if (!first && seconds_since(start) > WARM_UP)
                first = last, first_at = last_at;
        }
    }
    if (last_at <= first_at)
        die("up: no report");
    printf("{\"bytes_per_second\": %.0f}\n", (double)(last - first) / ((double)(last_at - first_at) / 1e9));
}

/* Movements of the mouse, each in a frame of its own as clients send them, as fast as they are taken. */
static void pointer(void)
{
    enum { BATCH = 256, EACH = 64 }; /* EACH: console.c answers so many with a Bell */
    static unsigned char out[BATCH * 16], in[4096];
    size_t size = 0, at = 0;
    for (int i = 0; i < BATCH; i++)
        size += frame(out + size, (unsigned char[]){5, 0, 0, (unsigned char)i, 0, (unsigned char)i}, 6);
    struct connection c;
    open_connection(&c, 0);
    uint64_t start = now_ns(), first = 0, first_at = 0, bells = 0, last_at = 0;
    while (seconds_since(start) < WARM_UP + option.seconds) {
        size_t n = give_some(&c, out + at, size - at);
        at = (at + n) % size;
        if (!n)
            wait_for(&c, POLLIN | POLLOUT);
        size_t got = take_payload(&c, in, sizeof in);
        if (!got)
            continue;
        bells += got;
        last_at = now_ns();
        if (!first && seconds_since(start) > WARM_UP)
            first = bells, first_at = last_at;
    }
    if (last_at <= first_at)
        die("pointer: no answer");
    printf("{\"per_second\": %.0f}\n", (double)(bells - first) * EACH / ((double)(last_at - first_at) / 1e9));
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void ping(struct connection *c)
{
    c->sent_at = now_ns();
    say(c, option.rfb ? "\4\1\0\0\0\0\0a" : "keypress", 8);
}

/* Presses the keys that are due; gives the nanoseconds until the next one. A key whose last is unanswered is left out. */
static uint64_t type_due(struct connection *all, char *busy, uint64_t start, uint64_t *pressed, uint64_t *left_out)
{
    uint64_t apart = (uint64_t)option.every * 1000000 / (uint64_t)option.connections;
    for (;;) {
        uint64_t due = start + *pressed * apart, now = now_ns();
        if (due > now)
            return due - now;
        size_t next = (size_t)(*pressed % (uint64_t)option.connections);
        (*pressed)++;
        if (busy[next]) {
            (*left_out)++;
            continue;
        }
        busy[next] = 1;
        ping(&all[next]);
        all[next].sent_at = due;
    }
}

static void echo(void)
{
    int n = option.connections, at_once = option.at_once && option.at_once < n ? option.at_once : n;
    struct connection *all = calloc((size_t)n, sizeof *all);
    char *busy = calloc((size_t)n, 1);
    uint32_t *samples = malloc(MAX_SAMPLES * sizeof *samples), random = 1;
    size_t count = 0, answer = option.rfb ? 1 : 8;
    int poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < n; i++) {
        open_connection(&all[i], i);
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &e);
    }
    size_t *have = calloc((size_t)n, sizeof *have);
    uint64_t start = now_ns(), pressed = 0, left_out = 0;
    for (int i = 0; i < at_once && !option.every; i++)
        busy[i] = 1, ping(&all[i]);
    while (seconds_since(start) < WARM_UP + option.seconds) {
        struct epoll_event events[256];
        uint64_t rest = option.every ? type_due(all, busy, start, &pressed, &left_out) : 10000000000;
        struct timespec limit = {.tv_sec = (time_t)(rest / 1000000000), .tv_nsec = (long)(rest % 1000000000)};
        int ready = epoll_pwait2(poller, events, 256, &limit, NULL);
        if (ready <= 0 && option.every)
            continue;
        if (ready <= 0) {
            fprintf(stderr, "echo: nothing for 10 s\n");
            exit(1);
        }
        for (int e = 0; e < ready; e++) {
            struct connection *c = &all[events[e].data.u32];
            unsigned char in[256];
            have[c - all] += take_payload(c, in, sizeof in);
            if (have[c - all] < answer)
                continue;
            have[c - all] = 0;
            if (seconds_since(start) > WARM_UP && count < MAX_SAMPLES)
                samples[count++] = (uint32_t)((now_ns() - c->sent_at) / 100); /* 0.1 us */
            busy[c - all] = 0;
            if (option.every)
                continue;
            size_t next = (size_t)(c - all);
            if (at_once < n) {
                do {
                    random = random * 1664525u + 1013904223u;
                    next = (random >> 8) % (uint32_t)n;
                } while (busy[next]);
            }
            busy[next] = 1;
            ping(&all[next]);
        }
    }
    if (!count) {
        fprintf(stderr, "echo: none came back\n");
        exit(1);
    }
    qsort(samples, count, sizeof *samples, ascending);
    if (left_out * 100 > pressed) {
        fprintf(stderr, "echo: %llu of %llu keys were due before the last was answered\n", (unsigned long long)left_out,
                (unsigned long long)pressed);
        exit(1);
    }
    printf("{\"p50_us\": %.1f, \"p99_us\": %.1f, \"per_second\": %.0f}\n", samples[count / 2] / 10.0,
           samples[count * 99 / 100] / 10.0, (double)count / option.seconds);
}

static void connect_rate(void)
{
    uint64_t *counts = mmap(NULL, WORKERS * 64, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int failed = 0;
    for (int worker = 0; worker < WORKERS; worker++) {
        if (fork() != 0)
            continue;
        uint64_t start = now_ns();
        for (int i = 0; seconds_since(start) < WARM_UP + option.seconds; i++) {
            struct connection c;
            open_connection(&c, worker * 100000 + i);
            ping(&c); /* the console is there only when it has answered */
            hear(&c, option.rfb ? 1 : 8);
            close_hard(&c);
            if (seconds_since(start) > WARM_UP)
                counts[worker * 8]++;
        }
        _exit(0);
    }
    uint64_t sum = 0;
    for (int worker = 0; worker < WORKERS; worker++) {
        int status;
        wait(&status);
        failed |= status;
    }
    for (int worker = 0; worker < WORKERS; worker++)
        sum += counts[worker * 8];
    if (failed)
        exit(1);
    printf("{\"per_second\": %.0f}\n", (double)sum / option.seconds);
}

static void idle(void)
{
    struct connection *all = calloc((size_t)option.connections, sizeof *all);
    for (int i = 0; i < option.connections; i++) {
        open_connection(&all[i], i);
        ping(&all[i]);
        hear(&all[i], option.rfb ? 1 : 8);
    }
    puts("{\"open\": true}");
    fflush(stdout);
    getchar(); /* until whoever started us has looked */
    for (int i = 0; i < option.connections; i++)
        close_hard(&all[i]);
}

static void read_offers(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        option.offers = realloc(option.offers, sizeof(char *) * (size_t)(option.offer_count + 1));
        option.offers[option.offer_count++] = strdup(line);
    }
    fclose(file);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    option.mode = argv[1];
    option.port = atoi(argv[2]);
    for (int i = 3; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--raw")) {
            option.raw = 1;
        } else if (!strcmp(name, "--rfb")) {
            option.rfb = 1;
        } else if (!strcmp(name, "--tls")) {
            option.tls = 1;
        } else if (i + 1 == argc) {
            return 2;
        } else if (!strcmp(name, "--seconds")) {
            option.seconds = atof(argv[++i]);
        } else if (!strcmp(name, "--connections")) {
            option.connections = atoi(argv[++i]);
        } else if (!strcmp(name, "--at-once")) {
            option.at_once = atoi(argv[++i]);
        } else if (!strcmp(name, "--every")) {
            option.every = atoi(argv[++i]);
        } else if (!strcmp(name, "--frame")) {
            option.frame = atoi(argv[++i]);
        } else if (!strcmp(name, "--path")) {
            option.path = argv[++i];
        } else if (!strcmp(name, "--ask")) {
            option.ask = argv[++i];
        } else if (!strcmp(name, "--offer")) {
            read_offers(argv[++i]);
        } else {
            return 2;
        }
    }
    if (option.frame < 1 || option.frame > 65535 || option.connections < 1)
        return 2;
    if (option.tls) {
        tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF); /* every handshake a full one */
    }
    if (!strcmp(option.mode, "down"))
        down();
    else if (!strcmp(option.mode, "up"))
        up();
    else if (!strcmp(option.mode, "pointer"))
        pointer();
    else if (!strcmp(option.mode, "echo"))
        echo();
    else if (!strcmp(option.mode, "connect"))
        connect_rate();
    else if (!strcmp(option.mode, "idle"))
        idle();
    else
        return 2;
    return 0;
}
