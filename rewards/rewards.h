// The rewards, family by family; rewards/registry.c says what each one gives.
#pragma once
#include "reward.h"
#include "text.h"
#include <jansson.h>

static inline Text sample_text(const Sample *s) { return (Text){s->completion, s->completion_len}; }

// A reward that scores each sample by itself: NAME(const Reward *, const Sample *) -> double becomes a RewardFn.
#define REWARD_EACH(fn, one)                                                                                           \
    void fn(const Reward *r, const Sample *samples, int n, float *score) {                                             \
        for (int i = 0; i < n; i++) score[i] = (float)one(r, &samples[i]);                                             \
    }

// recipe.c
RewardFn reward_xmlcount, reward_soft_format, reward_strict_format, reward_int, reward_correctness,
    reward_completion_length, reward_think_answer_format;

// format.c
RewardFn reward_format, reward_tag_count, reward_reasoning_steps, reward_think_format, reward_code_format;

// accuracy.c: whether a completion's answer means the same as gold. Zero options are Open R1's way.
typedef struct {
    int extract;       // 0: LaTeX in a box or behind "answer"; 1: any LaTeX or number; 2: any LaTeX; 3: any number
    bool gold_latex;   // gold is one formula, without dollar signs
    int precision;     // decimals that floats are compared to
    bool any_variable; // a sole variable may have another name
    bool set_relation; // a relation may stand for a set that gold gives
} VerifyOptions;
typedef enum { VERDICT_WRONG, VERDICT_RIGHT, VERDICT_NO_GOLD } Verdict;
#define VERIFY_DEFAULTS                                                                                                \
    { .precision = 6 }
void verify_samples(const VerifyOptions *o, const Sample *samples, int n, Verdict *verdict); // verdict: [n]
RewardFn reward_accuracy, reward_reasoning_accuracy;

// length.c
RewardFn reward_length, reward_cosine, reward_soft_overlong;

// repetition.c
RewardFn reward_repetition_penalty;

// gsm8k.c
RewardFn reward_gsm8k_strict, reward_gsm8k_flexible;

// language.c
void *open_language(const Reward *r, Error *e);
void close_language(void *data);
RewardFn reward_language;

// pattern.c
void *open_regex(const Reward *r, Error *e);
void close_regex(void *data);
RewardFn reward_regex;

// code.c
void *open_code(const Reward *r, Error *e);
void close_code(void *data);
RewardFn reward_code, reward_binary_code;

// external.c
void *open_external(const Reward *r, Error *e);
void close_external(void *data);
RewardFn reward_external;
// The scores of a reply; false where it does not hold exactly n numbers or nulls (REWARD_ABSTAINS).
bool external_scores(const json_t *reply, int n, float *score);

// plugin.c
void *open_plugin(const Reward *r, Error *e);
void close_plugin(void *data);
RewardFn reward_plugin_score;

// judge.c
void *open_judge(const Reward *r, Error *e);
void close_judge(void *data);
RewardFn reward_judge;
