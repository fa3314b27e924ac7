// An allocator that fails on demand, preloaded into grpo (LD_PRELOAD): memory runs out at a chosen call, whoever makes
// it.
//
//   FAIL_AT=N        call number N fails, counted from 1; FAIL_FROM=N: so do all after it
//   FAIL_IN=children only in processes that the first one forks, which go on counting, and in its helpers (programs
//                    named reward-..., which are grpo too), which count anew
//   FAIL_FIRST=N, FAIL_EVERY=K   each of the first N calls, and every K-th of the others, fails in a copy of the
//                    process (fork). The copy has to end with exit code 5 and say "out of memory"; the process itself
//                    goes on as if nothing had happened: so one run tries thousands of calls
//   FAIL_CALLS=mmap  counts mmap instead of malloc, calloc, realloc, their aligned kin and pthread_create
//   FAIL_LOG=FILE    takes a line for each call that failed (in a copy: that ended in another way), which names it and
//                    who called; and at the end "calls N, copies M, wrong W"
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_MEMORY = 5, COPY_MS = 20000, WRONG_MAX = 10 };

static struct {
    long at, from, first, every;
    bool on, mmaps, children;
    const char *log;
} ask;
static atomic_long calls;
static long copies, wrong; // under `turn`, as `named`
static bool named;         // a call that failed has been written to the log
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pid_t root;
static bool in_copy;
static _Thread_local bool ours; // calls made from in here are not counted

static long number(const char *name) {
    const char *v = getenv(name);
    return v ? atol(v) : 0;
}

// At the first call, which comes before any constructor of this object. Only grpo is meant, no program that it starts.
static void begin(void) {
    const char *what = getenv("FAIL_CALLS"), *in = getenv("FAIL_IN");
    ask.at = number("FAIL_AT");
    ask.from = number("FAIL_FROM");
    ask.first = number("FAIL_FIRST");
    ask.every = number("FAIL_EVERY");
    ask.mmaps = what && !strcmp(what, "mmap");
    ask.children = in && !strcmp(in, "children");
    ask.log = getenv("FAIL_LOG");
    root = getpid();
    char file[4096] = "";
    if (readlink("/proc/self/exe", file, sizeof file - 1) < 0) return;
    const char *name = strrchr(file, '/');
    char begins[8] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, begins, sizeof begins - 1) > 0 && !strncmp(begins, "grpo-", 5)) root = 0;
    if (fd >= 0) close(fd);
    ask.on = name && !strcmp(name, "/grpo");
}

static void log_line(const char *line) {
    int fd = ask.log ? open(ask.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (fd < 0) return;
    if (write(fd, line, strlen(line)) < 0) abort();
    close(fd);
}

// The call and the functions it came from: those of a library by name, those of grpo as addresses for addr2line.
static void log_call(long call, const char *name, size_t bytes, const char *end) {
    char line[2048];
    int n = snprintf(line, sizeof line, "call %ld: %s of %zu bytes%s, from", call, name, bytes, end);
    void *frame[16];
    int frames = backtrace(frame, 16);
    for (int i = 3; i < frames && n < 1800; i++) {
        Dl_info at = {0};
        if (!dladdr(frame[i], &at) || !at.dli_fname) continue;
        const char *file = strrchr(at.dli_fname, '/');
        n += snprintf(line + n, sizeof line - (size_t)n, " %s:", file ? file + 1 : at.dli_fname);
        if (at.dli_sname) n += snprintf(line + n, sizeof line - (size_t)n, "%.40s", at.dli_sname);
        else
            n += snprintf(line + n, sizeof line - (size_t)n, "%#zx", (size_t)((char *)frame[i] - (char *)at.dli_fbase));
    }
    line[n++] = '\n';
    line[n] = 0;
    log_line(line);
}

// What the copy says until it ends, or its time is over; its exit status (waitpid's).
static int copy_end(pid_t pid, int from, char *said, size_t room) {
    size_t n = 0;
    ssize_t got = 1;
    struct pollfd p = {from, POLLIN, 0};
    while (got > 0 && n + 1 < room && poll(&p, 1, COPY_MS) > 0)
        if ((got = read(from, said + n, room - 1 - n)) > 0) n += (size_t)got;
    said[n] = 0;
    if (got) kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

// True in the copy, where the call fails.
static bool fails_in_copy(long call, const char *name, size_t bytes) {
    int end[2];
    pthread_mutex_lock(&turn);
    pid_t pid = wrong >= WRONG_MAX || pipe2(end, O_CLOEXEC) ? -1 : fork();
    if (pid == 0) {
        in_copy = true;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(end[1], 2);
        close(end[0]);
        close(end[1]);
        return true;
    }
    if (pid > 0) {
        char said[4096], how[64];
        close(end[1]);
        int status = copy_end(pid, end[0], said, sizeof said);
        close(end[0]);
        copies++;
        bool right = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_MEMORY && strstr(said, "out of memory");
        if (WIFEXITED(status)) snprintf(how, sizeof how, " ends with exit code %d", WEXITSTATUS(status));
        else snprintf(how, sizeof how, " ends by signal %d", WTERMSIG(status));
        if (!right) log_call(call, name, bytes, how);
        wrong += !right;
    }
    pthread_mutex_unlock(&turn);
    return false;
}

// Whether this call fails.
static bool fails(bool is_mmap, const char *name, size_t bytes) {
    static atomic_int begun;
    if (ours || in_copy) return false;
    ours = true;
    if (!atomic_exchange(&begun, 1)) begin();
    bool failed = false;
    if (ask.on && is_mmap == ask.mmaps) {
        long call = ++calls;
        bool here = !ask.children || getpid() != root;
        failed = here && (call == ask.at || (ask.from && call >= ask.from));
        if (failed) { // the first to come is named before any of them ends the process
            pthread_mutex_lock(&turn);
            if (!named) log_call(call, name, bytes, " fails");
            named = true;
            pthread_mutex_unlock(&turn);
        }
        if (call <= ask.first || (ask.every && call % ask.every == 0)) failed = fails_in_copy(call, name, bytes);
    }
    ours = false;
    if (failed) errno = ENOMEM;
    return failed;
}

__attribute__((destructor)) static void finish(void) {
    if (!ask.on || in_copy || getpid() != root) return;
    char line[80];
    snprintf(line, sizeof line, "calls %ld, copies %ld, wrong %ld\n", (long)calls, copies, wrong);
    log_line(line);
}

// ---- the calls ------------------------------------------------------------------------------------------------------

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

void *malloc(size_t bytes) { return fails(false, "malloc", bytes) ? NULL : __libc_malloc(bytes); }
void *calloc(size_t count, size_t bytes) {
    return fails(false, "calloc", count * bytes) ? NULL : __libc_calloc(count, bytes);
}
void *realloc(void *old, size_t bytes) { return fails(false, "realloc", bytes) ? NULL : __libc_realloc(old, bytes); }
void *memalign(size_t alignment, size_t bytes) {
    return fails(false, "memalign", bytes) ? NULL : __libc_memalign(alignment, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) {
    return fails(false, "aligned_alloc", bytes) ? NULL : __libc_memalign(alignment, bytes);
}
int posix_memalign(void **p, size_t alignment, size_t bytes) {
    void *q = fails(false, "posix_memalign", bytes) ? NULL : __libc_memalign(alignment, bytes);
    if (q) *p = q;
    return q ? 0 : ENOMEM;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *arg) {
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    return fails(false, "pthread_create", 0) ? EAGAIN : next(thread, how, run, arg);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    static void *(*next)(void *, size_t, int, int, int, off_t);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "mmap");
    return fails(true, "mmap", bytes) ? MAP_FAILED : next(at, bytes, protection, flags, fd, offset);
}
