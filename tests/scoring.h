// One completion through one reward.
#pragma once
#include "data.h"
#include "near.h"
#include "reward.h"
#include <string.h>

static inline Reward reward_opened(const char *spec) {
    Reward r;
    Error e = {0};
    if (!reward_parse(spec, &r, &e) || !reward_open(&r, &e)) fail_msg("%s", e.text);
    return r;
}

static inline float score_by(const Reward *r, const char *completion, const char *answer) {
    Sample s = {
        .prompt = "", .completion = completion, .completion_len = strlen(completion), .answer = answer ? answer : ""};
    float score;
    r->info->fn(r, &s, 1, &score);
    return score;
}

static inline float score_text(const char *spec, const char *completion, const char *answer) {
    Reward r = reward_opened(spec);
    float score = score_by(&r, completion, answer);
    reward_close(&r);
    return score;
}

// The reward is well written, and cannot be opened: the error says `expected`.
static inline void assert_cannot_open(const char *spec, const char *expected) {
    Reward r;
    Error e = {0};
    if (!reward_parse(spec, &r, &e)) fail_msg("%s", e.text);
    if (reward_open(&r, &e)) {
        reward_close(&r);
        fail_msg("%s was opened", spec);
    }
    if (!strstr(e.text, expected)) fail_msg("'%s' is not in: %s", expected, e.text);
    assert_null(strchr(e.text, '\n'));
    assert_int_not_equal(e.code, EXIT_OK);
}
