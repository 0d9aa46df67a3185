/* An SMTP server that takes every letter and keeps none, fast enough to be no part of what is measured.
 *
 *     sink JOURNAL DELAY_MICROSECONDS [CERTIFICATE.pem PLAIN LOGIN PASSWORD]
 *
 * It listens on a free port of 127.0.0.1, says the port on stdout and serves until stdin is closed. For each mail it
 * writes `TIME RECIPIENT` into the journal, within 5 ms: the monotonic clock at the final 250, in seconds, and the last
 * RCPT. A delay holds that 250 back and with it all that came behind the dot, as a server does that is busy with the
 * letter; other sessions go on. With a certificate it demands STARTTLS and a sign-in; the last three arguments are what
 * a client must say, in base64: for AUTH PLAIN at once, for AUTH LOGIN in turn. PIPELINING (RFC 2920) is always offered.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { CAME_BYTES = 1 << 16, REPLIES_BYTES = 1 << 14, RECIPIENT_BYTES = 321, EVENTS = 64, FLUSH_MILLISECONDS = 5 };

enum expects { COMMAND, PLAIN_RESPONSE, LOGIN_NAME, LOGIN_PASSWORD, LETTER };

struct session {
    int fd;
    SSL *tls;
    enum expects expects;
    int signed_in, leaving, busy;
    double free_at;
    struct session *next_busy;
    size_t came, replies;
    char recipient[RECIPIENT_BYTES];
    char in[CAME_BYTES], out[REPLIES_BYTES];
};

static int poller, timer, listener;
static FILE *journal;
static double unwritten_since; /* 0: all is written */
static double delay_seconds;
static SSL_CTX *tls_context; /* none: neither TLS nor sign-in is asked for */
static const char *right_plain, *right_login, *right_password;
static struct session *first_busy, *last_busy; /* the delay is the same for all, so that they end in order */

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int operation, int fd, uint32_t events, void *whose) {
    struct epoll_event event = {.events = events, .data.ptr = whose};
    if (epoll_ctl(poller, operation, fd, &event) < 0) die("epoll_ctl");
}

static void reply(struct session *s, const char *text) {
    size_t length = strlen(text);
    if (s->replies + length > sizeof s->out) {
        s->leaving = 1;
        return;
    }
    memcpy(s->out + s->replies, text, length);
    s->replies += length;
}

/* A client that does not read its replies is cut off. */
static void flush(struct session *s) {
    if (s->replies == 0) return;
    long sent = s->tls ? SSL_write(s->tls, s->out, (int)s->replies) : send(s->fd, s->out, s->replies, 0);
    if (sent != (long)s->replies) s->leaving = 1;
    s->replies = 0;
}

static void end(struct session *s) {
    if (s->tls) SSL_free(s->tls);
    close(s->fd);
    free(s);
}

static void set_timer(void) {
    double at = first_busy ? first_busy->free_at : 0;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)at, .tv_nsec = (long)((at - (double)(time_t)at) * 1e9)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void take(struct session *s) {
    double at = now();
    fprintf(journal, "%.6f %s\n", at, s->recipient);
    if (unwritten_since == 0) unwritten_since = at;
    reply(s, "250 2.0.0 taken\r\n");
}

static void be_busy(struct session *s) {
    s->busy = 1;
    s->free_at = now() + delay_seconds;
    s->next_busy = NULL;
    if (first_busy) {
        last_busy->next_busy = s;
        last_busy = s;
    } else {
        first_busy = last_busy = s;
        set_timer();
    }
    watch(EPOLL_CTL_MOD, s->fd, 0, s);
}

static void start_tls(struct session *s) {
    reply(s, "220 2.0.0 go ahead\r\n");
    flush(s);
    s->came = 0; /* what was sent in clear behind STARTTLS does not count (RFC 3207) */
    s->tls = SSL_new(tls_context);
    SSL_set_fd(s->tls, s->fd);
    SSL_set_accept_state(s->tls);
}

static void judge(struct session *s, int right, enum expects then, const char *text) {
    s->expects = right ? then : COMMAND;
    if (right && then == COMMAND) s->signed_in = 1;
    reply(s, right ? text : "535 5.7.8 wrong\r\n");
}

static void authenticate(struct session *s, const char *how) {
    const char *done = "235 2.7.0 signed in\r\n", *password = "334 UGFzc3dvcmQ6\r\n";
    if (!strncasecmp(how, "PLAIN ", 6)) return judge(s, !strcmp(how + 6, right_plain), COMMAND, done);
    if (!strncasecmp(how, "LOGIN ", 6)) return judge(s, !strcmp(how + 6, right_login), LOGIN_PASSWORD, password);
    if (!strcasecmp(how, "PLAIN")) return judge(s, 1, PLAIN_RESPONSE, "334 \r\n");
    if (!strcasecmp(how, "LOGIN")) return judge(s, 1, LOGIN_NAME, "334 VXNlcm5hbWU6\r\n");
    reply(s, "504 5.5.4 not offered\r\n");
}

static void note_recipient(struct session *s, const char *line) {
    const char *from = strchr(line, '<'), *to = from ? strchr(from, '>') : NULL;
    if (!to || to - from >= RECIPIENT_BYTES) return reply(s, "501 5.1.3 no address\r\n");
    snprintf(s->recipient, sizeof s->recipient, "%.*s", (int)(to - from - 1), from + 1);
    reply(s, "250 2.1.5 fine\r\n");
}

static void say_hello(struct session *s) {
    reply(s, "250-sink.example\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n");
    if (tls_context && !s->tls) reply(s, "250-STARTTLS\r\n");
    if (tls_context && s->tls) reply(s, "250-AUTH PLAIN LOGIN\r\n");
    reply(s, "250 ENHANCEDSTATUSCODES\r\n");
}

static void command(struct session *s, const char *line) {
    static const char fine[] = "250 2.0.0 fine\r\n";
    if (!strncasecmp(line, "EHLO", 4)) return say_hello(s);
    if (!strncasecmp(line, "HELO", 4) || !strncasecmp(line, "RSET", 4) || !strncasecmp(line, "NOOP", 4))
        return reply(s, fine);
    if (!strncasecmp(line, "QUIT", 4)) {
        reply(s, "221 2.0.0 bye\r\n");
        s->leaving = 1;
        return;
    }
    if (tls_context && !s->tls && !strcasecmp(line, "STARTTLS")) return start_tls(s);
    if (tls_context && s->tls && !strncasecmp(line, "AUTH ", 5)) return authenticate(s, line + 5);
    if (tls_context && !s->signed_in) return reply(s, "530 5.7.0 STARTTLS and AUTH first\r\n");
    if (!strncasecmp(line, "MAIL", 4)) return reply(s, fine);
    if (!strncasecmp(line, "RCPT", 4)) return note_recipient(s, line);
    if (!strcasecmp(line, "DATA")) {
        s->expects = LETTER;
        return reply(s, "354 go on\r\n");
    }
    reply(s, "502 5.5.1 unknown\r\n");
}

static void hear(struct session *s, const char *line) {
    const char *done = "235 2.7.0 signed in\r\n", *password = "334 UGFzc3dvcmQ6\r\n";
    switch (s->expects) {
        case PLAIN_RESPONSE: return judge(s, !strcmp(line, right_plain), COMMAND, done);
        case LOGIN_NAME: return judge(s, !strcmp(line, right_login), LOGIN_PASSWORD, password);
        case LOGIN_PASSWORD: return judge(s, !strcmp(line, right_password), COMMAND, done);
        default: return command(s, line);
    }
}

/* Takes all lines and letters that are there in whole, until the session is busy. The line end of DATA stays, so that
 * the dot of an empty letter stands behind one as well. */
static void digest(struct session *s) {
    size_t at = 0;
    while (!s->busy && !s->leaving && at < s->came) {
        char *from = s->in + at;
        if (s->expects == LETTER) {
            char *dot = memmem(from, s->came - at, "\r\n.\r\n", 5);
            if (!dot) {
                if (s->came - at > 4) at = s->came - 4;
                break;
            }
            at = (size_t)(dot - s->in) + 5;
            s->expects = COMMAND;
            if (delay_seconds > 0) be_busy(s);
            else take(s);
            continue;
        }
        char *line_end = memmem(from, s->came - at, "\r\n", 2);
        if (!line_end) break;
        *line_end = 0;
        hear(s, from);
        *line_end = '\r';
        if (s->came == 0) return; /* STARTTLS */
        at = (size_t)(line_end - s->in) + (s->expects == LETTER ? 0 : 2);
    }
    s->came -= at;
    memmove(s->in, s->in + at, s->came);
}

/* Reads once; says whether there may be more. */
static int receive(struct session *s) {
    int room = (int)(sizeof s->in - s->came);
    if (room == 0) return s->leaving = 1, 0;
    long got = s->tls ? SSL_read(s->tls, s->in + s->came, room) : recv(s->fd, s->in + s->came, (size_t)room, 0);
    if (got > 0) {
        s->came += (size_t)got;
        return s->tls ? SSL_has_pending(s->tls) : got == room;
    }
    if (s->tls ? SSL_get_error(s->tls, (int)got) != SSL_ERROR_WANT_READ : got == 0 || errno != EAGAIN) s->leaving = 1;
    ERR_clear_error();
    return 0;
}

static void serve(struct session *s, uint32_t events) {
    int more = 1;
    if (s->busy) { /* nothing is heard of it then but that it is gone */
        if (events & (EPOLLHUP | EPOLLERR)) epoll_ctl(poller, EPOLL_CTL_DEL, s->fd, NULL), s->leaving = 1;
        return;
    }
    digest(s);
    while (more && !s->busy && !s->leaving) {
        more = receive(s);
        digest(s);
    }
    flush(s);
    if (s->leaving && !s->busy) end(s);
}

static void free_the_busy(void) {
    for (double at = now(); first_busy && first_busy->free_at <= at;) {
        struct session *s = first_busy;
        first_busy = s->next_busy;
        s->busy = 0;
        take(s);
        if (!s->leaving) watch(EPOLL_CTL_MOD, s->fd, EPOLLIN, s);
        serve(s, EPOLLIN);
    }
    set_timer();
}

static void welcome(void) {
    int yes = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    struct session *s = calloc(1, sizeof *s);
    if (!s) die("calloc");
    s->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    watch(EPOLL_CTL_ADD, fd, EPOLLIN, s);
    reply(s, "220 sink.example ESMTP\r\n");
    flush(s);
}

static void listen_on_free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 1024) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

static void use_certificate(const char *file) {
    tls_context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_read_ahead(tls_context, 1);
    if (SSL_CTX_use_certificate_chain_file(tls_context, file) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls_context, file, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
}

int main(int count, char **given) {
    if (count != 3 && count != 7) return fputs("usage: sink JOURNAL DELAY_MICROSECONDS [PEM PLAIN LOGIN PASSWORD]\n", stderr), 2;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* whoever started it closes its stdin */
    if (!(journal = fopen(given[1], "w"))) die(given[1]);
    delay_seconds = atof(given[2]) / 1e6;
    if (count == 7) {
        use_certificate(given[3]);
        right_plain = given[4], right_login = given[5], right_password = given[6];
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    listen_on_free_port();
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, &listener);
    watch(EPOLL_CTL_ADD, timer, EPOLLIN, &timer);
    watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, NULL);
    struct epoll_event events[EVENTS];
    for (;;) {
        int some = epoll_wait(poller, events, EVENTS, unwritten_since > 0 ? FLUSH_MILLISECONDS : -1), timer_rang = 0;
        for (int i = 0; i < some; i++) {
            void *whose = events[i].data.ptr;
            if (!whose) return fclose(journal) != 0;
            if (whose == &listener) welcome();
            else if (whose == &timer) timer_rang = 1;
            else serve(whose, events[i].events);
        }
        if (timer_rang) free_the_busy(); /* at last: it may end a session that has an event too */
        if (unwritten_since > 0 && now() - unwritten_since >= FLUSH_MILLISECONDS / 1e3) {
            fflush(journal);
            unwritten_since = 0;
        }
    }
}
