// Hooks. See hooks.h.
//
// A hook is a shell command below a guard (host/base/guard.c), which ends it and all that it started when the run's
// process ends, however that ends. Only the end of a run waits for hooks.
#include "clock.h"
#include "hooks.h"
#include "process.h"
#include "str.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    LOG_MOST = 16 << 20, // bytes of hooks.log
    SAID_MOST = 1 << 20, // of a hook's output
    VALUE_MOST = 100000, // of a variable
};

extern char **environ;
static const char *const names[] = {"on_save", "on_eval", "on_end"};

typedef struct {
    Process process;
    int64_t step;   // for which it runs
    int64_t until;  // clock_ms at which it is ended
    HookCall *next; // what it is started for next, or NULL
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

// ---- starting one ---------------------------------------------------------------------------------------------------

static HookCall *call_copy(const HookCall *c) {
    HookCall *copy = xcalloc(1, sizeof *copy);
    *copy = *c;
    copy->path = xstrdup(c->path);
    copy->metrics = xstrdup(c->metrics && strlen(c->metrics) < VALUE_MOST ? c->metrics : "{}");
    copy->eval = xstrdup(c->eval && strlen(c->eval) < VALUE_MOST ? c->eval : "{}");
    return copy;
}

static void call_free(HookCall *c) {
    if (!c) return;
    free((char *)c->path), free((char *)c->metrics), free((char *)c->eval);
    free(c);
}

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

// Opens output_dir/hooks.log and adds a line that names the hook; -1 where that fails. A log that has grown long gives
// way to a new one.
static int log_open_for(const Hooks *h, HookKind kind, int64_t step) {
    char *path = xasprintf("%s/hooks.log", h->output_dir), *old = xasprintf("%s.1", path), now[40];
    struct stat st;
    if (!stat(path, &st) && S_ISREG(st.st_mode) && st.st_size > LOG_MOST) rename(path, old);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    time_t seconds = time(NULL);
    struct tm utc;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    if (log >= 0) dprintf(log, "== %s %s, step %lld\n", now, names[kind], (long long)step);
    free(path), free(old);
    return log;
}

static void start(Hooks *h, HookKind kind, const HookCall *c) {
    Hook *k = &h->hook[kind];
    char *own[] = {xasprintf("GRPO_EVENT=%s", names[kind] + 3), xasprintf("GRPO_STEP=%lld", (long long)c->step),
                   xasprintf("GRPO_PATH=%s", c->path),          xasprintf("GRPO_OUTPUT_DIR=%s", h->output_dir),
                   xasprintf("GRPO_METRICS=%s", c->metrics),    xasprintf("GRPO_EVAL=%s", c->eval),
                   xasprintf("GRPO_EXIT=%d", c->exit_code)};
    enum { N_OWN = sizeof own / sizeof *own };
    char *words = xasprintf("%s \"$@\"", h->command[kind]), *number = xasprintf("%lld", (long long)c->step);
    char *argv[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, words, (char[]){"sh"}, (char *)c->path, number, NULL};
    char **env = environment_with(own, kind == HOOK_END ? N_OWN : N_OWN - 1);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = log_open_for(h, kind, c->step);
    ProcessSpec spec = {
        .argv = argv, .envp = env, .guarded = true, .input = null, .log = log < 0 ? null : log, .log_most = SAID_MOST};
    Error e = {0};
    k->runs++;
    k->step = c->step;
    k->until = clock_ms() + (int64_t)(h->timeout * 1000);
    if (null < 0) error_set(&e, EXIT_DISK, "/dev/null: %s", error_open(errno));
    if (null < 0 || !process_start(&spec, &k->process, &e)) {
        note("%s at step %lld cannot be started: %s", names[kind], (long long)c->step, e.text);
        k->failed++;
    }
    if (null >= 0) close(null);
    if (log >= 0) close(log);
    for (int i = 0; i < N_OWN; i++) free(own[i]);
    free(words), free(number), free(env);
}

static bool others_are_done(const Hooks *h, HookKind kind) {
    for (int i = 0; i < HOOK_COUNT; i++)
        if (i != (int)kind && (h->hook[i].process.pid || h->hook[i].next)) return false;
    return true;
}

// Starts the hook for what waits for it, where it may: on_end comes after all others.
static void start_next(Hooks *h, HookKind kind) {
    Hook *k = &h->hook[kind];
    if (!k->next || k->process.pid || (kind == HOOK_END && !others_are_done(h, kind))) return;
    HookCall *c = k->next;
    k->next = NULL;
    start(h, kind, c);
    call_free(c);
}

void hooks_start(Hooks *h, HookKind kind, const HookCall *c) {
    if (!h || !*h->command[kind]) return;
    hooks_look(h);
    Hook *k = &h->hook[kind];
    if (k->next) {
        k->left_out++;
        note("%s is left out at step %lld: that of step %lld still runs, and that of step %lld comes next", names[kind],
             (long long)k->next->step, (long long)k->step, (long long)c->step);
        call_free(k->next);
    }
    k->next = call_copy(c);
    start_next(h, kind);
}

// ---- looking after them ---------------------------------------------------------------------------------------------

static void fail(Hooks *h, HookKind kind, const char *how) {
    h->hook[kind].failed++;
    note("%s of step %lld %s; see %s/hooks.log%s", names[kind], (long long)h->hook[kind].step, how, h->output_dir,
         kind == HOOK_END ? "" : "; the run does not need it");
}

static void look(Hooks *h, HookKind kind) {
    Process *p = &h->hook[kind].process;
    if (!p->pid) return;
    char how[80];
    int status;
    bool late = !process_wait(p, 0, &status);
    if (late && clock_ms() < h->hook[kind].until) return;
    process_kill(p);
    if (!late && WIFEXITED(status) && !WEXITSTATUS(status)) return;
    int code =
        late || !WIFEXITED(status) ? 0 : WEXITSTATUS(status); // above 128: a signal's number and 128, as in a shell
    if (late) snprintf(how, sizeof how, "took more than hook_timeout, %g s", h->timeout);
    else if (!code || code > 128) snprintf(how, sizeof how, "died of signal %d", code ? code - 128 : WTERMSIG(status));
    else snprintf(how, sizeof how, "ended with status %d", code);
    fail(h, kind, how);
}

void hooks_look(Hooks *h) {
    for (int kind = 0; h && kind < HOOK_COUNT; kind++) look(h, (HookKind)kind);
    for (int kind = 0; h && kind < HOOK_COUNT; kind++) start_next(h, (HookKind)kind);
}

// The seconds that the hooks which run or wait can still take: on_end comes after the others, which run side by side.
static double longest_wait(const Hooks *h) {
    int most = 0, n[HOOK_COUNT];
    for (int k = 0; k < HOOK_COUNT; k++) n[k] = !!h->hook[k].process.pid + !!h->hook[k].next;
    for (int k = 0; k < HOOK_END; k++) most = n[k] > most ? n[k] : most;
    return (most + n[HOOK_END]) * h->timeout;
}

void hooks_close(Hooks *h) {
    if (!h) return;
    for (bool said = false;; said = true) {
        hooks_look(h);
        int running = 0;
        while (running < HOOK_COUNT && !h->hook[running].process.pid) running++;
        if (running == HOOK_COUNT) break;
        if (!said) note("waiting for %s, %g s at most", names[running], longest_wait(h));
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
