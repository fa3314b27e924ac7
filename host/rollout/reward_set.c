// Which rewards a run has, and what is done with whole batches of scores. Scoring itself is in scorer.c.
#include "random.h"
#include "reward_set.h"
#include <stdlib.h>
#include <string.h>

bool rewards_select(const Config *c, Rewards *out, Error *e) {
    *out = (Rewards){.n = c->rewards.n};
    if (out->n > MAX_REWARDS)
        return error_set(e, EXIT_CONFIG, "rewards: %d are selected, at most %d can be", out->n, MAX_REWARDS);
    if (!out->n) return error_set(e, EXIT_CONFIG, "rewards: none selected; see `grpo reward --list`");
    for (int k = 0; k < out->n; k++)
        if (!reward_parse(c->rewards.item[k], &out->reward[k], e)) return error_prefix(e, "rewards");
    return !*c->eval_grader || reward_parse(c->eval_grader, &out->grader, e) || error_prefix(e, "eval_grader");
}

bool rewards_open(Rewards *rw, Error *e) {
    for (int k = 0; k < rw->n; k++) {
        if (reward_open(&rw->reward[k], e)) continue;
        rewards_close(rw);
        return error_prefix(e, "rewards");
    }
    if (!rw->grader.info || reward_open(&rw->grader, e)) return true;
    rewards_close(rw);
    return error_prefix(e, "eval_grader");
}

void rewards_note(const Rewards *rw) {
    for (int k = 0; k <= rw->n; k++) {
        const Reward *r = k < rw->n ? &rw->reward[k] : &rw->grader;
        Str s = {0};
        for (int f = 0; f < REWARD_FAULTS; f++) {
            int64_t n = reward_faults(r, f);
            if (n) str_printf(&s, "%s%s %lld", s.n ? ", " : "", reward_fault_name[f], (long long)n);
        }
        if (s.n) note("reward %s: completions without a proper score: %s", r->name, s.s);
        str_free(&s);
    }
}

void rewards_close(Rewards *rw) {
    for (int k = 0; k < rw->n; k++) reward_close(&rw->reward[k]);
    reward_close(&rw->grader);
}

void rewards_grade(const Rewards *rw, const Batch *b, bool *right) {
    for (int i = 0; i < b->n; i++) {
        const Sample s = {.prompt = b->question[i / b->group],
                          .completion = b->text[i],
                          .completion_len = strlen(b->text[i]),
                          .answer = b->answer[i / b->group],
                          .ids = b->ids + (size_t)i * (size_t)b->max_completion,
                          .n_ids = b->len[i],
                          .group = i / b->group};
        float score;
        rw->grader.info->fn(&rw->grader, &s, 1, &score);
        right[i] = score > 0.5f; // an abstention is not right
    }
}

// The control experiment: completions keep their texts and get somebody else's scores.
void rewards_shuffle(Batch *b, uint64_t seed, uint64_t stream) {
    float *row = xmalloc((size_t)b->n_rewards * sizeof *row);
    size_t bytes = (size_t)b->n_rewards * sizeof *row;
    for (int i = b->n - 1; i > 0; i--) {
        int j = (int)(random_bits(seed, stream, (uint64_t)i) % (uint64_t)(i + 1));
        memcpy(row, b->score + i * b->n_rewards, bytes);
        memcpy(b->score + i * b->n_rewards, b->score + j * b->n_rewards, bytes);
        memcpy(b->score + j * b->n_rewards, row, bytes);
        float r = b->reward[i];
        b->reward[i] = b->reward[j];
        b->reward[j] = r;
    }
    free(row);
}
