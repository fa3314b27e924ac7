// The sandbox: bubblewrap's arguments, the limits, and running a job in it.
#include "sandbox.h"
#include "clock.h"
#include "process.h"
#include "signals.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK_MS     50 // how often a wait looks for a signal
#define BWRAP       "bwrap"
#define THREADS     "64"
#define DESCRIPTORS 64
#define STACK       (64 << 20)
#define MAX_FILES   4
#define MAX_ARGS    160

// The shell script that starts the job inside the sandbox: first the limit on processes, which counts only those of the
// sandbox's user namespace and so must be set inside; then a mark that says that the sandbox has started; then the job.
// dash calls the limit p, other shells u.
static const char last_steps[] = "ulimit -p " THREADS " 2>/dev/null || ulimit -u " THREADS " || exit 1\n"
                                 "printf %s \"$0\"\nexec \"$@\" 2>/dev/null";
#define MARK "sandbox up\n"

typedef struct {
    const char *item[MAX_ARGS];
    int n;
    char text[MAX_FILES + 4][24]; // numbers among them
    int texts;
} Args;

static void add(Args *a, const char *item) {
    if (a->n + 1 >= MAX_ARGS) die("the sandbox has too many arguments");
    a->item[a->n++] = item;
    a->item[a->n] = NULL;
}
#define ADD(a, ...)                                                                                                    \
    for (const char *const *item_ = (const char *const[]){__VA_ARGS__, NULL}; *item_; item_++) add(a, *item_)

static const char *number(Args *a, long long value) {
    char *text = a->text[a->texts++];
    snprintf(text, sizeof *a->text, "%lld", value);
    return text;
}

// Adds /bin, /lib and the like: as links into /usr, or on older systems as directories.
static void add_top_level(Args *a) {
    static const char *const name[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    struct stat info;
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        if (lstat(name[i], &info) != 0) continue;
        if (S_ISLNK(info.st_mode)) {
            char usr[16];
            snprintf(usr, sizeof usr, "usr%s", name[i]);
            static const char *const target[] = {"usr/bin",   "usr/sbin",  "usr/lib",
                                                 "usr/lib32", "usr/lib64", "usr/libx32"};
            ADD(a, "--symlink", target[i], name[i]);
        } else ADD(a, "--ro-bind", name[i], name[i]);
    }
}

// Adds what bubblewrap's --dev makes, without terminals: for those it would need a root in an outer namespace, which
// the program could see in its map of users.
static void add_devices(Args *a) {
    static const char *const device[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};
    ADD(a, "--tmpfs", "/dev");
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) ADD(a, "--dev-bind", device[i], device[i]);
    ADD(a, "--symlink", "/proc/self/fd", "/dev/fd", "--symlink", "/proc/self/fd/0", "/dev/stdin");
    ADD(a, "--symlink", "/proc/self/fd/1", "/dev/stdout", "--symlink", "/proc/self/fd/2", "/dev/stderr");
}

// Files of /proc that reveal keys and users outside: each is covered by an empty file.
static const char *const hidden[] = {"/proc/keys", "/proc/key-users"};
#define HIDDEN (sizeof hidden / sizeof *hidden)

static void add_sandbox(Args *a, const SandboxJob *job, int filter, const int *file, const int *empty) {
    ADD(a, BWRAP, "--unshare-all", "--unshare-user", "--disable-userns", "--new-session", "--die-with-parent");
    ADD(a, "--cap-drop", "ALL", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox");
    ADD(a, "--ro-bind", "/usr", "/usr");
    add_top_level(a);
    // Process 1 in the sandbox is bubblewrap itself. A program that wrote into its memory could outlive the sandbox.
    ADD(a, "--proc", "/proc", "--size", "4096", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1");
    for (size_t i = 0; i < HIDDEN; i++)
        if (empty[i] >= 0) ADD(a, "--perms", "0444", "--ro-bind-data", number(a, empty[i]), hidden[i]);
    add_devices(a);
    ADD(a, "--size", number(a, job->disk), "--perms", "1777", "--tmpfs", "/tmp");
    for (int i = 0; i < job->n_files; i++)
        ADD(a, "--perms", job->file[i].executable ? "0555" : "0444", "--ro-bind-data", number(a, file[i]),
            job->file[i].path);
    // These are file systems in memory without a size limit, so make them read-only.
    ADD(a, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--seccomp", number(a, filter));
    ADD(a, "--", "/bin/sh", "-c", last_steps, MARK);
    for (const char *const *arg = job->argv; *arg; arg++) add(a, *arg);
}

static int by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static int filter_fd(bool processes) {
    struct sock_filter program[SECCOMP_MAX];
    size_t n = seccomp_program(processes, program);
    return bytes_fd(program, n * sizeof *program);
}

// Reads output until its end, the limit, the deadline or a request to stop (after which no score counts); then kills
// the process.
static SandboxEnd finish(Process *p, int64_t deadline, size_t limit, Str *out, int *status) {
    SandboxEnd end = SANDBOX_EXITED;
    for (int more; (more = pipe_read(p->out, out, limit)) != 0;) {
        if (more < 0) end = SANDBOX_FLOOD;
        else {
            int64_t look = clock_ms() + LOOK_MS;
            pipe_wait(p->out, -1, -1, look < deadline ? look : deadline);
            if (clock_ms() >= deadline || stop_asked()) end = SANDBOX_TIMEOUT;
        }
        if (end != SANDBOX_EXITED) break;
    }
    int wait = 0;
    if (end == SANDBOX_EXITED && !process_wait(p, deadline, &wait)) end = SANDBOX_TIMEOUT;
    process_kill(p);
    *status = WIFSIGNALED(wait) ? 128 + WTERMSIG(wait) : WEXITSTATUS(wait);
    return end;
}

// sandbox_run, which also gives what bubblewrap said where it failed.
static SandboxEnd run(const SandboxJob *job, Str *out, int *status, Str *said, Error *e) {
    str_clear(out);
    *status = 0;
    int fd[MAX_FILES + HIDDEN + 3], file[MAX_FILES], empty[HIDDEN], n = 0;
    int input = fd[n++] = bytes_fd(job->input ? job->input : "", job->input ? job->input_bytes : 0);
    int filter = fd[n++] = filter_fd(job->processes);
    if (job->n_files > MAX_FILES) die("a sandboxed job has %d files", job->n_files);
    for (int i = 0; i < job->n_files; i++) file[i] = fd[n++] = bytes_fd(job->file[i].bytes, job->file[i].n);
    for (size_t i = 0; i < HIDDEN; i++) { // not every kernel has them
        empty[i] = -1;
        if (access(hidden[i], F_OK) == 0) fd[n++] = empty[i] = bytes_fd("", 0);
    }
    bool ok = true;
    for (int i = 0; i < n; i++) ok = ok && fd[i] >= 0;
    if (!ok && errno == ENOMEM) out_of_memory("the files of a sandboxed program cannot be made");
    if (!ok) error_set(e, EXIT_MEMORY, "no memory for the files of a sandboxed program: %s", strerror(errno));

    Args args = {0};
    add_sandbox(&args, job, filter, file, empty);
    int keep[MAX_FILES + HIDDEN + 2], kept = n - 1;
    memcpy(keep, fd + 1, (size_t)kept * sizeof *keep);
    if (job->keep >= 0) keep[kept++] = job->keep;
    qsort(keep, (size_t)kept, sizeof *keep, by_number);
    rlim_t cpu = (rlim_t)job->seconds + 2;
    const ProcessLimit limit[] = {
        {RLIMIT_AS, (rlim_t)job->memory}, {RLIMIT_CPU, cpu},   {RLIMIT_CORE, 0},     {RLIMIT_FSIZE, (rlim_t)job->disk},
        {RLIMIT_NOFILE, DESCRIPTORS},     {RLIMIT_MEMLOCK, 0}, {RLIMIT_MSGQUEUE, 0}, {RLIMIT_STACK, STACK}};
    ProcessSpec c = {.argv = (char *const *)args.item,
                     .envp = (char *const[]){NULL},
                     .input = input,
                     .errors = true,
                     .keep = keep,
                     .n_keep = kept,
                     .limit = limit,
                     .n_limits = sizeof limit / sizeof *limit,
                     .unprivileged = true};
    Process p;
    int64_t deadline = clock_ms() + (int64_t)(job->seconds * 1000);
    Error failed;
    if (ok && !process_start(&c, &p, &failed)) {
        if (failed.code == EXIT_MEMORY) out_of_memory("%s", failed.text);
        if (e) *e = failed;
        ok = false;
    }
    for (int i = 0; i < n; i++)
        if (fd[i] >= 0) close(fd[i]);
    if (!ok) return SANDBOX_FAILED;
    int errors = fcntl(p.err, F_DUPFD_CLOEXEC, 0); // what it says is read after its end
    SandboxEnd end = finish(&p, deadline, job->output + strlen(MARK), out, status);
    if (errors >= 0) {
        pipe_read(errors, said, 2048);
        close(errors);
    }
    size_t mark = strlen(MARK);
    if (out->n < mark || memcmp(out->s, MARK, mark) != 0) return SANDBOX_FAILED;
    memmove(out->s, out->s + mark, out->n - mark + 1);
    out->n -= mark;
    return end;
}

SandboxEnd sandbox_run(const SandboxJob *job, Str *out, int *status) {
    Str said = {0};
    SandboxEnd end = run(job, out, status, &said, NULL);
    str_free(&said);
    return end;
}

bool sandbox_check(Error *e) {
    const SandboxJob job = {.argv = (const char *const[]){"/bin/sh", "-c", "echo works", NULL},
                            .keep = -1,
                            .seconds = 20,
                            .memory = 512 << 20,
                            .disk = 1 << 20,
                            .output = 100};
    Str out = {0}, said = {0}, plain = {0};
    int status;
    Error why = {0};
    SandboxEnd end = run(&job, &out, &status, &said, &why);
    bool works = end == SANDBOX_EXITED && status == 0 && out.n && !strcmp(out.s, "works\n");
    if (said.n) str_visible(&plain, said.s, strcspn(said.s, "\n"));
    if (!works && strstr(why.text, "no such program"))
        error_set(e, EXIT_CONFIG,
                  "no sandbox, and without one no program of a model is run: bubblewrap is not installed; run "
                  "tools/deps.sh code, or apt-get install bubblewrap");
    else if (!works)
        error_set(
            e, EXIT_CONFIG,
            "no sandbox, and without one no program of a model is run: bubblewrap says `%s`; it needs version 0.8 "
            "or newer and user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0; in a container, "
            "the right to make them)",
            plain.n     ? plain.s
            : *why.text ? why.text
                        : "nothing");
    str_free(&out);
    str_free(&said);
    str_free(&plain);
    return works;
}
