// The reward `judge`: asks a language model for its opinion, over HTTP. What it is asked, and what its reply is worth,
// is in judging.c.
#include "ask.h"
#include "judge.h"
#include "judging.h"
#include "str.h"
#include "worker.h"
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

// A secret of the environment, on the heap; NULL where it is not there, or empty. False where it cannot be one: nothing
// of it is shown.
static bool take_secret(const char *name, bool pair, char **out, Error *e) {
    const char *value = getenv(name);
    *out = NULL;
    if (!value || !*value) return true;
    size_t n = strcspn(value, "\r\n");
    if (value[n])
        return error_set(e, EXIT_CONFIG, "%s: holds a line break%s; set it without: export %s=\"$(cat FILE)\"", name,
                         value[n + strspn(value + n, "\r\n")] ? "" : " at its end", name);
    for (const char *p = value; *p; p++)
        if (!pair && (*p < ' ' || *p > '~'))
            return error_set(
                e, EXIT_CONFIG,
                "%s: holds a character at byte %d that no header of HTTP may hold; set it to the key alone", name,
                (int)(p - value));
    if (pair && !strchr(value, ':'))
        return error_set(e, EXIT_CONFIG, "%s: has no colon; set it as user:password (user: where it is empty)", name);
    *out = xstrdup(value);
    return true;
}

static char *const helper[] = {(char *)JUDGE_NAME, NULL};

void *open_judge(const Reward *r, Error *e) {
    Judge *j = xcalloc(1, sizeof *j);
    j->url = xstrdup(reward_text(r, "url"));
    for (size_t n = strlen(j->url); n && j->url[n - 1] == '/';) j->url[--n] = 0;
    if (check_url(j->url, e)) j->shown = xstrdup(j->url), str_hide_users(j->shown);
    j->model = xstrdup(reward_text(r, "model"));
    bool secrets = j->shown && take_secret("GRPO_JUDGE_USER", true, &j->user, e) &&
                   take_secret("GRPO_JUDGE_KEY", false, &j->key, e);
    if (secrets && judge_is_built(e) && (j->judging = judging_open(r, e))) {
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
    const json_t *replies = json_object_get(answer, "replies"), *faults = json_object_get(answer, "faults"),
                 *causes = json_object_get(answer, "causes");
    for (int i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(replies, (size_t)i));
        reply[i] = (JudgeReply){.fault = answer ? fault_named(json_array_get(faults, (size_t)i)) : why};
        if (text) reply[i].text = xstrdup(text);
        else if (reply[i].fault != REWARD_FAULTS) {
            const json_t *cause = json_array_get(causes, (size_t)i);
            Str complaint = {0};
            str_printf(&complaint, "no reply (%s)", reward_fault_name[reply[i].fault]);
            if (json_is_string(cause)) {
                str_puts(&complaint, ": ");
                str_visible(&complaint, json_string_value(cause), json_string_length(cause));
            }
            for (size_t k = 0; k < complaint.n; k++)
                if (complaint.s[k] == '\n') complaint.s[k] = ' ';
            workers_blame(j->pool, complaint.s);
            reply[i].cause = complaint.s;
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
