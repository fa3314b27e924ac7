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

char **guard_argv(const char *path, char *const *argv) {
    int n = 0;
    while (argv[n]) n++;
    char **all = xcalloc((size_t)n + 3, sizeof *all);
    all[0] = (char *)GUARD_NAME;
    all[1] = xstrdup(path);
    memcpy(all + 2, argv, (size_t)n * sizeof *argv);
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

static pid_t start(char **argv) {
    pid_t guard = getpid(), pid = fork();
    if (pid != 0) return pid;
    close(GUARD_LIFE);
    const char *path = argv[1];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    fcntl(GUARD_REPORT, F_SETFD, FD_CLOEXEC);
    setpgid(0, 0);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == guard) execv(path, argv + 2);
    int failed = errno;
    if (write(GUARD_REPORT, &failed, sizeof failed) < 0) _exit(126);
    _exit(127);
}

static int guard_main(int argc, char **argv) {
    if (argc < 3) return 126;
    prctl(PR_SET_NAME, GUARD_NAME);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigset_t none, child;
    sigemptyset(&none);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    signal(SIGCHLD, wake);
    pid_t pid = start(argv);
    int nowhere = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(nowhere, fd); // the program's pipes are the program's
    close(GUARD_REPORT);
    if (nowhere > 2 && nowhere != GUARD_LIFE) close(nowhere);
    if (pid < 0) return 126;
    const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) signal(ignored[i], SIG_IGN);
    int status = 0;
    for (bool ended = false; !ended;) {
        struct pollfd life = {GUARD_LIFE, POLLIN, 0};
        if (ppoll(&life, 1, NULL, &none) > 0) break;
        for (pid_t gone; (gone = waitpid(-1, &status, WNOHANG)) > 0 && !ended;) ended = gone == pid;
    }
    end_all(pid);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
PROCESS_HELPER(GUARD_NAME, guard_main)
