// Rewards for the length of a completion, some of which depend on whether the answer is right.
#include "accuracy.h"
#include "rules.h"
#include <stdlib.h>

static Verdict *verify_all(const Sample *samples, int n) {
    VerifyOptions o = VERIFY_DEFAULTS;
    Verdict *verdict = xmalloc((size_t)n * sizeof *verdict);
    verify_samples(&o, samples, n, verdict);
    return verdict;
}

// The length reward of Kimi k1.5 (Kimi Team 2025, section 2.3.3): within a group 0.5 - (length - min) / (max - min),
// for a wrong answer at most 0. Where gold cannot be read, answers count as right, so that none is punished for it.
void reward_length(const Reward *r, const Sample *samples, int n, float *score) {
    Verdict *verdict = verify_all(samples, n);
    for (int i = 0, end; i < n; i = end) {
        size_t min = SIZE_MAX, max = 0;
        for (end = i; end < n && samples[end].group == samples[i].group; end++) {
            size_t length = text_length(sample_text(&samples[end]));
            if (length < min) min = length;
            if (length > max) max = length;
        }
        for (int k = i; k < end; k++) {
            double lambda = 0, length = (double)text_length(sample_text(&samples[k]));
            if (max > min) lambda = 0.5 - (length - (double)min) / (double)(max - min);
            score[k] = (float)(verdict[k] == VERDICT_WRONG ? fmin(0, lambda) : lambda);
        }
    }
    free(verdict);
}

// The cosine reward of Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning in LLMs": short right answers are
// better than long ones, and long wrong answers better than short ones.
void reward_cosine(const Reward *r, const Sample *samples, int n, float *score) {
    double min_wrong = reward_number(r, "min_value_wrong"), max_wrong = reward_number(r, "max_value_wrong");
    double min_right = reward_number(r, "min_value_correct"), max_right = reward_number(r, "max_value_correct");
    double max_len = reward_number(r, "max_len");
    bool clamp = reward_chose(r, "clamp", "yes"), tokens = reward_chose(r, "unit", "tokens");
    Verdict *verdict = verify_all(samples, n);
    for (int i = 0; i < n; i++) {
        double length = tokens ? samples[i].n_ids : (double)text_length(sample_text(&samples[i]));
        double progress = length / max_len, from = verdict[i] == VERDICT_RIGHT ? max_right : min_wrong;
        double to = verdict[i] == VERDICT_RIGHT ? min_right : max_wrong;
        if (clamp && progress > 1) progress = 1;
        score[i] = (float)(to + 0.5 * (from - to) * (1 + cos(progress * M_PI)));
        if (verdict[i] == VERDICT_NO_GOLD || (tokens && !samples[i].ids)) score[i] = REWARD_ABSTAINS;
    }
    free(verdict);
}

// DAPO's overlong punishment (Yu et al. 2025, equation 13): 0 up to max - cache tokens, then a line down to -1 at max.
static double soft_overlong(const Reward *r, const Sample *s) {
    double max = reward_number(r, "max_completion_len"), cache = reward_number(r, "soft_punish_cache");
    double length = s->n_ids;
    if (!s->ids) return REWARD_ABSTAINS;
    if (length <= max - cache) return 0;
    return length <= max ? (max - cache - length) / cache : -1;
}

REWARD_EACH(reward_soft_overlong, soft_overlong)
