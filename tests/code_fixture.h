// What the tests of code rewards share.
#pragma once
#include "scoring.h"

// The reward, opened; the test is skipped, aloud, where a sandbox or the language is not to be had here.
static inline Reward need(const char *test, const char *spec) {
    Reward r;
    Error e = {0};
    if (!reward_parse(spec, &r, &e)) fail_msg("%s", e.text);
    if (reward_open(&r, &e)) return r;
    if (!strstr(e.text, "no sandbox") && !strstr(e.text, "no python3") && !strstr(e.text, "compiler under /usr"))
        fail_msg("%s", e.text);
    printf("SKIP %s: %s\n", test, e.text);
    skip();
    return r;
}

static inline char *fenced(const char *language, const char *code) {
    return xasprintf("Here it is:\n```%s\n%s\n```\nDone.", language, code);
}

static inline float run_code(const Reward *r, const char *language, const char *code, const char *gold) {
    char *text = fenced(language, code);
    float score = score_by(r, text, gold);
    free(text);
    return score;
}

static inline float run_python(const Reward *r, const char *code, const char *gold) {
    return run_code(r, "python", code, gold);
}
