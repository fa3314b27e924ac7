// How many cores and how much memory a run may use of this machine: the least that hardware, containers and limits
// leave.
//
// Cgroups are found as the kernel describes them: /proc/self/cgroup has this process's path in each hierarchy,
// /proc/self/mountinfo where a hierarchy is mounted, and which part of it. A limit of any cgroup above counts too.
#include "machine.h"
#include "str.h"
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// ---- cgroups --------------------------------------------------------------------------------------------------------

static FILE *open_under(const char *root, const char *path) {
    char *whole = xasprintf("%s%s", root, path);
    FILE *f = fopen(whole, "re");
    free(whole);
    return f;
}

// Whether `word` is an item of a list that is separated by commas.
static bool lists(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',')
        if (!strncmp(at, word, n) && (at[n] == ',' || !at[n])) return true;
    return false;
}

// The path of this process in the hierarchy of a controller (NULL: the unified one, of v2), on the heap, or NULL.
static char *cgroup_path(const char *root, const char *controller) {
    FILE *f = open_under(root, "/proc/self/cgroup");
    char *line = NULL, *found = NULL;
    size_t cap = 0;
    while (f && !found && getline(&line, &cap, f) > 0) { // "4:memory:/a/b", "0::/a/b"
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        if (controller ? lists(names + 1, controller) : !names[1]) found = xstrdup(path);
    }
    free(line);
    if (f) fclose(f);
    return found;
}

// Where the hierarchy is mounted, and in *of which path of it is mounted there; both on the heap. NULL where it is not
// mounted.
static char *cgroup_mount(const char *root, const char *controller, char **of) {
    FILE *f = open_under(root, "/proc/self/mountinfo");
    char *line = NULL, *found = NULL;
    size_t cap = 0;
    while (f && !found &&
           getline(&line, &cap, f) > 0) { // "32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
        char at[4096], mounted[4096], type[32], *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*s %*s %*s %4095s %4095s", mounted, at) != 2 || sscanf(dash, " - %31s", type) != 1)
            continue;
        line[strcspn(line, "\n")] = 0;
        char *options = strrchr(line, ' ');
        if (controller ? strcmp(type, "cgroup") || !lists(options + 1, controller) : strcmp(type, "cgroup2")) continue;
        found = xstrdup(at);
        *of = xstrdup(mounted);
    }
    free(line);
    if (f) fclose(f);
    return found;
}

typedef void CgroupLook(const char *root, const char *dir, void *arg);

// Calls `look` with the directory of this process's cgroup and of each above it, as far as they can be seen from here.
static void cgroup_climb(const char *root, const char *controller, CgroupLook *look, void *arg) {
    char *of = NULL, *path = cgroup_path(root, controller), *mount = path ? cgroup_mount(root, controller, &of) : NULL;
    if (mount) {
        size_t n = strcmp(of, "/") ? strlen(of) : 0;
        // A container often sees its own cgroup as the root of the mount, but its path from outside.
        bool inside = !strncmp(path, of, n) && (path[n] == '/' || !path[n]) && strncmp(path, "/..", 3);
        Str dir = {0};
        str_puts(&dir, mount);
        if (inside && strcmp(path + n, "/")) str_puts(&dir, path + n);
        for (size_t top = strlen(mount); dir.n >= top;) {
            look(root, dir.s, arg);
            while (dir.n > top && dir.s[dir.n - 1] != '/') dir.n--;
            if (dir.n <= top) break;
            dir.s[--dir.n] = 0;
        }
        str_free(&dir);
    }
    free(mount);
    free(path);
    free(of);
}

// The first number in a file, or in its line that begins with `name`; `none` where there is no number ("max").
static unsigned long long number_in(const char *root, const char *dir, const char *file, const char *name,
                                    unsigned long long none) {
    char *path = xasprintf("%s/%s", dir, file), line[256];
    FILE *f = open_under(root, path);
    unsigned long long x = none;
    while (f && fgets(line, sizeof line, f)) {
        size_t n = name ? strlen(name) : 0;
        if (n && (strncmp(line, name, n) || (line[n] != ' ' && line[n] != '\t'))) continue;
        if (sscanf(line + n, "%llu", &x) != 1) x = none;
        break;
    }
    if (f) fclose(f);
    free(path);
    return x;
}

typedef struct {
    unsigned long long limit, unused;
} Memory;

static void memory_least(Memory *m, unsigned long long limit, unsigned long long used, unsigned long long cached) {
    used -= cached < used ? cached : used; // pages of files that have not been used lately can be given up
    unsigned long long unused = limit > used ? limit - used : 0;
    if (limit < m->limit) m->limit = limit;
    if (unused < m->unused) m->unused = unused;
}

static void memory_v1(const char *root, const char *dir, void *arg) {
    memory_least(arg, number_in(root, dir, "memory.limit_in_bytes", NULL, SIZE_MAX),
                 number_in(root, dir, "memory.usage_in_bytes", NULL, 0),
                 number_in(root, dir, "memory.stat", "total_inactive_file", 0));
}

static void memory_v2(const char *root, const char *dir, void *arg) {
    memory_least(arg, number_in(root, dir, "memory.max", NULL, SIZE_MAX),
                 number_in(root, dir, "memory.current", NULL, 0),
                 number_in(root, dir, "memory.stat", "inactive_file", 0));
}

size_t cgroup_memory(const char *root, size_t *free_bytes) {
    Memory m = {SIZE_MAX, SIZE_MAX};
    cgroup_climb(root, "memory", memory_v1, &m);
    cgroup_climb(root, NULL, memory_v2, &m);
    bool none = m.limit >= (unsigned long long)INT64_MAX / 2; // v1 writes none as a number near 2^63
    *free_bytes = none ? SIZE_MAX : (size_t)m.unused;
    return none ? SIZE_MAX : (size_t)m.limit;
}

static void cpus_least(double *least, unsigned long long quota, unsigned long long period) {
    double cpus = period && quota && quota < INT64_MAX ? (double)quota / (double)period : 0;
    if (cpus > 0 && (*least == 0 || cpus < *least)) *least = cpus;
}

static void cpus_v1(const char *root, const char *dir, void *arg) { // a quota of -1: none
    cpus_least(arg, number_in(root, dir, "cpu.cfs_quota_us", NULL, 0),
               number_in(root, dir, "cpu.cfs_period_us", NULL, 100000));
}

static void cpus_v2(const char *root, const char *dir, void *arg) { // "max 100000", "200000 100000"
    char *path = xasprintf("%s/cpu.max", dir);
    FILE *f = open_under(root, path);
    unsigned long long quota = 0, period = 0;
    if (f && fscanf(f, "%llu %llu", &quota, &period) == 2) cpus_least(arg, quota, period);
    if (f) fclose(f);
    free(path);
}

double cgroup_cpus(const char *root) {
    double least = 0;
    cgroup_climb(root, "cpu", cpus_v1, &least);
    cgroup_climb(root, NULL, cpus_v2, &least);
    return least;
}

// ---- memory ---------------------------------------------------------------------------------------------------------

static size_t machine_bytes(void) { return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE); }

// What a limit leaves after what is mapped (column `used` of /proc/self/statm) and the stacks of future threads.
static size_t left_of(__rlimit_resource_t resource, int used) {
    struct rlimit r, stack;
    if (getrlimit(resource, &r) || r.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    unsigned long long pages[7] = {0};
    FILE *f = fopen("/proc/self/statm", "re");
    for (int i = 0; f && i < 7 && fscanf(f, "%llu", &pages[i]) == 1;) i++;
    if (f) fclose(f);
    size_t mapped = (size_t)pages[used] * (size_t)sysconf(_SC_PAGESIZE), a_stack = (size_t)8 << 20;
    if (!getrlimit(RLIMIT_STACK, &stack) && stack.rlim_cur < a_stack) a_stack = (size_t)stack.rlim_cur;
    mapped += a_stack * (size_t)(machine_cores(1) - 1);
    return r.rlim_cur > mapped ? (size_t)r.rlim_cur - mapped : 0;
}

// The limits on memory, found out once, at the start: later the run's own memory is part of what is mapped.
static MemoryLimit limits[4];
static void limits_ask(void) {
    size_t unused;
    const MemoryLimit all[] = {{machine_bytes(), "this machine", false},
                               {cgroup_memory("", &unused), "this container (cgroup)", false},
                               {left_of(RLIMIT_AS, 0), "this process under ulimit -v", true},
                               {left_of(RLIMIT_DATA, 5), "this process under ulimit -d", true}};
    memcpy(limits, all, sizeof limits);
}

MemoryLimit machine_memory(int processes) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, limits_ask);
    const MemoryLimit *least = limits;
    for (const MemoryLimit *l = limits; l < limits + sizeof limits / sizeof *limits; l++) {
        size_t each = l->own ? l->bytes : l->bytes / (size_t)processes;
        if (each < (least->own ? least->bytes : least->bytes / (size_t)processes)) least = l;
    }
    return *least;
}

size_t machine_memory_free(void) {
    size_t unused, available = (size_t)number_in("", "/proc", "meminfo", "MemAvailable:", machine_bytes() >> 10) << 10;
    cgroup_memory("", &unused);
    const size_t all[] = {unused, left_of(RLIMIT_AS, 0), left_of(RLIMIT_DATA, 5)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] < available) available = all[i];
    return available;
}

size_t machine_memory_peak(void) {
    // Not getrusage: its number has what the program held from which this one was started.
    return (size_t)number_in("", "/proc/self", "status", "VmHWM:", 0) << 10;
}

// ---- cores ----------------------------------------------------------------------------------------------------------

static unsigned long started_on[1024 / sizeof(long)]; // a bit for each CPU
static long started_bytes;                            // how many bytes of it the system filled; < 0: none

// Records the CPUs before any library is initialised: OpenMP's binds this thread when it is. The sanitizers are not
// ready either at that time.
__attribute__((no_sanitize("address"), no_sanitize("undefined"), no_sanitize("thread"))) static void mask_keep(void) {
    started_bytes = syscall(SYS_sched_getaffinity, 0, sizeof started_on, started_on);
}
__attribute__((section(".preinit_array"), used)) static void (*first_of_all)(void) = mask_keep;

void machine_unbind(void) {
    if (started_bytes > 0) syscall(SYS_sched_setaffinity, 0, started_bytes, started_on);
}

int machine_cores(int processes) {
    int n = 0, online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (long i = 0; i < started_bytes / (long)sizeof(long); i++) n += __builtin_popcountl(started_on[i]);
    if (n < 1) n = online;
    if ((long)n * processes > online) n /= processes;
    double quota = cgroup_cpus("") / processes;
    if (quota > 0 && quota < n) n = (int)quota + (quota > (int)quota);
    return n > 1 ? n : 1;
}

int machine_threads(int asked, int processes) {
    return asked || getenv("OMP_NUM_THREADS") ? asked : machine_cores(processes);
}

bool machine_threads_allowed(const char *what, long long threads, Error *e) {
    int cores = machine_cores(1);
    return threads <= (long long)cores * THREADS_A_CORE ||
           error_set(
               e, EXIT_CONFIG,
               "%s is %lld, but there %s %d core%s here, and %d threads a core are the most: lower it to %d or less",
               what, threads, cores == 1 ? "is" : "are", cores, cores == 1 ? "" : "s", THREADS_A_CORE,
               cores * THREADS_A_CORE);
}
