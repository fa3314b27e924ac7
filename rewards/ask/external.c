// The reward `external`: asks a user's own program, by lines of JSON on its standard input and output.
//
// request  {"id": 7, "samples": [{"prompt": "..", "completion": "..", "answer": "..", "group": 0}, ..]}
// answer   {"id": 7, "scores": [1, 0.5, null, ..]}    one number for each sample; null abstains
//
// The first request is {"id": 0, "samples": []}. The program's standard error is shown only where something fails.
#include "ask.h"
#include "str.h"
#include "worker.h"
#include <stdlib.h>

typedef struct {
    char *command, *words; // as it was given, and cut up
    char **argv;           // [..] into words, NULL-terminated
    WorkerPool *pool;
} External;

static char **cut_words(char *text) {
    char **argv = NULL, *save = NULL;
    int n = 0;
    for (char *word = strtok_r(text, " \t\n", &save);; word = strtok_r(NULL, " \t\n", &save)) {
        argv = xrealloc(argv, (size_t)(n + 1) * sizeof *argv);
        argv[n++] = word;
        if (!word) return argv;
    }
}

void *open_external(const Reward *r, Error *e) {
    External *x = xcalloc(1, sizeof *x);
    x->command = xstrdup(reward_text(r, "command"));
    x->words = xstrdup(x->command);
    x->argv = cut_words(x->words);
    WorkerOptions o = {.name = x->command,
                       .command = {.argv = x->argv, .input = -1, .errors = true},
                       .workers = (int)reward_number(r, "workers"),
                       .timeout = reward_number(r, "timeout"),
                       .start_timeout = reward_number(r, "start_timeout")};
    if (!x->argv[0]) error_set(e, EXIT_CONFIG, "needs a program: external:command=...");
    else x->pool = workers_open(&o, e);
    if (x->pool) return x;
    close_external(x);
    return NULL;
}

void close_external(void *data) {
    External *x = data;
    if (x->pool) workers_close(x->pool);
    free(x->argv);
    free(x->words);
    free(x->command);
    free(x);
}

bool external_scores(const json_t *reply, int n, float *score) {
    const json_t *scores = json_object_get(reply, "scores"), *value;
    if (!json_is_array(scores) || json_array_size(scores) != (size_t)n) return false;
    size_t i;
    json_array_foreach(scores, i, value) {
        if (!json_is_number(value) && !json_is_null(value)) return false;
        score[i] = json_is_null(value) ? REWARD_ABSTAINS : (float)json_number_value(value);
        if (isinf(score[i])) return false; // too large for a score
    }
    return true;
}

static void write_sample(const Sample *s, Str *out) {
    str_puts(out, "{\"prompt\": ");
    str_json(out, s->prompt, strlen(s->prompt));
    str_puts(out, ", \"completion\": ");
    str_json(out, s->completion, s->completion_len);
    str_puts(out, ", \"answer\": ");
    str_json(out, s->answer, strlen(s->answer));
    str_printf(out, ", \"group\": %d}", s->group);
}

static void score_batch(const Reward *r, const Sample *samples, int n, float *score) {
    const External *x = reward_data(r);
    Str request = {0};
    str_puts(&request, "\"samples\": [");
    for (int i = 0; i < n; i++) {
        if (i) str_puts(&request, ", ");
        write_sample(&samples[i], &request);
    }
    str_puts(&request, "]");
    RewardFault why = REWARD_BAD_REPLY;
    json_t *reply = worker_ask(x->pool, request.s, 4096 + 64 * (size_t)n, &why);
    bool good = reply && external_scores(reply, n, score);
    if (reply && !good)
        workers_blame(x->pool, "its \"scores\" are not one number, within 3.4e38, or null for each sample");
    if (!good) {
        for (int i = 0; i < n; i++) score[i] = REWARD_ABSTAINS;
        reward_fault(r, why, n);
    }
    json_decref(reply);
    str_free(&request);
}

void reward_external(const Reward *r, const Sample *samples, int n, float *score) {
    int batch = (int)reward_number(r, "batch");
    for (int at = 0; at < n; at += batch) score_batch(r, samples + at, n - at < batch ? n - at : batch, score + at);
}
