// The exchange between the ranks of a training step: completions and their scores, log-probs, sums of the loss, and
// whether to go on at all. After it each rank goes on as if it had computed everything itself.
//
// The batch is a few megabytes at most, so every rank keeps all of it, and what is global (advantages, token counts,
// the entropy threshold, which groups are flat) is computed on every rank from the same numbers. Nothing here adds
// floats.
#include "exchange.h"
#include "device.h"
#include "train.h"
#include <stdlib.h>
#include <string.h>

RankRange rank_range(const Comm *c, int n) {
    int64_t rank = comm_rank(c), world = comm_world(c);
    return (RankRange){(int)(n * rank / world), (int)(n * (rank + 1) / world)};
}

// The range of rank `rank`, of n things.
static RankRange range_of(const Comm *c, int rank, int n) {
    Comm other = *c;
    other.rank = rank;
    return rank_range(&other, n);
}

typedef struct {
    int32_t result;
    char bad[sizeof((StepStats *)0)->bad];
} RankVerdict;

StepResult ranks_agree(const Engine *engine, StepStats *stats, StepResult mine, Error *e) {
    Comm *c = engine->comm;
    if (!c || mine == STEP_FAILED) return mine;
    RankVerdict own = {.result = mine}, *all = xcalloc((size_t)c->world, sizeof *all);
    memcpy(own.bad, stats->bad, sizeof own.bad);
    bool ok = device_ok(engine->device, e) && comm_gather(c, "agreement", &own, sizeof own, all, e);
    StepResult worst = ok ? STEP_DONE : STEP_FAILED;
    for (int r = c->world - 1; ok && r >= 0; r--) {
        if (all[r].result > (int32_t)worst) worst = (StepResult)all[r].result;
        if (all[r].result == STEP_SKIPPED) memcpy(stats->bad, all[r].bad, sizeof all[r].bad);
    }
    free(all);
    return worst;
}

bool ranks_exchange_completions(Comm *c, Batch *b, Error *e) {
    if (!c) return true;
    RankRange own = rank_range(c, b->prompts);
    Str mine = {0};
    batch_pack_prompts(b, own.first, own.end - own.first, &mine);
    uint64_t *end = xcalloc((size_t)c->world, sizeof *end);
    char *all;
    bool ok = comm_collect(c, "completions", mine.s, mine.n, &all, end, e);
    for (int r = 0; ok && r < c->world; r++) {
        const char *from = all + (r ? end[r - 1] : 0);
        RankRange s = range_of(c, r, b->prompts);
        if (r != c->rank && !batch_unpack_prompts(b, s.first, s.end - s.first, from, (size_t)(all + end[r] - from)))
            ok = error_set(e, EXIT_COMM, "what rank %d sent as its completions is none; please report it", r);
    }
    if (ok) free(all);
    free(end);
    str_free(&mine);
    return ok;
}

bool ranks_exchange_rewards(Comm *c, const Rewards *rw, Error *e) {
    int n = rw->n + (rw->grader.info != NULL);
    size_t world = (size_t)comm_world(c), row = (size_t)n;
    RewardTally *own = xcalloc(row + 1, sizeof *own), *all = xcalloc(world * row + 1, sizeof *all);
    for (int k = 0; k < n; k++) own[k] = reward_tally(k < rw->n ? &rw->reward[k] : &rw->grader);
    bool told = !c || comm_gather(c, "rewards", own, row * sizeof *own, all, e), ok = told;
    if (!c) memcpy(all, own, row * sizeof *own);
    for (int k = 0; k < n && told; k++) { // all are told, also behind one that ends the run
        for (size_t r = 1; r < world; r++) reward_tally_join(&all[k], &all[r * row + (size_t)k]);
        ok = reward_take_tally(k < rw->n ? &rw->reward[k] : &rw->grader, &all[k], !comm_rank(c), ok ? e : NULL) && ok;
    }
    free(own), free(all);
    return ok;
}

bool ranks_exchange_tokens(Comm *c, const Batch *b, const char *name, float *column, const int *seq, int n, Error *e) {
    if (!c) return true;
    uint64_t *end = xcalloc((size_t)c->world, sizeof *end), total = 0;
    for (int r = 0; r < c->world; r++) {
        RankRange s = range_of(c, r, n);
        for (int j = s.first; j < s.end; j++) total += (uint64_t)b->len[seq[j]] * sizeof *column;
        end[r] = total;
    }
    char *all = xmalloc(total), *at = all;
    for (int j = 0; j < n; at += (size_t)b->len[seq[j++]] * 4)
        memcpy(at, column + (size_t)seq[j] * (size_t)b->max_completion, (size_t)b->len[seq[j]] * 4);
    bool ok = comm_exchange(c, name, all, end, e);
    at = all;
    for (int j = 0; ok && j < n; at += (size_t)b->len[seq[j++]] * 4)
        memcpy(column + (size_t)seq[j] * (size_t)b->max_completion, at, (size_t)b->len[seq[j]] * 4);
    free(all);
    free(end);
    return ok;
}

bool ranks_exchange_metrics(Comm *c, Generation *g, const int *seq, int n, Error *e) {
    if (!c) return true;
    uint64_t *end = xcalloc((size_t)c->world, sizeof *end);
    for (int r = 0; r < c->world; r++) end[r] = (uint64_t)range_of(c, r, n).end * sizeof *g->metric;
    float(*all)[GM_COUNT] = xcalloc((size_t)n, sizeof *all);
    for (int j = 0; j < n; j++) memcpy(all[j], g->metric[seq[j]], sizeof *all);
    bool ok = comm_exchange(c, "loss", all, end, e);
    for (int j = 0; ok && j < n; j++) {
        memcpy(g->metric[seq[j]], all[j], sizeof *all);
        g->batch.loss[seq[j]] = all[j][GM_LOSS];
        g->batch.state[seq[j]] = SEQ_TRAINED;
    }
    free(all);
    free(end);
    return ok;
}

bool ranks_exchange_stats(Comm *c, const StepStats *own, StepStats *all, Error *e) {
    all[0] = *own;
    return !c || comm_gather(c, "stats", own, sizeof *own, all, e);
}
