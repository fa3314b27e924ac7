// Hooks. See hooks.h.
//
// A hook is a shell command in a process group of its own. It is started with vfork, since fork would copy the page
// tables of a run that has gigabytes mapped. It is killed when the run's process ends, however that ends. Only the end
// of a run waits for it.
#include "clock.h"
#include "hooks.h"
#include "machine.h"
#include "str.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static const char *const names[] = {"on_save", "on_eval", "on_end"};

typedef struct {
    pid_t pid; // 0: none runs
    int64_t step;
    double until; // clock reading at which it is killed
    bool late;    // it was killed for that
    int64_t runs, failed, left_out;
} Hook;

struct Hooks {
    const char *command[HOOK_COUNT], *output_dir;
    double timeout;
    Hook hook[HOOK_COUNT];
};

Hooks *hooks_open(const Config *c) {
    if (!*c->on_save && !*c->on_eval && !*c->on_end) return NULL;
    Hooks *h = xcalloc(1, sizeof *h);
    *h = (Hooks){{c->on_save, c->on_eval, c->on_end}, c->output_dir, (double)c->hook_timeout};
    return h;
}

// ---- starting one ----------------------------------------------------------------------------------------------------

// A copy of the environment in which own[n_own] ("NAME=value") replace the variables of the same names. The array is on
// the heap; the strings are not copied.
static char **environment_with(char *const *own, int n_own) {
    int n = 0;
    while (environ[n]) n++;
    char **all = xcalloc((size_t)(n + n_own) + 1, sizeof *all);
    int kept = 0;
    for (int i = 0; i < n; i++) {
        bool ours = false;
        for (int k = 0; k < n_own; k++) ours = ours || !strncmp(environ[i], own[k], strcspn(own[k], "=") + 1);
        if (!ours) all[kept++] = environ[i];
    }
    for (int k = 0; k < n_own; k++) all[kept++] = own[k];
    return all;
}

// Turns the child of vfork into the hook's shell: until exec it shares our memory, so only plain system calls are
// allowed.
_Noreturn static void become(char **argv, char **env, int null, int log, pid_t parent) {
    sigset_t none;
    sigemptyset(&none);
    for (int s = 1; s < NSIG; s++) signal(s, SIG_DFL);
    bool ok = !setpgid(0, 0) && dup2(null, 0) == 0 && dup2(log, 1) == 1 && dup2(log, 2) == 2 &&
              !prctl(PR_SET_PDEATHSIG, SIGKILL) && getppid() == parent;
    machine_unbind();
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (ok) execve("/bin/sh", argv, env);
    _exit(127);
}

// Starts the child process. Not inlined: the child of vfork writes into this function's frame, which then holds no
// variable of the caller.
__attribute__((noinline)) static pid_t spawn(char **argv, char **env, int null, int log) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t parent = getpid(), pid = vfork();
    if (!pid) become(argv, env, null, log, parent);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

// Opens output_dir/hooks.log and adds a line that names the hook; -1 where that fails.
static int log_open_for(const Hooks *h, HookKind kind, int64_t step) {
    char *path = xasprintf("%s/hooks.log", h->output_dir), now[40];
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    time_t seconds = time(NULL);
    struct tm utc;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    if (log >= 0) dprintf(log, "== %s %s, step %lld\n", now, names[kind], (long long)step);
    free(path);
    return log;
}

void hooks_start(Hooks *h, HookKind kind, const char *path, int64_t step, const char *metrics, int exit_code) {
    if (!h || !*h->command[kind]) return;
    hooks_look(h);
    Hook *k = &h->hook[kind];
    if (k->pid) {
        k->left_out++;
        note("%s is left out at step %lld: that of step %lld still runs", names[kind], (long long)step,
             (long long)k->step);
        return;
    }
    char *own[] = {xasprintf("GRPO_EVENT=%s", names[kind] + 3),
                   xasprintf("GRPO_STEP=%lld", (long long)step),
                   xasprintf("GRPO_PATH=%s", path),
                   xasprintf("GRPO_OUTPUT_DIR=%s", h->output_dir),
                   xasprintf("GRPO_METRICS=%s", metrics && strlen(metrics) < 100000 ? metrics : "{}"),
                   xasprintf("GRPO_EXIT=%d", exit_code)};
    int n_own = kind == HOOK_END ? 6 : 5;
    char *words = xasprintf("%s \"$@\"", h->command[kind]), *number = xasprintf("%lld", (long long)step);
    char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, words, (char[]){"sh"}, xstrdup(path), number, NULL};
    char **env = environment_with(own, n_own);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = log_open_for(h, kind, step);
    k->pid = null < 0 ? -1 : spawn(argv, env, null, log < 0 ? null : log);
    k->runs++;
    k->step = step, k->late = false;
    k->until = clock_seconds() + h->timeout;
    if (k->pid < 0) {
        note("%s at step %lld cannot be started: %s", names[kind], (long long)step, strerror(errno));
        k->failed++, k->pid = 0;
    }
    if (null >= 0) close(null);
    if (log >= 0) close(log);
    for (int i = 0; i < 6; i++) free(own[i]);
    free(argv[4]), free(words), free(number), free(env);
}

// ---- looking after them ----------------------------------------------------------------------------------------------

static void look(Hooks *h, HookKind kind) {
    Hook *k = &h->hook[kind];
    if (!k->pid) return;
    if (!k->late && clock_seconds() >= k->until) {
        k->late = true;
        kill(-k->pid, SIGKILL);
    }
    int status;
    siginfo_t ended = {0};
    if (waitid(P_PID, (id_t)k->pid, &ended, WEXITED | WNOHANG | WNOWAIT) || !ended.si_pid) return;
    kill(-k->pid, SIGKILL); // what it left running; before waitpid, while the process id cannot have been given away
    waitpid(k->pid, &status, 0);
    k->pid = 0;
    if (WIFEXITED(status) && !WEXITSTATUS(status)) return;
    k->failed++;
    char how[60];
    if (k->late) snprintf(how, sizeof how, "took more than hook_timeout, %g s", h->timeout);
    else if (WIFSIGNALED(status)) snprintf(how, sizeof how, "died of signal %d", WTERMSIG(status));
    else snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(status));
    note("%s of step %lld %s; see %s/hooks.log; the run goes on", names[kind], (long long)k->step, how, h->output_dir);
}

void hooks_look(Hooks *h) {
    for (int kind = 0; h && kind < HOOK_COUNT; kind++) look(h, (HookKind)kind);
}

void hooks_close(Hooks *h) {
    if (!h) return;
    for (bool said = false;; said = true) {
        hooks_look(h);
        int running = 0;
        while (running < HOOK_COUNT && !h->hook[running].pid) running++;
        if (running == HOOK_COUNT) break;
        if (!said) note("waiting for %s, %g s at most", names[running], h->timeout);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    for (int i = 0; i < HOOK_COUNT; i++) {
        const Hook *k = &h->hook[i];
        if (k->failed || k->left_out)
            note("%s: started %lld times, failed %lld, left out %lld", names[i], (long long)k->runs,
                 (long long)k->failed, (long long)k->left_out);
    }
    free(h);
}
