// Worker programs that answer a line of JSON with a line of JSON, and the pool of them (worker.h).
#include "worker.h"
#include "clock.h"
#include "signals.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ERROR_TAIL 400 // bytes kept of what a worker wrote to standard error last
#define LOOK_MS    50  // how often a wait looks for a signal
#define STOP_MS    500 // time for a worker to end by itself once its input is closed

typedef struct {
    Process process;
    Str got;    // read and not yet taken
    Str errors; // the end of its standard error
    bool busy;
} Worker;

struct WorkerPool {
    WorkerOptions o;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    int64_t next_id; // protected by the lock, as is each worker's `busy`
    atomic_bool noted;
    Worker worker[]; // [o.workers]
};

json_t *worker_answer(const char *line, size_t n, int64_t id) {
    json_error_t why;
    json_t *j = json_loadb(line, n, JSON_REJECT_DUPLICATES, &why);
    const json_t *got = json_object_get(j, "id");
    if (json_is_integer(got) && json_integer_value(got) == id) return j;
    json_decref(j);
    return NULL;
}

// ---- one worker -----------------------------------------------------------------------------------------------------

static void stop(Worker *w) {
    if (w->process.in >= 0) close(w->process.in);
    w->process.in = -1;
    int status;
    if (w->process.pid > 0) process_wait(&w->process, clock_ms() + STOP_MS, &status);
    process_kill(&w->process);
    str_clear(&w->got);
}

static void keep_tail(Str *s) {
    if (s->n <= ERROR_TAIL) return;
    memmove(s->s, s->s + s->n - ERROR_TAIL, ERROR_TAIL + 1);
    s->n = ERROR_TAIL;
}

static void read_errors(Worker *w) {
    if (w->process.err < 0) return;
    Str more = {0};
    if (pipe_read(w->process.err, &more, 1 << 20) == 0) {
        close(w->process.err);
        w->process.err = -1;
    }
    if (more.n) str_add(&w->errors, more.s, more.n);
    str_free(&more);
    keep_tail(&w->errors);
}

// Writes as much of the request as the pipe takes; false where the worker no longer reads. SIGPIPE, which would end the
// run, is held back.
static bool send_some(Worker *w, const Str *request, size_t *sent) {
    sigset_t pipe_signal, old;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &old);
    int failed = 0;
    while (*sent < request->n && !failed) {
        ssize_t n = write(w->process.in, request->s + *sent, request->n - *sent);
        if (n < 0 && errno != EINTR) failed = errno;
        if (n > 0) *sent += (size_t)n;
    }
    if (failed == EPIPE && !sigismember(&old, SIGPIPE)) sigtimedwait(&pipe_signal, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return !failed || failed == EAGAIN;
}

// Sends one request and reads one line, into w->got. False with the reason in *why.
static bool exchange(Worker *w, const Str *request, size_t limit, int64_t deadline, RewardFault *why) {
    size_t sent = 0;
    for (;;) {
        *why = REWARD_CRASH;
        if (!send_some(w, request, &sent)) return false;
        int more = pipe_read(w->process.out, &w->got, limit);
        read_errors(w);
        const char *newline = w->got.n ? memchr(w->got.s, '\n', w->got.n) : NULL;
        *why = REWARD_BAD_REPLY;
        if (newline) return sent == request->n && newline + 1 == w->got.s + w->got.n;
        *why = more < 0 ? REWARD_FLOOD : REWARD_CRASH;
        if (more <= 0) return false;
        *why = REWARD_TIMEOUT;
        int to = sent < request->n ? w->process.in : -1;
        int64_t look = clock_ms() + LOOK_MS;
        if (!pipe_wait(w->process.out, w->process.err, to, look < deadline ? look : deadline) && clock_ms() >= deadline)
            return false;
        *why = REWARD_FAULTS;
        if (stop_asked()) return false;
    }
}

static json_t *ask(Worker *w, int64_t id, const char *rest, size_t limit, double seconds, RewardFault *why) {
    Str request = {0};
    str_printf(&request, "{\"id\": %lld, %s}\n", (long long)id, rest);
    json_t *answer = NULL;
    str_clear(&w->got);
    if (exchange(w, &request, limit, clock_ms() + (int64_t)(seconds * 1000), why)) {
        answer = worker_answer(w->got.s, w->got.n, id);
        *why = REWARD_BAD_REPLY;
    }
    str_free(&request);
    return answer;
}

// ---- the pool -------------------------------------------------------------------------------------------------------

static const char *reason_of(RewardFault why) {
    static const char *const text[REWARD_FAULTS + 1] = {[REWARD_FAULTS] = "stopped by a signal",
                                                        [REWARD_TIMEOUT] = "it did not answer in time",
                                                        [REWARD_CRASH] = "it ended without an answer",
                                                        [REWARD_FLOOD] = "it wrote too much",
                                                        [REWARD_BAD_REPLY] =
                                                            "it did not answer with one line of JSON with "
                                                            "the request's id"};
    return text[why];
}

// "<name>: <reason>; it said: <the end of standard error>", made safe to print.
static void complaint(const Worker *w, const char *name, const char *reason, Str *out) {
    str_printf(out, "%s: %s", name, reason);
    Str said = {0};
    if (w && w->errors.n) str_visible(&said, w->errors.s, w->errors.n);
    for (size_t i = 0; i < said.n; i++)
        if (said.s[i] == '\n') said.s[i] = ' ';
    while (said.n && said.s[said.n - 1] == ' ') said.s[--said.n] = 0;
    if (said.n) str_printf(out, "; it said: %s", said.s);
    str_free(&said);
}

static void note_once(WorkerPool *pool, const Worker *w, const char *reason) {
    if (atomic_exchange(&pool->noted, true)) return;
    Str s = {0};
    complaint(w, pool->o.name, reason, &s);
    note("%s (later failures are only counted)", s.s);
    str_free(&s);
}

void workers_blame(WorkerPool *pool, const char *what) { note_once(pool, NULL, what); }

// Waits for the end of a worker that is ending, to get what it said last. If it is a helper of this program that ran
// out of memory, this process ends too: it would else go on with scores left out.
static void see_end(WorkerPool *pool, Worker *w) {
    int status;
    if (w->process.pid <= 0 || !process_wait(&w->process, clock_ms() + STOP_MS, &status)) return;
    read_errors(w);
    bool helper = !strncmp(pool->o.command.argv[0], PROCESS_HELPER_PREFIX, strlen(PROCESS_HELPER_PREFIX));
    if (helper && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_MEMORY)
        out_of_memory("the process that asks %s had none", pool->o.name);
}

static bool start(WorkerPool *pool, Worker *w, RewardFault *why, Error *e) {
    *why = REWARD_CRASH;
    str_clear(&w->errors);
    if (!process_start(&pool->o.command, &w->process, e)) {
        if (e->code == EXIT_MEMORY) out_of_memory("%s", e->text); // the run would else go on with scores left out
        return false;
    }
    const char *first = pool->o.hello ? pool->o.hello : "\"samples\": []";
    json_t *hello = ask(w, 0, first, 4096, pool->o.start_timeout, why);
    if (hello) {
        json_decref(hello);
        return true;
    }
    if (*why == REWARD_CRASH) see_end(pool, w);
    Str s = {0};
    complaint(w, pool->o.name, reason_of(*why), &s);
    error_set(e, *why == REWARD_FAULTS ? EXIT_STOPPED : EXIT_CONFIG, "%s", s.s);
    str_free(&s);
    process_kill(&w->process);
    return false;
}

// Whether a worker is alive and silent. One that has ended, or wrote something after its last answer, must be started
// again.
static bool is_ready(Worker *w) {
    if (!w->process.pid) return false;
    str_clear(&w->got);
    if (pipe_read(w->process.out, &w->got, 1) == 1 && w->got.n == 0) return true;
    process_kill(&w->process);
    return false;
}

// Takes a free worker from the pool, waiting for one; NULL where a stop is requested before there is one.
static Worker *take(WorkerPool *pool, int64_t *id) {
    pthread_mutex_lock(&pool->lock);
    Worker *free_one = NULL;
    while (!free_one && !stop_asked()) {
        for (int i = 0; i < pool->o.workers; i++) { // preferably one that runs
            Worker *w = &pool->worker[i];
            if (!w->busy && (!free_one || (w->process.pid && !free_one->process.pid))) free_one = w;
        }
        if (free_one) break;
        clock_wait(&pool->freed, &pool->lock, LOOK_MS);
    }
    if (free_one) {
        free_one->busy = true;
        *id = pool->next_id++;
    }
    pthread_mutex_unlock(&pool->lock);
    return free_one;
}

static void give(WorkerPool *pool, Worker *w) {
    pthread_mutex_lock(&pool->lock);
    w->busy = false;
    pthread_cond_signal(&pool->freed);
    pthread_mutex_unlock(&pool->lock);
}

json_t *worker_ask(WorkerPool *pool, const char *rest, size_t limit, RewardFault *why) {
    int64_t id;
    Error e = {0};
    Worker *w = take(pool, &id);
    json_t *answer = NULL;
    *why = REWARD_FAULTS;
    if (!w) return NULL;
    bool ready = is_ready(w) || start(pool, w, why, &e);
    if (ready) answer = ask(w, id, rest, limit, pool->o.timeout, why);
    if (ready && !answer && *why == REWARD_CRASH) see_end(pool, w);
    if (!answer && *why != REWARD_FAULTS) note_once(pool, ready ? w : NULL, ready ? reason_of(*why) : e.text);
    if (ready && !answer) process_kill(&w->process);
    give(pool, w);
    return answer;
}

WorkerPool *workers_open(const WorkerOptions *o, Error *e) {
    WorkerPool *pool = xcalloc(1, sizeof *pool + (size_t)o->workers * sizeof *pool->worker);
    pool->o = *o;
    pool->o.command.guarded = true;
    pool->next_id = 1;
    pthread_mutex_init(&pool->lock, NULL);
    clock_condition(&pool->freed);
    for (int i = 0; i < o->workers; i++)
        pool->worker[i].process = (Process){.in = -1, .out = -1, .err = -1, .life = -1};
    RewardFault why;
    if (start(pool, &pool->worker[0], &why, e)) return pool;
    workers_close(pool);
    return NULL;
}

void workers_close(WorkerPool *pool) {
    for (int i = 0; i < pool->o.workers; i++) {
        stop(&pool->worker[i]);
        str_free(&pool->worker[i].got);
        str_free(&pool->worker[i].errors);
    }
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->freed);
    free(pool);
}
