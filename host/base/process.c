// Child processes. They are made by vfork, because a training run has tens of gigabytes mapped, whose page tables fork
// would copy each time. Between vfork and exec only plain system calls are made, with every signal blocked.
#include "clock.h"
#include "process.h"
#include "guard.h"
#include "machine.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOBODY 65534
#define MYSELF "/proc/self/exe"

extern char **environ;

// ---- starting -------------------------------------------------------------------------------------------------------

// A program on its way: what the child needs until exec.
typedef struct {
    const ProcessSpec *c;
    char *path; // of the program
    char *const *argv;
    int in, out, err, life;
    pid_t parent;
    int report; // closed by a successful exec; before that the errno of a step that failed is written to it
} Starting;

static void close_from(int first, int last) {
    if (first > last || syscall(SYS_close_range, (unsigned)first, (unsigned)last, 0) == 0) return;
    for (int fd = first; fd <= last && fd < 65536; fd++) close(fd);
}

static void close_others(const ProcessSpec *c, int report) {
    int first = 3;
    for (int i = 0; i < c->n_keep || report >= first;) {
        bool reports = report >= first && (i == c->n_keep || report < c->keep[i]);
        int fd = reports ? report : c->keep[i++];
        close_from(first, fd - 1);
        if (!reports) fcntl(fd, F_SETFD, 0);
        first = fd + 1;
    }
    close_from(first, INT32_MAX);
}

// Becomes the user nobody, by the system calls themselves: the C library's functions would change the user of every
// thread.
static bool become_nobody(void) {
    return syscall(SYS_setgroups, 0, NULL) == 0 && syscall(SYS_setresgid, NOBODY, NOBODY, NOBODY) == 0 &&
           syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0;
}

// Prepares the child up to exec. False with errno set.
static bool prepare_child(Starting *s) {
    const ProcessSpec *c = s->c;
    struct sigaction normal = {.sa_handler = SIG_DFL};
    if (setpgid(0, 0) || dup2(s->in, 0) < 0 || dup2(s->out, 1) < 0 || dup2(s->err, 2) < 0) return false;
    if (c->guarded) {
        int life = fcntl(s->life, F_DUPFD, GUARD_REPORT + 1), report = fcntl(s->report, F_DUPFD, GUARD_REPORT + 1);
        if (life < 0 || report < 0 || dup2(life, GUARD_LIFE) < 0 || dup2(report, GUARD_REPORT) < 0) return false;
        s->report = GUARD_REPORT;
        close_from(GUARD_REPORT + 1, INT32_MAX);
    } else { // what starts it waits for it, so that it ends with that thread
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != s->parent) return false;
        close_others(c, s->report);
    }
    for (int i = 0; i < c->n_limits; i++) {
        struct rlimit limit = {c->limit[i].value, c->limit[i].value};
        if (setrlimit((__rlimit_resource_t)c->limit[i].resource, &limit)) return false;
    }
    if (c->unprivileged && geteuid() == 0 && !become_nobody()) return false;
    machine_unbind();
    sigaction(SIGPIPE, &normal, NULL);
    sigaction(SIGXFSZ, &normal, NULL);
    sigaction(SIGINT, &normal, NULL);
    sigaction(SIGTERM, &normal, NULL);
    const uint64_t none = 0; // whatever the calling thread blocks is not the child's
    return syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none) == 0;
}

// Starts the program. Not inlined: the child of vfork shares this frame, and may overwrite it.
static __attribute__((noinline)) pid_t launch_program(Starting *s) {
    pid_t pid = vfork();
    if (pid != 0) return pid;
    if (prepare_child(s)) execve(s->path, s->argv, s->c->envp ? s->c->envp : environ);
    int failed = errno;
    if (write(s->report, &failed, sizeof failed) < 0) _exit(126);
    _exit(127);
}

// The path of the program: argv[0] itself, or the first file of that name in PATH. NULL where there is none.
static char *find_program(const char *name) {
    if (!strncmp(name, PROCESS_HELPER_PREFIX, strlen(PROCESS_HELPER_PREFIX))) return xstrdup(MYSELF);
    if (strchr(name, '/')) return access(name, F_OK) == 0 ? xstrdup(name) : NULL;
    const char *path = getenv("PATH");
    for (path = path ? path : "/usr/bin:/bin"; *path; path += *path == ':') {
        size_t n = strcspn(path, ":");
        char *file = xasprintf("%.*s/%s", (int)n, path, name);
        if (n && access(file, X_OK) == 0) return file;
        free(file);
        path += n;
    }
    return NULL;
}

static int above_stdio(int fd) { // a closed standard input of ours must not become a pipe by accident
    if (fd < 0 || fd > 2) return fd;
    int higher = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return higher;
}

static bool open_pipe(int *end) {
    if (pipe2(end, O_CLOEXEC)) return false;
    for (int i = 0; i < 2; i++) end[i] = above_stdio(end[i]);
    return end[0] >= 0 && end[1] >= 0;
}

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

bool process_start(const ProcessSpec *c, Process *p, Error *e) {
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, report[2] = {-1, -1}, failed = 0;
    int life[2] = {-1, -1};
    const char *name = c->argv[0];
    *p = (Process){.in = -1, .out = -1, .err = -1, .life = -1};
    Starting s = {.c = c, .path = find_program(name), .argv = c->argv, .parent = getpid()};
    if (!s.path) return error_set(e, EXIT_CONFIG, "%s: no such program", name);
    char **guard = c->guarded ? guard_argv(s.path, c->log_most, c->argv) : NULL;
    if (guard) {
        free(s.path);
        s.argv = guard, s.path = xstrdup(MYSELF);
    }
    int nowhere = above_stdio(open("/dev/null", O_RDWR | O_CLOEXEC));
    bool ok = nowhere >= 0 && (c->input >= 0 || open_pipe(in)) && (c->log || open_pipe(out)) &&
              (!c->errors || open_pipe(err)) && open_pipe(report) && (!guard || open_pipe(life));
    if (ok) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        s.in = c->input >= 0 ? c->input : in[0];
        s.out = c->log ? c->log : out[1];
        s.err = c->errors ? err[1] : c->log ? c->log : nowhere;
        s.report = report[1];
        s.life = life[0];
        p->pid = launch_program(&s);
        if (p->pid < 0) failed = errno;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    } else failed = errno;
    close_fd(&report[1]);
    while (p->pid > 0 && read(report[0], &failed, sizeof failed) < 0 && errno == EINTR) {
    }
    close_fd(&report[0]);
    close_fd(&life[0]);
    close_fd(&nowhere);
    close_fd(&in[0]);
    close_fd(&out[1]);
    close_fd(&err[1]);
    free(s.path);
    if (guard) free(guard[1]), free(guard[2]), free(guard);
    p->in = in[1], p->out = out[0], p->err = err[0], p->life = life[1];
    for (int i = 0; i < 3; i++) {
        int fd = (int[]){p->in, p->out, p->err}[i];
        if (fd >= 0) fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    if (!failed) return true;
    if (p->pid < 0) p->pid = 0;
    process_kill(p);
    bool memory = failed == ENOMEM || failed == EAGAIN; // EAGAIN: no more processes
    return error_set(e, memory ? EXIT_MEMORY : EXIT_CONFIG, "%s: cannot be started: %s", name, error_open(failed));
}

void process_kill(Process *p) {
    bool guarded = p->life >= 0;
    close_fd(&p->life);
    if (p->pid > 0) {
        if (!guarded) {
            kill(-p->pid, SIGKILL);
            kill(p->pid, SIGKILL); // before it is in its group
        }
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    p->pid = 0;
    close_fd(&p->in);
    close_fd(&p->out);
    close_fd(&p->err);
}

bool process_wait(Process *p, int64_t deadline, int *status) {
    *status = -1;
    for (long pause = 100000;; pause = pause < 5000000 ? pause * 2 : pause) {
        // Without collecting it (WNOWAIT): the group's number must stay reserved until the group is killed.
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno != EINTR) return true;
        if (info.si_pid) break;
        if (clock_ms() >= deadline) return false;
        nanosleep(&(struct timespec){0, pause}, NULL);
    }
    if (p->life < 0) kill(-p->pid, SIGKILL); // what it left behind
    while (waitpid(p->pid, status, 0) < 0 && errno == EINTR) {
    }
    p->pid = 0;
    return true;
}

// ---- pipes ----------------------------------------------------------------------------------------------------------

int pipe_read(int fd, Str *out, size_t limit) {
    char bytes[16384];
    for (;;) {
        ssize_t n = read(fd, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN ? 1 : 0;
        if (n == 0) return 0;
        size_t room = limit - out->n;
        str_add(out, bytes, (size_t)n < room ? (size_t)n : room);
        if ((size_t)n > room) return -1;
    }
}

bool pipe_wait(int read_a, int read_b, int write, int64_t deadline) {
    struct pollfd fd[3] = {{read_a, POLLIN, 0}, {read_b, POLLIN, 0}, {write, POLLOUT, 0}};
    int64_t left = deadline - clock_ms();
    if (left <= 0) return false;
    poll(fd, 3, left > 60000 ? 60000 : (int)left); // poll leaves out negative descriptors
    return true;
}

int bytes_fd(const void *bytes, size_t n) {
    int fd = above_stdio(memfd_create("grpo", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (fd < 0) return -1;
    for (size_t at = 0; at < n;) {
        ssize_t wrote = write(fd, (const char *)bytes + at, n - at);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) {
            close(fd);
            return -1;
        }
        at += (size_t)wrote;
    }
    lseek(fd, 0, SEEK_SET);
    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    return fd;
}
