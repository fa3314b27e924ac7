// Rewards that verify a mathematical answer; rewards/registry.c says what each one gives.
#pragma once
#include "samples.h"

// accuracy.c: whether a completion's answer means the same as gold. Options that are all 0 give what TRL does.
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
