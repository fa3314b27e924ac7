// A judge on the engine's device as tests open it: a puppet whose replies are known.
#pragma once
#include "chat.h"
#include "on_device.h"
#include "puppet.h"
#include "reward_models.h"
#include "scratch_run.h"
#include "near.h"
#include "tokenizer_edit.h"

// A judge that reads a letter and replies with its number, then ends; behind the chat template's last line it replies
// with 7. Other letters get no number.
static const Lead judge_leads[] = {
    {"a", "0", 20},          {"b", "1", 20},          {"c", "2", 20},          {"d", "3", 20},
    {"e", "4", 20},          {"f", "5", 20},          {"g", "6", 20},          {"h", "7", 20},
    {"i", "8", 20},          {"j", "9", 20},          {"\u010a", "7", 20},     {"0", "<|im_end|>", 20},
    {"1", "<|im_end|>", 20}, {"2", "<|im_end|>", 20}, {"3", "<|im_end|>", 20}, {"4", "<|im_end|>", 20},
    {"5", "<|im_end|>", 20}, {"6", "<|im_end|>", 20}, {"7", "<|im_end|>", 20}, {"8", "<|im_end|>", 20},
    {"9", "<|im_end|>", 20},
};
#define LEADS(table) table, (int)(sizeof(table) / sizeof *(table))
#define READS_LAST                                                                                                     \
    "chat_template=raw,template=Rate:\n{completion},pattern=^(\\d)$,max_tokens=4,max_prompt=64,parallel=3"

typedef struct {
    Rewards rw;
    Device *d;
    RewardModels *m;
} Opened;

static inline bool open_judge(Opened *o, Error *e, const char *fmt, ...) {
    char *spec, *rest;
    va_list ap;
    va_start(ap, fmt);
    assert_true(vasprintf(&rest, fmt, ap) > 0);
    va_end(ap);
    spec = xasprintf("judge_model:%s", rest);
    *o = (Opened){.rw.n = 1, .d = test_device(2)};
    bool ok = reward_parse(spec, &o->rw.reward[0], e) && reward_open(&o->rw.reward[0], e) &&
              (o->m = reward_models_open(&o->rw, F32, o->d, LOAD_STRICT, e));
    free(spec), free(rest);
    return ok;
}
static inline void close_judge(Opened *o) {
    reward_models_free(o->m);
    rewards_close(&o->rw);
    device_close(o->d);
}
#define OPENED(o, ...)                                                                                                 \
    Opened o;                                                                                                          \
    opened(open_judge(&o, &why, __VA_ARGS__))
static Error why;
static inline void opened(bool ok) {
    if (!ok) fail_msg("%s", why.text);
}

static inline void ask(Opened *o, const char *const *text, int n, float *score) {
    Sample *s = xcalloc((size_t)n, sizeof *s);
    Error e = {0};
    for (int i = 0; i < n; i++)
        s[i] = (Sample){.prompt = "why?", .completion = text[i], .completion_len = strlen(text[i]), .answer = "gold"};
    if (!reward_models_samples(o->m, o->d, s, n, score, &e)) fail_msg("%s", e.text);
    free(s);
}
static inline float ask_one(Opened *o, const char *text) {
    float score;
    ask(o, &text, 1, &score);
    return score;
}
static inline int64_t faults(const Opened *o, RewardFault f) { return reward_faults(&o->rw.reward[0], f); }

static char noted[4096];
static inline void keep_note(const char *text) {
    snprintf(noted + strlen(noted), sizeof noted - strlen(noted), "%s\n", text);
}
