// Scoring on separate threads, while other sequences still decode. Each reward of a completion is a job; a reward that
// compares the completions of a question, or sends them to a program or server, is one job for all of them, once they
// are all there. Every job writes its own places of the batch, so that results do not depend on the number of threads
// or their order.
#include "clock.h"
#include "machine.h"
#include "ranks.h"
#include "reward_threads.h"
#include "signals.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>

enum { STAND_INS = 64, STUCK_MS = 1000, LOOK_MS = 100 };

typedef struct {
    int reward, first, n; // completions first .. first + n
    bool again;           // only what has no score takes one
} Job;

typedef struct {
    Scorer *scorer;
    pthread_t thread;
    double since; // when its job began; 0: it is idle
} Worker;

struct Scorer {
    const Rewards *rewards;
    int threads; // as configured, without stand-ins
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool closing;
    Worker *worker; // [threads + STAND_INS]
    int workers;
    // The batch being scored.
    const Batch *b;
    Sample *sample;       // [n]
    bool *added;          // [n]
    int *missing;         // [prompts] how many completions of a question are still to come
    Job *job;             // [n * rewards] each job comes once, so no ring is needed
    int jobs, next, open; // jobs so far; the next to begin; how many are not finished
};

static void run_job(const Scorer *s, Job j) {
    const Reward *r = &s->rewards->reward[j.reward];
    float few[64], *score = j.n <= 64 ? few : xcalloc((size_t)j.n, sizeof *score);
    r->info->fn(r, s->sample + j.first, j.n, score);
    for (int i = 0; i < j.n; i++) {
        float *mine = &s->b->score[(j.first + i) * s->b->n_rewards + j.reward];
        if (!j.again || isnan(*mine)) *mine = score[i];
    }
    if (score != few) free(score);
}

static void *work(void *arg) {
    Worker *me = arg;
    Scorer *s = me->scorer;
    machine_unbind();
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->next == s->jobs && !s->closing) pthread_cond_wait(&s->work, &s->lock);
        if (s->next == s->jobs) break;
        Job j = s->job[s->next++];
        me->since = clock_seconds();
        pthread_mutex_unlock(&s->lock);
        run_job(s, j);
        pthread_mutex_lock(&s->lock);
        me->since = 0;
        if (--s->open == 0) pthread_cond_broadcast(&s->done);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

// Starts one more thread, with signals blocked: the main thread handles them.
static bool worker_start(Scorer *s) {
    Worker *w = &s->worker[s->workers];
    *w = (Worker){.scorer = s};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = pthread_create(&w->thread, NULL, work, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    s->workers += ok;
    return ok;
}

Scorer *scorer_open(const Rewards *rewards, int threads, Error *e) {
    int cores = machine_cores(ranks_here());
    if (threads <= 0) threads = cores > 16 ? 16 : cores;
    Scorer *s = xcalloc(1, sizeof *s);
    s->rewards = rewards;
    s->threads = threads;
    s->worker = xcalloc((size_t)(threads + STAND_INS), sizeof *s->worker);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    clock_condition(&s->done);
    while (s->workers < threads && worker_start(s)) continue;
    if (s->workers) return s;
    scorer_close(s);
    error_set(e, EXIT_MEMORY, "reward_threads: cannot start a thread; close other programs");
    return NULL;
}

void scorer_close(Scorer *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    s->open -= s->jobs - s->next;
    s->jobs = s->next; // what nobody has begun
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->workers; i++) pthread_join(s->worker[i].thread, NULL);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->done);
    pthread_mutex_destroy(&s->lock);
    free(s->worker);
    free(s->sample);
    free(s->added);
    free(s->missing);
    free(s->job);
    free(s);
}

void scorer_begin(Scorer *s, const Batch *b) {
    size_t n = (size_t)b->n, prompts = (size_t)b->prompts, jobs = n * (size_t)s->rewards->n;
    pthread_mutex_lock(&s->lock);
    s->b = b;
    s->sample = xrealloc(s->sample, (n + 1) * sizeof *s->sample);
    s->added = xrealloc(s->added, (n + 1) * sizeof *s->added);
    s->missing = xrealloc(s->missing, (prompts + 1) * sizeof *s->missing);
    s->job = xrealloc(s->job, (jobs + 1) * sizeof *s->job);
    memset(s->added, 0, n * sizeof *s->added);
    for (int p = 0; p < b->prompts; p++) s->missing[p] = b->group;
    s->jobs = s->next = s->open = 0;
    pthread_mutex_unlock(&s->lock);
}

static bool of_group(const Scorer *s, int reward) {
    const RewardInfo *info = s->rewards->reward[reward].info;
    return info->batches || (info->reads & REWARD_READS_GROUP) != 0;
}

// Asks for scores of completions of one question by the rewards that look at it; the others abstain.
static void add_jobs(Scorer *s, bool groups, int first, int n) {
    const Batch *b = s->b;
    for (int k = 0; k < s->rewards->n; k++) {
        if (s->rewards->reward[k].info->by_model || of_group(s, k) != groups) continue;
        if (!rewards_score(s->rewards, b->file[first / b->group], k)) {
            for (int i = first; i < first + n; i++) b->score[i * b->n_rewards + k] = REWARD_ABSTAINS;
            continue;
        }
        s->job[s->jobs++] = (Job){k, first, n, false};
        s->open++;
    }
}

static void take_decoded(void *scorer, int i) { scorer_add(scorer, i); }
RolloutWatch scorer_watch(Scorer *s) { return (RolloutWatch){.done = take_decoded, .arg = s}; }

void scorer_add(Scorer *s, int i) {
    const Batch *b = s->b;
    int p = i / b->group;
    s->sample[i] = batch_sample(b, i);
    s->added[i] = true;
    pthread_mutex_lock(&s->lock);
    add_jobs(s, false, i, 1);
    if (--s->missing[p] == 0) add_jobs(s, true, p * b->group, b->group);
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

void scorer_again(Scorer *s, int p, uint32_t rewards) {
    const Batch *b = s->b;
    int first = p * b->group, end = first + b->group;
    pthread_mutex_lock(&s->lock);
    for (int i = first; i < end; i++) s->sample[i] = batch_sample(b, i), s->added[i] = true;
    for (int k = 0; k < s->rewards->n; k++) {
        bool whole = s->rewards->reward[k].info->program != NULL; // which may compare what one request holds
        for (int i = first, n; i < end && rewards >> k & 1; i += n) {
            for (n = 0; i + n < end && isnan(b->score[(i + n) * b->n_rewards + k]); n++) continue;
            if (n && whole) i = first, n = b->group;
            if (n) s->job[s->jobs++] = (Job){k, i, n, true}, s->open++;
            else n = 1;
        }
    }
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

// Starts another thread if jobs wait and every thread has been busy with one job for long, so that a call that hangs
// until its time-out does not delay other scores.
static void help_out(Scorer *s) {
    double now = clock_seconds();
    int busy = 0;
    for (int i = 0; i < s->workers; i++) busy += s->worker[i].since > 0 && now - s->worker[i].since > STUCK_MS * 1e-3;
    if (s->next < s->jobs && busy == s->workers && s->workers < s->threads + STAND_INS) worker_start(s);
}

bool scorer_end(Scorer *s, bool wanted, Error *e) {
    bool asked_for = wanted;
    pthread_mutex_lock(&s->lock);
    while (s->open) {
        if (!wanted || stop_requested()) {
            wanted = false;
            s->open -= s->jobs - s->next;
            s->jobs = s->next; // what nobody has begun
            if (!s->open) break;
        }
        clock_wait(&s->done, &s->lock, LOOK_MS);
        help_out(s);
    }
    pthread_mutex_unlock(&s->lock);
    wanted = wanted && !stop_requested(); // after such a request a reward may have given up
    if (asked_for && !wanted) error_set(e, EXIT_STOPPED, "stopped by a signal");
    const Batch *b = s->b;
    for (int k = 0; k < s->rewards->n && wanted; k++) {
        int64_t asked = 0, scored = 0;
        for (int i = 0; i < b->n; i++) {
            if (!s->added[i] || !rewards_score(s->rewards, b->file[i / b->group], k)) continue;
            asked++;
            scored += !isnan(b->score[i * b->n_rewards + k]);
        }
        reward_scored(&s->rewards->reward[k], asked, scored);
    }
    for (int i = 0; i < b->n && wanted; i++) {
        if (!s->added[i]) continue;
        b->reward[i] = reward_total(s->rewards->reward, s->rewards->n, b->score + i * b->n_rewards);
        b->state[i] = SEQ_SCORED;
    }
    return wanted;
}
