// The reward `judge`: asks a language model for its opinion, over HTTP. What it is asked, and what its reply is worth,
// is in judging.c.
#include "ask.h"
#include "judge.h"
#include "judging.h"
#include "str.h"
#include "worker.h"
#include <stdio.h>
#include <stdlib.h>

#define BATCH 64

typedef struct {
    Judging *judging;
    char *url, *model, *key, *user;
    char *shown, *hello; // the URL without user and password; the first request
    JudgeServer server;
    WorkerPool *pool;
} Judge;

// ---- opening --------------------------------------------------------------------------------------------------------

static bool check_url(const char *url, Error *e) {
    const char *user = strstr(url, "://") + 3, *end = user + strspn(user, "*");
    return end == user || *end != '@' ||
           error_set(e, EXIT_CONFIG,
                     "url: this configuration was printed without the user and the password of the URL; leave `%.*s` "
                     "out and set GRPO_JUDGE_USER=user:password, or write them again",
                     (int)(end + 1 - user), user);
}

static char *const helper[] = {(char *)JUDGE_NAME, NULL};

void *open_judge(const Reward *r, Error *e) {
    Judge *j = xcalloc(1, sizeof *j);
    j->url = xstrdup(reward_text(r, "url"));
    for (size_t n = strlen(j->url); n && j->url[n - 1] == '/';) j->url[--n] = 0;
    if (check_url(j->url, e)) j->shown = xstrdup(j->url), str_hide_users(j->shown);
    j->model = xstrdup(reward_text(r, "model"));
    j->user = getenv("GRPO_JUDGE_USER") ? xstrdup(getenv("GRPO_JUDGE_USER")) : NULL;
    j->key = getenv("GRPO_JUDGE_KEY") ? xstrdup(getenv("GRPO_JUDGE_KEY")) : NULL;
    if (j->shown && judge_is_built(e) && (j->judging = judging_open(r, e))) {
        j->server = (JudgeServer){.url = j->url,
                                  .model = j->model,
                                  .key = j->key,
                                  .user = j->user,
                                  .parallel = (int)reward_number(r, "parallel"),
                                  .retries = (int)reward_number(r, "retries"),
                                  .max_tokens = (int)reward_number(r, "max_tokens"),
                                  .temperature = reward_number(r, "temperature"),
                                  .seed = (int64_t)reward_number(r, "seed"),
                                  .timeout = reward_number(r, "timeout")};
        j->hello = judge_hello(&j->server);
        WorkerOptions o = {.name = j->shown,
                           .command = {.argv = helper, .input = -1, .errors = true},
                           .hello = j->hello,
                           .workers = (int)reward_number(r, "workers"),
                           .start_timeout = 60,
                           .timeout = judge_patience(&j->server, BATCH)};
        j->pool = workers_open(&o, e);
    }
    if (j->pool) return j;
    close_judge(j);
    return NULL;
}

void close_judge(void *data) {
    Judge *j = data;
    if (j->pool) workers_close(j->pool);
    judging_close(j->judging);
    free(j->url);
    free(j->model);
    free(j->key);
    free(j->user);
    free(j->shown);
    free(j->hello);
    free(j);
}

// ---- scoring --------------------------------------------------------------------------------------------------------

static RewardFault fault_named(const json_t *name) {
    for (int f = 0; f < REWARD_FAULTS; f++)
        if (json_is_string(name) && !strcmp(json_string_value(name), reward_fault_name[f])) return (RewardFault)f;
    return REWARD_BAD_REPLY;
}

static bool ask(void *arg, const Text *prompt, int n, JudgeReply *reply, Error *e) {
    Judge *j = arg;
    Str request = {0};
    str_puts(&request, "\"samples\": [");
    for (int i = 0; i < n; i++) {
        if (i) str_puts(&request, ", ");
        str_json(&request, prompt[i].s, prompt[i].n);
    }
    str_puts(&request, "]");
    RewardFault why = REWARD_BAD_REPLY;
    json_t *answer = worker_ask(j->pool, request.s, (size_t)n * (7 << 20) + 65536, &why);
    const json_t *replies = json_object_get(answer, "replies"), *faults = json_object_get(answer, "faults");
    for (int i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(replies, (size_t)i));
        reply[i] = (JudgeReply){.fault = answer ? fault_named(json_array_get(faults, (size_t)i)) : why};
        if (text) reply[i].text = xstrdup(text);
        else if (reply[i].fault != REWARD_FAULTS) {
            char complaint[64];
            snprintf(complaint, sizeof complaint, "no reply: %s", reward_fault_name[reply[i].fault]);
            workers_blame(j->pool, complaint);
        }
    }
    json_decref(answer);
    str_free(&request);
    return true;
}

void reward_judge(const Reward *r, const Sample *samples, int n, float *score) {
    Judge *j = reward_data(r);
    Error none = {0};
    for (int at = 0; at < n; at += BATCH)
        judging_score(j->judging, r, samples + at, n - at < BATCH ? n - at : BATCH, ask, j, score + at, &none);
}
