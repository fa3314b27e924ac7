// The guard: a small process between grpo and a long-lived program, which kills that program and all it started once
// grpo has ended, in whatever way. The usual means are not enough: the signal at a parent's death reaches one process
// and not what it started, and comes too early where the thread that started it ends; and a program can leave its
// process group. So the guard is made the parent of every orphan below it, and waits for the end of a pipe that only
// grpo holds open: whatever ends grpo, even kill -9, closes the pipe.
#include "guard.h"
#include "process.h"
#include "str.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

char **guard_argv(const char *path, size_t most, char *const *argv) {
    int n = 0;
    while (argv[n]) n++;
    char **all = xcalloc((size_t)n + 4, sizeof *all);
    all[0] = (char *)GUARD_NAME;
    all[1] = xstrdup(path);
    all[2] = xasprintf("%zu", most);
    memcpy(all + 3, argv, (size_t)n * sizeof *argv);
    return all;
}

// The parent of a process, or 0.
static pid_t parent_of(pid_t pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    const char *name_end = strrchr(text, ')'); // a name may hold anything
    int parent = 0;
    if (!name_end || sscanf(name_end + 1, " %*c %d", &parent) != 1) return 0;
    return parent;
}

// Kills this process's children until there are none left: the children of one that is killed become its own.
static void end_all(pid_t program) {
    kill(-program, SIGKILL);
    kill(program, SIGKILL);
    for (;;) {
        DIR *proc = opendir("/proc");
        for (struct dirent *d; proc && (d = readdir(proc));) {
            pid_t pid = (pid_t)atoi(d->d_name);
            if (pid > 0 && parent_of(pid) == getpid()) kill(pid, SIGKILL);
        }
        if (proc) closedir(proc);
        for (pid_t gone; (gone = waitpid(-1, NULL, WNOHANG)) != 0;)
            if (gone < 0 && errno == ECHILD) return;
        poll(NULL, 0, 1);
    }
}

static void wake(int signal) {}

// The program's output on its way into a log.
typedef struct {
    int from, log; // a pipe's end that does not block, -1: none; where it goes
    size_t left;   // bytes that still do
} Output;

// Takes what the pipe holds. False: nothing now, or nothing ever again.
static bool take(Output *o) {
    static const char rest[] = "\n== more output is left out\n";
    char bytes[65536];
    ssize_t n = o->from < 0 ? -1 : read(o->from, bytes, sizeof bytes);
    if (n == 0) o->from = -1;
    if (n <= 0) return false;
    size_t some = (size_t)n < o->left ? (size_t)n : o->left;
    ssize_t lost = some ? write(o->log, bytes, some) : 0; // a full disk is the log's loss alone
    if (o->left && some == o->left) lost = write(o->log, rest, sizeof rest - 1);
    (void)lost;
    o->left -= some;
    return true;
}

static pid_t start(char **argv, int output) {
    pid_t guard = getpid(), pid = fork();
    if (pid != 0) return pid;
    close(GUARD_LIFE);
    if (output >= 0) dup2(output, 1), dup2(output, 2);
    const char *path = argv[1];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    fcntl(GUARD_REPORT, F_SETFD, FD_CLOEXEC);
    setpgid(0, 0);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == guard) execv(path, argv + 3);
    int failed = errno;
    if (write(GUARD_REPORT, &failed, sizeof failed) < 0) _exit(126);
    _exit(127);
}

static int guard_main(int argc, char **argv) {
    if (argc < 4) return 126;
    Output o = {-1, -1, strtoull(argv[2], NULL, 10)};
    int end[2] = {-1, -1};
    if (o.left && !pipe2(end, O_CLOEXEC)) {
        o.from = end[0], o.log = fcntl(1, F_DUPFD_CLOEXEC, GUARD_REPORT + 1);
        fcntl(o.from, F_SETFL, O_NONBLOCK);
    }
    prctl(PR_SET_NAME, GUARD_NAME);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigset_t none, child;
    sigemptyset(&none);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    signal(SIGCHLD, wake);
    pid_t pid = start(argv, end[1]);
    if (end[1] >= 0) close(end[1]);
    int nowhere = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(nowhere, fd); // the program's pipes are the program's
    close(GUARD_REPORT);
    if (nowhere > 2 && nowhere != GUARD_LIFE) close(nowhere);
    if (pid < 0) return 126;
    const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGXCPU};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) signal(ignored[i], SIG_IGN);
    int status = 0;
    for (bool ended = false; !ended;) {
        struct pollfd wait[] = {{GUARD_LIFE, POLLIN, 0}, {o.from, POLLIN, 0}};
        if (ppoll(wait, 2, NULL, &none) > 0 && wait[0].revents) break;
        if (wait[1].revents) take(&o);
        for (pid_t gone; (gone = waitpid(-1, &status, WNOHANG)) > 0 && !ended;) ended = gone == pid;
    }
    for (int i = 0; i < 16 && take(&o);) i++; // what a pipe holds; more, its children still write
    end_all(pid);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
PROCESS_HELPER(GUARD_NAME, guard_main)
