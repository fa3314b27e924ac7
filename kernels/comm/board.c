// The Board: one piece of shared memory through which the ranks of a host meet, tell each other of failures and see who
// has died. Everything in it is read and written with atomics, so that a rank may die at any instruction and leave
// nothing locked.
//
// A meeting: each rank publishes the number of the meeting with the collective's name and size, then waits on one futex
// until all have reached that number. What it published stays readable until the meeting after the next, because a rank
// can be one meeting ahead of another, never two.
#include "board.h"
#include "clock.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS 20000000 // how often a rank that waits looks for failures, deaths and time-outs

typedef struct {
    uint64_t word[3]; // up to 23 bytes of text, read and written a word at a time
} Name;

typedef struct {
    uint64_t meetings; // entered so far
    struct {
        uint64_t bytes;
        Name name;
    } call[2]; // meeting number n is at n % 2
    Name phase;
    int64_t step;
    int64_t beat;       // CLOCK_MONOTONIC, ns; 0: not here yet
    uint64_t namespace; // the pid namespace in which `pid` holds
    int32_t pid, rank;
} Line;

typedef struct {
    uint32_t bell; // the futex: rung at every arrival and failure
    int32_t stop;
    int32_t failed; // 0: no; 1: the error below is being written; 2: it is there
    int32_t spoken; // whether a rank has printed it
    ExitCode code;
    char text[2048];
    Line line[COMM_RANKS];
} Shared;

struct Board {
    Shared *shared;
    size_t bytes;
    int locals, self;
    bool owner;         // whether board_close unmaps the memory
    uint64_t meetings;  // meetings this rank has entered
    uint64_t namespace; // the pid namespace of this process
    int pidfd[COMM_RANKS];
};

#define GET(x)    __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define SET(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)

static int64_t clock_ns(void) { return (int64_t)(clock_seconds() * 1e9); }

static void name_set(Name *n, const char *text) {
    uint64_t word[3] = {0};
    snprintf((char *)word, sizeof word, "%s", text);
    for (int i = 0; i < 3; i++) SET(n->word[i], word[i]);
}
static void name_get(const Name *n, char out[24]) {
    uint64_t word[3];
    for (int i = 0; i < 3; i++) word[i] = GET(n->word[i]);
    memcpy(out, word, 24);
    out[23] = 0;
}

static size_t header_bytes(void) { return (sizeof(Shared) + 4095) / 4096 * 4096; }
static size_t board_bytes(int locals) { return header_bytes() + 2 * (size_t)locals * BOARD_WINDOW; }

static char *window(Board *b, int local, uint64_t meeting) {
    return (char *)b->shared + header_bytes() + (2 * (size_t)local + meeting % 2) * BOARD_WINDOW;
}
char *board_window_next(Board *b, int local) { return window(b, local, b->meetings + 1); }
const char *board_window_last(Board *b, int local) { return window(b, local, b->meetings); }

static Board *handle(Shared *s, int locals) {
    Board *b = xcalloc(1, sizeof *b);
    *b = (Board){.shared = s, .bytes = board_bytes(locals), .locals = locals};
    for (int i = 0; i < COMM_RANKS; i++) b->pidfd[i] = -1;
    struct stat st;
    if (stat("/proc/self/ns/pid", &st) == 0) b->namespace = st.st_ino;
    return b;
}

static Board *no_board(const char *what, int locals, Error *e) {
    error_set(e, EXIT_MEMORY, "the %zu KiB of memory that %d ranks share: cannot %s: %s", board_bytes(locals) >> 10,
              locals, what, strerror(errno));
    return NULL;
}

Board *board_new(int locals, Error *e) {
    void *p = mmap(NULL, board_bytes(locals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return no_board("take it", locals, e);
    Board *b = handle(p, locals);
    b->owner = true;
    return b;
}

Board *board_open(const char *name, int locals, Error *e) {
    int fd = shm_open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return no_board("open it in /dev/shm", locals, e);
    // Every rank does the same, so that size and zeros are there whoever comes first.
    int why = posix_fallocate(fd, 0, (off_t)board_bytes(locals));
    void *p = MAP_FAILED;
    if (why) errno = why;
    else p = mmap(NULL, board_bytes(locals), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return no_board("take it from /dev/shm", locals, e);
    Board *b = handle(p, locals);
    b->owner = true;
    return b;
}

void board_unlink(const char *name) { shm_unlink(name); }

Board *board_join(Board *b, int self, int rank) {
    Board *mine = handle(b->shared, b->locals);
    mine->self = self;
    Line *line = &b->shared->line[self];
    SET(line->rank, rank);
    SET(line->namespace, mine->namespace);
    SET(line->pid, (int32_t)getpid());
    board_phase(mine, "start", 0);
    return mine;
}

void board_close(Board *b) {
    if (!b) return;
    for (int i = 0; i < COMM_RANKS; i++)
        if (b->pidfd[i] >= 0) close(b->pidfd[i]);
    if (b->owner) munmap(b->shared, b->bytes);
    free(b);
}

int board_locals(const Board *b) { return b->locals; }
int *board_stop(Board *b) { return &b->shared->stop; }
void board_beat(Board *b) { SET(b->shared->line[b->self].beat, clock_ns()); }

void board_phase(Board *b, const char *phase, int64_t step) {
    Line *line = &b->shared->line[b->self];
    name_set(&line->phase, phase);
    SET(line->step, step);
    board_beat(b);
}

void board_where(const Board *b, int local, char *out, size_t n) {
    const Line *line = &b->shared->line[local];
    char phase[24];
    name_get(&line->phase, phase);
    if (!*phase) snprintf(out, n, "it has not started");
    else snprintf(out, n, "phase `%s` of step %lld", phase, (long long)GET(line->step));
}

// ---- failures -----------------------------------------------------------------------------------------------------

static void ring(Board *b) {
    __atomic_fetch_add(&b->shared->bell, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &b->shared->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool board_fail(Board *b, ExitCode code, const char *text) {
    Shared *s = b->shared;
    int32_t none = 0;
    if (!__atomic_compare_exchange_n(&s->failed, &none, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return false;
    s->code = code;
    snprintf(s->text, sizeof s->text, "%s", text);
    SET(s->failed, 2);
    none = 0;
    __atomic_compare_exchange_n(&s->stop, &none, -1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    ring(b);
    return true;
}

bool board_failed(const Board *b, Error *e) {
    const Shared *s = b->shared;
    if (GET(s->failed) != 2) return false;
    error_set(e, s->code, "%s", s->text);
    return true;
}

bool board_broken(const Board *b, Error *e) {
    if (!board_failed(b, e)) return false;
    if (e) e->code = EXIT_COMM;
    return true;
}

bool board_report(Board *b, const char *text, Error *e) {
    if (board_fail(b, EXIT_COMM, text) || !board_broken(b, e)) error_set(e, EXIT_COMM, "%s", text);
    return false;
}

bool board_speak(Board *b) { return !__atomic_exchange_n(&b->shared->spoken, 1, __ATOMIC_ACQ_REL); }

// ---- meetings -----------------------------------------------------------------------------------------------------

static bool is_dead(Board *b, int local) {
    const Line *line = &b->shared->line[local];
    int pid = GET(line->pid);
    if (!pid || pid == getpid() || GET(line->namespace) != b->namespace) return false;
    if (b->pidfd[local] < 0) b->pidfd[local] = (int)syscall(SYS_pidfd_open, pid, 0);
    if (b->pidfd[local] < 0) return errno == ESRCH;
    struct pollfd p = {.fd = b->pidfd[local], .events = POLLIN};
    return poll(&p, 1, 0) == 1 && p.revents & POLLIN;
}

static bool report_dead(Board *b, int local, const char *name, Error *e) {
    char where[80], text[320];
    board_where(b, local, where, sizeof where);
    snprintf(text, sizeof text, "rank %d (process %d) has ended in %s; rank %d waits for it in the collective `%s`",
             GET(b->shared->line[local].rank), GET(b->shared->line[local].pid), where,
             GET(b->shared->line[b->self].rank), name);
    return board_report(b, text, e);
}

static bool report_silent(Board *b, int local, const char *name, double seconds, Error *e) {
    char where[80], text[400];
    board_where(b, local, where, sizeof where);
    snprintf(text, sizeof text,
             "rank %d has not been heard of for %.0f s, the last time in %s; rank %d waits for it in the collective "
             "`%s`; see what that process does, or raise comm_timeout",
             GET(b->shared->line[local].rank), seconds, where, GET(b->shared->line[b->self].rank), name);
    return board_report(b, text, e);
}

static bool report_elsewhere(Board *b, int local, const char *name, uint64_t bytes, Error *e) {
    const Line *line = &b->shared->line[local];
    char theirs[24], text[400];
    name_get(&line->call[b->meetings % 2].name, theirs);
    snprintf(
        text, sizeof text,
        "rank %d is in the collective `%s` (%llu bytes) while rank %d is in `%s` (%llu bytes): the ranks no longer "
        "do the same; a bug in grpo.c, please report it",
        GET(line->rank), theirs, (unsigned long long)GET(line->call[b->meetings % 2].bytes),
        GET(b->shared->line[b->self].rank), name, (unsigned long long)bytes);
    return board_report(b, text, e);
}

// The first rank that has not come to meeting n, or -1.
static int missing(const Board *b, uint64_t n) {
    for (int i = 0; i < b->locals; i++)
        if (GET(b->shared->line[i].meetings) < n) return i;
    return -1;
}

bool board_meet(Board *b, const char *name, uint64_t bytes, double timeout, Error *e) {
    Shared *s = b->shared;
    Line *mine = &s->line[b->self];
    if (board_broken(b, e)) return false;
    uint64_t n = ++b->meetings;
    SET(mine->call[n % 2].bytes, bytes);
    name_set(&mine->call[n % 2].name, name);
    SET(mine->meetings, n);
    ring(b);
    int64_t began = clock_ns();
    for (;;) {
        uint32_t bell = __atomic_load_n(&s->bell, __ATOMIC_SEQ_CST);
        int who = missing(b, n);
        if (who < 0) break;
        if (board_broken(b, e)) return false;
        board_beat(b);
        for (int i = who; i < b->locals; i++) {
            if (GET(s->line[i].meetings) >= n) continue;
            if (is_dead(b, i) && GET(s->line[i].meetings) < n) return report_dead(b, i, name, e);
            int64_t heard = GET(s->line[i].beat), since = heard > began ? heard : began;
            double silent = (double)(clock_ns() - since) * 1e-9;
            if (silent > timeout) return report_silent(b, i, name, silent, e);
        }
        struct timespec slice = {0, LOOK_NS};
        syscall(SYS_futex, &s->bell, FUTEX_WAIT, bell, &slice, NULL, 0);
    }
    char wanted[24], theirs[24];
    snprintf(wanted, sizeof wanted, "%s", name);
    for (int i = 0; i < b->locals; i++) {
        name_get(&s->line[i].call[n % 2].name, theirs);
        if (strcmp(theirs, wanted) || GET(s->line[i].call[n % 2].bytes) != bytes)
            return report_elsewhere(b, i, name, bytes, e);
    }
    return true;
}
