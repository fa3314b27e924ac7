// How every program of this project begins and ends.
#include "program.h"
#include "machine.h"
#include "output.h"
#include "str.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

// Opens descriptors 0 to 2 where they are closed. Without /dev/null it takes a directory: writing to that fails.
static void stdio_open(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0)
            open("/", O_RDONLY | O_DIRECTORY);
}

// ---- stacks ---------------------------------------------------------------------------------------------------------

#define STACK_WANTED ((rlim_t)8 << 20)
#define STACK_LEAST  ((rlim_t)2 << 20) // more than twice the largest frame: panel_all's (kernels/cpu/panel.c)

// Raises the stack limit. The first thread's stack grows up to the limit; the stacks of other threads are as large as
// the limit was when the program started.
static bool stacks_raise(Error *e) {
    struct rlimit r;
    if (getrlimit(RLIMIT_STACK, &r)) return true;
    if (r.rlim_cur < STACK_WANTED) {
        r.rlim_cur = r.rlim_max < STACK_WANTED ? r.rlim_max : STACK_WANTED;
        setrlimit(RLIMIT_STACK, &r);
    }
    if (r.rlim_cur < STACK_LEAST)
        return error_set(e, EXIT_MEMORY, "a stack may grow to %llu KiB here, %llu are needed; allow more (ulimit -s)",
                         (unsigned long long)r.rlim_cur >> 10, (unsigned long long)STACK_LEAST >> 10);
    pthread_attr_t usual;
    size_t bytes;
    if (pthread_getattr_default_np(&usual)) return true;
    if (!pthread_attr_getstacksize(&usual, &bytes) && bytes < r.rlim_cur && bytes < STACK_WANTED &&
        !pthread_attr_setstacksize(&usual, r.rlim_cur < STACK_WANTED ? r.rlim_cur : STACK_WANTED))
        pthread_setattr_default_np(&usual);
    pthread_attr_destroy(&usual);
    return true;
}

// Where address space is limited (ulimit -v), the first thread's stack cannot grow once the rest is used up, and the
// program would die without a word: so it grows now, when there is room.
static __attribute__((noinline)) void stack_touch(void) {
    // More than the largest frame, and what the least stack has left beside arguments, which take a quarter at most.
    volatile char room[STACK_LEAST / 8 * 5];
    for (size_t i = sizeof room; i >= 4096; i -= 4096) room[i - 1] = 0;
}
static bool stack_grow(Error *e) {
    struct rlimit space;
    if (getrlimit(RLIMIT_AS, &space) || space.rlim_cur == RLIM_INFINITY) return true;
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long pages = 0; // of address space that is taken
    if (f && fscanf(f, "%llu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    if (pages * (unsigned long long)sysconf(_SC_PAGESIZE) + STACK_LEAST > space.rlim_cur)
        return error_set(
            e, EXIT_MEMORY,
            "out of memory: no room for a stack of %llu KiB; this process is limited to %llu MiB, whatever "
            "else is free: allow more (ulimit -v)",
            (unsigned long long)STACK_LEAST >> 10, (unsigned long long)space.rlim_cur >> 20);
    stack_touch();
    return true;
}

// ---- OpenMP ---------------------------------------------------------------------------------------------------------

// The values that GNU's OpenMP accepts for its variables, as patterns without the blanks allowed around each part. A
// value that it does not accept it ignores, with a message on standard error, before main, that does not say where it
// comes from.
#define COUNT   "\\+?0*[1-9]\\d{0,8}"
#define SIZE    "\\d{1,18}\\s*[bkmgt]?"
#define BINDING "(master|primary|close|spread)"
#define CPUS    "\\d+(-\\d+(:\\d+)?)?"
static const struct {
    const char *name, *pattern, *wants;
} settings[] = {
    {"OMP_NUM_THREADS", COUNT "(\\s*,\\s*" COUNT ")*", "a number of threads"},
    {"OMP_THREAD_LIMIT", COUNT, "a number of threads"},
    {"OMP_STACKSIZE", SIZE, "a size, such as 8M"},
    {"GOMP_STACKSIZE", SIZE, "a size in KiB"},
    {"OMP_WAIT_POLICY", "active|passive", "active or passive"},
    {"GOMP_SPINCOUNT", "infinite|infinity|" SIZE, "a number, or infinite"},
    {"OMP_DYNAMIC", "true|false", "true or false"},
    {"OMP_NESTED", "true|false", "true or false"},
    {"OMP_CANCELLATION", "true|false", "true or false"},
    {"OMP_MAX_ACTIVE_LEVELS", "\\d{1,9}", "a number"},
    {"OMP_SCHEDULE", "((non)?monotonic\\s*:\\s*)?(static|dynamic|guided|auto)(\\s*,\\s*\\d{1,9})?",
     "static, dynamic, guided or auto"},
    {"OMP_PROC_BIND", "true|false|" BINDING "(\\s*,\\s*" BINDING ")*", "true, false, primary, close or spread"},
    {"OMP_PLACES", "(threads|cores|sockets|ll_caches|numa_domains)(\\s*\\(\\s*\\d+\\s*\\))?|.*\\{.*",
     "threads, cores, sockets or a list such as {0},{1}"},
    {"GOMP_CPU_AFFINITY", CPUS "([\\s,]+" CPUS ")*", "CPUs, such as 0-3 or 0 2"},
};

static bool matches(const char *text, const char *pattern) {
    char whole[256];
    int failed;
    size_t at;
    snprintf(whole, sizeof whole, "\\s*(?:%s)\\s*", pattern);
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED,
                                   PCRE2_CASELESS | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &failed, &at, NULL);
    pcre2_match_data *found = re ? pcre2_match_data_create(1, NULL) : NULL;
    bool yes = !found || pcre2_match(re, (PCRE2_SPTR)text, strlen(text), 0, 0, found, NULL) >= 0; // no memory: no word
    pcre2_match_data_free(found);
    pcre2_code_free(re);
    return yes;
}

// Explains the values that the library refuses, and removes them: it would complain again when the program restarts
// itself.
static void settings_explain(void) {
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const char *text = getenv(settings[i].name);
        if (!text || matches(text, settings[i].pattern)) continue;
        note("the variable %s is `%.60s`, which OpenMP's library refuses (a line that begins with `libgomp:` is its): "
             "it "
             "wants %s; going on as if it were not set",
             settings[i].name, text, settings[i].wants);
        unsetenv(settings[i].name);
    }
}

static bool threads_check(Error *e) {
    const char *threads = getenv("OMP_NUM_THREADS");
    if (threads && !machine_threads_allowed("the variable OMP_NUM_THREADS", strtoll(threads, NULL, 10), e))
        return false;
    static const char *const names[] = {"OMP_STACKSIZE", "GOMP_STACKSIZE"};
    for (int i = 0; i < 2; i++) {
        const char *text = getenv(names[i]);
        if (!text) continue;
        char *unit;
        double bytes = strtod(text, &unit);
        unit += strspn(unit, " \t");
        const char *units = "bkmgt", *found = *unit ? strchr(units, *unit | 0x20) : units + 1;
        for (long k = 0; found && k < found - units; k++) bytes *= 1024;
        if (bytes < (double)STACK_LEAST)
            return error_set(e, EXIT_CONFIG,
                             "the variable %s is `%.40s`, but a thread needs a stack of %llu KiB; unset it", names[i],
                             text, (unsigned long long)STACK_LEAST >> 10);
    }
    return true;
}

static void spin_less(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || getenv("KMP_BLOCKTIME")) return;
    if (setenv("OMP_WAIT_POLICY", "passive", 1) || setenv("GOMP_SPINCOUNT", "1000", 1)) return;
    machine_unbind();
    execv("/proc/self/exe", argv); // where it fails, spin
}

// ---- both ends ------------------------------------------------------------------------------------------------------

bool program_begin(char **argv, Error *e) {
    stdio_open();
    signal(SIGXFSZ, SIG_IGN);
    if (!stacks_raise(e) || !stack_grow(e)) return false;
    settings_explain();
    if (!threads_check(e)) return false;
    spin_less(argv);
    memory_spare_limit();
    machine_memory(1); // asked first, before the run takes its share
    return true;
}

ExitCode program_flush(ExitCode code, Error *e) {
    Error failed;
    if (output_flush(&failed) || code != EXIT_OK) return code;
    *e = failed;
    return e->code;
}

int program_end(const char *program, ExitCode code, const Error *e) {
    if (!*e->text) return (int)code;
    Str line = {0};
    str_printf(&line, "%s: %s", program, code == EXIT_OK || code == EXIT_STOPPED ? "" : "error: ");
    str_visible(&line, e->text, strlen(e->text)); // an error may quote a file
    str_puts(&line, "\n");
    output_write(STDERR_FILENO, line.s, line.n);
    str_free(&line);
    return (int)code;
}
