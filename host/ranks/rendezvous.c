// How ranks that a launcher started find each other: all others connect to rank 0 over TCP, say who and where they are,
// and learn which of them share a host, the name of that host's Board, and NCCL's id. No connection is kept open.
#include "clock.h"
#include "rendezvous.h"
#include "signals.h"
#include "str.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <stdio.h>
#include <string.h>

static const char magic[8] = "grpo.c\n";

// How long a greeting or its answer may take; and how long ranks wait before they say so.
#define GREETING_SECONDS 1
#define QUIET_SECONDS    2

typedef struct {
    char magic[8], device[16];
    uint64_t job, host; // host: a number that is the same for processes that can share memory
    int32_t rank, world;
} Hello;

typedef struct {
    char magic[8];
    int32_t local, locals;
    uint64_t board; // a number in the name of the host's board
    char id[COMM_ID_BYTES];
    char refused[160]; // why this rank cannot take part; "" where it can
} Welcome;

// The number for `host`: processes can share memory if they see the same /dev/shm since the same boot.
static uint64_t host_key(void) {
    uint64_t key = 14695981039346656037u;
    char boot[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, boot, sizeof boot - 1) < 0) *boot = 0;
    if (fd >= 0) close(fd);
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    struct stat st;
    uint64_t shm = stat("/dev/shm", &st) ? 0 : (uint64_t)st.st_dev;
    for (const char *p = boot; *p; p++) key = (key ^ (uint8_t)*p) * 1099511628211u;
    for (const char *p = name; *p; p++) key = (key ^ (uint8_t)*p) * 1099511628211u;
    return (key ^ shm) * 1099511628211u;
}

// ---- bytes over a socket, against a clock ---------------------------------------------------------------------------

static bool ready(int fd, short what, double until) {
    for (;;) {
        double left = until - clock_seconds();
        if (left <= 0 || stop_requested()) return false;
        struct pollfd p = {.fd = fd, .events = what};
        int n = poll(&p, 1, left < 0.1 ? (int)(1000 * left) + 1 : 100);
        if (n > 0) return true;
        if (n < 0 && errno != EINTR) return false;
    }
}

static bool receive(int fd, void *data, size_t n, double until) {
    for (char *p = data; n;) {
        if (!ready(fd, POLLIN, until)) return false;
        ssize_t got = recv(fd, p, n, 0);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got <= 0) return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

static bool transmit(int fd, const void *data, size_t n, double until) {
    for (const char *p = data; n;) {
        if (!ready(fd, POLLOUT, until)) return false;
        ssize_t put = send(fd, p, n, MSG_NOSIGNAL);
        if (put < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (put <= 0) return false;
        p += put;
        n -= (size_t)put;
    }
    return true;
}

// The addresses of rank 0's host at a port; free with freeaddrinfo. NULL after filling *e.
static struct addrinfo *resolve(const Launch *l, int port, Error *e) {
    struct addrinfo want = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    bool here = !strcmp(l->master, "localhost"); // not every machine can resolve that name
    int why = getaddrinfo(here ? "127.0.0.1" : l->master, text, &want, &found);
    if (!why) return found;
    error_set(e, EXIT_COMM, "rank %d cannot find rank 0's host, MASTER_ADDR %s: %s", l->rank, l->master,
              gai_strerror(why));
    return NULL;
}

// ---- rank 0 ---------------------------------------------------------------------------------------------------------

static bool is_loopback(const struct sockaddr *a) {
    const struct sockaddr_in *four = (const void *)a;
    const struct sockaddr_in6 *six = (const void *)a;
    return a->sa_family == AF_INET ? ntohl(four->sin_addr.s_addr) >> 24 == 127 : IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
}

// Listens on the first free port of the job; -1 after filling *e.
static int listen_for_ranks(const Launch *l, Error *e) {
    struct addrinfo *at = resolve(l, l->port, e);
    if (!at) return -1;
    int fd = -1, why = 0;
    for (int k = 0; k < LAUNCH_PORTS && fd < 0; k++) {
        struct sockaddr_storage a = {0};
        memcpy(&a, at->ai_addr, at->ai_addrlen);
        // On a network, on every interface: the name may belong to another one than that by which the ranks connect.
        struct sockaddr_in *four = (void *)&a;
        struct sockaddr_in6 *six = (void *)&a;
        if (a.ss_family == AF_INET) {
            if (!is_loopback(at->ai_addr)) four->sin_addr.s_addr = htonl(INADDR_ANY);
            four->sin_port = htons((uint16_t)(l->port + k));
        } else {
            if (!is_loopback(at->ai_addr)) six->sin6_addr = in6addr_any;
            six->sin6_port = htons((uint16_t)(l->port + k));
        }
        fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int one = 1;
        if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (fd >= 0 && !bind(fd, (struct sockaddr *)&a, at->ai_addrlen) && !listen(fd, 1024)) break;
        why = errno;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(at);
    if (fd < 0)
        error_set(e, EXIT_COMM, "rank 0 cannot listen on ports %d to %d: %s; set MASTER_PORT to a free one", l->port,
                  l->port + LAUNCH_PORTS - 1, strerror(why));
    return fd;
}

typedef struct {
    int fd; // -1: not here yet; rank 0 is here from the start
    Hello hello;
} Guest;

// Why a rank that greets cannot take part, or NULL where it can.
static const char *objection(const Hello *h, const Hello *mine, const Guest *guest) {
    static char text[160];
    if (h->world != mine->world)
        snprintf(text, sizeof text, "it was started as one of %d ranks, rank 0 as one of %d", h->world, mine->world);
    else if (h->rank <= 0 || h->rank >= mine->world || guest[h->rank].fd >= 0)
        snprintf(text, sizeof text,
                 "there are two ranks %d; where another run starts on this host, set MASTER_PORT apart", h->rank);
    else if (strncmp(h->device, mine->device, sizeof h->device))
        snprintf(text, sizeof text, "it computes on %.15s and rank 0 on %.15s", h->device, mine->device);
    else return NULL;
    return text;
}

static bool missing_ranks(const Launch *l, const Guest *guest, double waited, Error *e) {
    Str names = {0};
    for (int r = 1; r < l->world && names.n < 200; r++)
        if (guest[r].fd < 0) str_printf(&names, "%s%d", names.n ? ", " : "", r);
    error_set(e, EXIT_COMM,
              "rank 0 waited %.0f s for the others: rank %s did not come; see its output, and whether it reaches "
              "MASTER_ADDR; %s: where that is not so, unset these variables",
              waited, names.s ? names.s : "", l->why);
    str_free(&names);
    return false;
}

// Whether a rank has closed its connection, because the answer was long in coming: it may then connect again.
static bool has_gone(int fd) {
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

// Admits a rank of this job that has greeted. False after filling *e: it makes the run impossible.
static bool take_in(int fd, const Hello *h, const Hello *mine, Guest *guest, int *here, Error *e) {
    double until = clock_seconds() + GREETING_SECONDS;
    if (h->rank > 0 && h->rank < mine->world && guest[h->rank].fd >= 0 && has_gone(guest[h->rank].fd)) {
        close(guest[h->rank].fd);
        guest[h->rank].fd = -1;
        --*here;
    }
    const char *why = objection(h, mine, guest);
    transmit(fd, magic, sizeof magic, until); // says that it is the right place; the welcome follows when all are here
    if (!why) {
        guest[h->rank] = (Guest){fd, *h};
        ++*here;
        return true;
    }
    Welcome no = {0};
    memcpy(no.magic, magic, sizeof magic);
    snprintf(no.refused, sizeof no.refused, "%s", why);
    transmit(fd, &no, sizeof no, until);
    close(fd);
    return error_set(e, EXIT_CONFIG, "rank %d cannot take part: %s", h->rank, why);
}

// Connections that have not greeted yet. Anything may connect: a port scanner, a health check. Rank 0 listens to them
// side by side, each for a second; one that says something else is closed at once, and where there are too many the
// oldest is.
enum { STRANGERS = 256 };
typedef struct {
    int fd;
    double until;
    size_t got; // bytes of the greeting
    union {
        Hello hello;
        char byte[sizeof(Hello)];
    } said;
} Stranger;
typedef struct {
    Stranger one[STRANGERS]; // the oldest first
    int n;
} Strangers;

static void stranger_leaves(Strangers *s, int i, bool taken) {
    if (!taken) close(s->one[i].fd);
    s->n--;
    memmove(&s->one[i], &s->one[i + 1], (size_t)(s->n - i) * sizeof *s->one);
}

static void strangers_come(Strangers *s, int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE) && s->n) {
            stranger_leaves(s, 0, false);
            continue;
        }
        if (fd < 0) return;
        if (s->n == STRANGERS) stranger_leaves(s, 0, false);
        s->one[s->n++] = (Stranger){.fd = fd, .until = clock_seconds() + GREETING_SECONDS};
    }
}

typedef enum { LISTENING, GREETED, WRONG } Greeting;

static Greeting stranger_listen(Stranger *s, uint64_t job) {
    while (s->got < sizeof(Hello)) {
        ssize_t n = recv(s->fd, s->said.byte + s->got, sizeof(Hello) - s->got, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return clock_seconds() < s->until ? LISTENING : WRONG;
        if (n <= 0) return WRONG;
        s->got += (size_t)n;
        if (memcmp(s->said.byte, magic, s->got < sizeof magic ? s->got : sizeof magic)) return WRONG;
    }
    return s->said.hello.job == job ? GREETED : WRONG; // WRONG: of another run
}

// Waits at most a tenth of a second, then reads what has come from any connection.
static bool gather(int listener, Strangers *s, const Hello *mine, Guest *guest, int *here, Error *e) {
    struct pollfd look[STRANGERS + 1] = {{.fd = listener, .events = POLLIN}};
    for (int i = 0; i < s->n; i++) look[1 + i] = (struct pollfd){.fd = s->one[i].fd, .events = POLLIN};
    poll(look, (nfds_t)s->n + 1, 100);
    strangers_come(s, listener);
    for (int i = 0; i < s->n;) {
        Greeting g = stranger_listen(&s->one[i], mine->job);
        if (g == LISTENING) {
            i++;
            continue;
        }
        Stranger who = s->one[i];
        stranger_leaves(s, i, g == GREETED);
        if (g == GREETED && !take_in(who.fd, &who.said.hello, mine, guest, here, e)) return false;
    }
    return true;
}

// Gathers ranks until all are here.
static bool gather_all(const Launch *l, int listener, const Hello *mine, Guest *guest, double timeout, Error *e) {
    double began = clock_seconds();
    Strangers *s = xcalloc(1, sizeof *s);
    bool ok = true, said = false;
    for (int here = 1; ok && here < l->world;) {
        double waited = clock_seconds() - began;
        if (stop_requested()) ok = error_set(e, EXIT_STOPPED, "stopped before the start");
        else if (waited > timeout) ok = missing_ranks(l, guest, waited, e);
        else ok = gather(listener, s, mine, guest, &here, e);
        if (!said && waited > QUIET_SECONDS) {
            note("rank 0 waits for the other ranks, %d of %d are here: %s", here, l->world, l->why);
            said = true;
        }
    }
    while (s->n) stranger_leaves(s, s->n - 1, false);
    free(s);
    return ok;
}

static bool host_all(const Launch *l, const Hello *mine, double timeout, Welcome *own, Error *e) {
    int fd = listen_for_ranks(l, e);
    if (fd < 0) return false;
    Guest *guest = xcalloc((size_t)l->world, sizeof *guest);
    for (int r = 0; r < l->world; r++) guest[r].fd = -1;
    guest[0].hello = *mine;
    bool ok = gather_all(l, fd, mine, guest, timeout, e);
    uint64_t token = 0;
    if (ok && getrandom(&token, sizeof token, 0) != sizeof token) token = (uint64_t)getpid() << 32 ^ mine->job;
    for (int r = 0; r < l->world; r++) {
        Welcome w = {.board = token};
        memcpy(w.magic, magic, sizeof magic);
        memcpy(w.id, own->id, sizeof w.id);
        if (!ok) snprintf(w.refused, sizeof w.refused, "%.150s", e->text);
        for (int o = 0; o < l->world; o++) {
            if (guest[o].hello.host != guest[r].hello.host) continue;
            w.local += o < r;
            w.locals++;
        }
        if (r == 0) *own = w;
        else if (guest[r].fd >= 0) {
            if (!transmit(guest[r].fd, &w, sizeof w, clock_seconds() + 10) && ok)
                ok = error_set(e, EXIT_COMM, "rank %d went away while the ranks gathered; see its output", r);
            close(guest[r].fd);
        }
    }
    free(guest);
    close(fd);
    return ok;
}

// ---- the others -----------------------------------------------------------------------------------------------------

// Connects to one port and waits for the welcome; false where rank 0 of this job is not there.
static bool visit(const Launch *l, int port, const Hello *mine, double until, Welcome *w, Error *e) {
    struct addrinfo *at = resolve(l, port, e);
    bool ok = false;
    for (struct addrinfo *a = at; a && !ok; a = a->ai_next) {
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) continue;
        double soon = clock_seconds() + 5;
        bool there = !connect(fd, a->ai_addr, a->ai_addrlen) ||
                     (errno == EINPROGRESS && ready(fd, POLLOUT, soon < until ? soon : until));
        char answer[sizeof magic];
        soon = clock_seconds() + 2 * GREETING_SECONDS; // another program may have this port, and say nothing
        ok = there && transmit(fd, mine, sizeof *mine, until) &&
             receive(fd, answer, sizeof answer, soon < until ? soon : until) && !memcmp(answer, magic, sizeof magic) &&
             receive(fd, w, sizeof *w, until) && !memcmp(w->magic, magic, sizeof magic);
        close(fd);
    }
    if (at) freeaddrinfo(at);
    return ok;
}

static bool visit_rank_0(const Launch *l, const Hello *mine, double timeout, Welcome *w, Error *e) {
    double began = clock_seconds(), until = began + timeout;
    bool said = false;
    *e = (Error){0};
    for (int k = 0;; k = (k + 1) % LAUNCH_PORTS) {
        if (visit(l, l->port + k, mine, until, w, e)) break;
        if (stop_requested()) return error_set(e, EXIT_STOPPED, "stopped before the start");
        if (clock_seconds() > until)
            return *e->text ? false
                            : error_set(e, EXIT_COMM,
                                        "rank %d waited %.0f s for rank 0 at %s, ports %d to %d; see rank 0's output, "
                                        "and whether MASTER_ADDR is its host; %s: where that is not so, unset these "
                                        "variables",
                                        l->rank, timeout, l->master, l->port, l->port + LAUNCH_PORTS - 1, l->why);
        if (!said && clock_seconds() - began > 2 * QUIET_SECONDS) { // rank 0, which would say so, is not there
            note_quiet(false);
            note("rank %d waits for rank 0 at %s, ports %d to %d: %s", l->rank, l->master, l->port,
                 l->port + LAUNCH_PORTS - 1, l->why);
            note_quiet(true);
            said = true;
        }
        if (k == LAUNCH_PORTS - 1) nanosleep(&(struct timespec){0, 50000000}, NULL);
    }
    return !*w->refused || error_set(e, EXIT_CONFIG, "rank %d cannot take part: %s", l->rank, w->refused);
}

bool rendezvous(const Launch *l, const char *device, double timeout, Meeting *out, Error *e) {
    Hello mine = {.job = l->job, .host = host_key(), .rank = l->rank, .world = l->world};
    memcpy(mine.magic, magic, sizeof magic);
    snprintf(mine.device, sizeof mine.device, "%s", device);
    Welcome w = {0};
    memcpy(w.id, out->id, sizeof w.id);
    if (!(l->rank ? visit_rank_0(l, &mine, timeout, &w, e) : host_all(l, &mine, timeout, &w, e))) return false;
    memcpy(out->id, w.id, sizeof w.id);
    out->local = w.local;
    out->locals = w.locals;
    snprintf(out->board, sizeof out->board, "/grpo-%016llx", (unsigned long long)w.board);
    return w.locals <= COMM_RANKS ||
           error_set(e, EXIT_CONFIG, "%d ranks are on one host; %d are the most", w.locals, COMM_RANKS);
}
