// metrics.jsonl and completions.jsonl: one JSON object a line, written in whole lines at the end of a step.
#include "line_log.h"
#include "metrics.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct Metrics {
    Log metrics, completions;
};

Metrics *metrics_open(const char *output_dir, int64_t metrics_lines, int64_t completions_lines, Error *e) {
    Metrics *m = xcalloc(1, sizeof *m);
    m->metrics.fd = m->completions.fd = -1;
    if (log_open(&m->metrics, output_dir, "metrics.jsonl", metrics_lines, e) &&
        log_open(&m->completions, output_dir, "completions.jsonl", completions_lines, e))
        return m;
    metrics_close(m);
    return NULL;
}

void metrics_close(Metrics *m) {
    if (!m) return;
    log_close(&m->metrics);
    log_close(&m->completions);
    free(m);
}

// JSON has no NaN and no infinity; nine digits bring every f32 back.
static void add_number(Str *s, double x) {
    if (isfinite(x)) str_printf(s, "%.9g", x);
    else str_puts(s, "null");
}

static void add_key(Str *s, const char *name) {
    str_puts(s, s->n && s->s[s->n - 1] != '\n' ? ", " : "{");
    str_json(s, name, strlen(name));
    str_puts(s, ": ");
}

void metrics_add(Metrics *m, const char *name, double value) {
    add_key(&m->metrics.pending, name);
    add_number(&m->metrics.pending, value);
}

void metrics_add_int(Metrics *m, const char *name, int64_t value) {
    add_key(&m->metrics.pending, name);
    str_printf(&m->metrics.pending, "%lld", (long long)value);
}

static void add_text(Str *s, const char *name, const char *text) {
    add_key(s, name);
    str_json(s, text, strlen(text));
}

void metrics_completion(Metrics *m, const CompletionRecord *r) {
    Str *s = &m->completions.pending;
    add_key(s, "step");
    str_printf(s, "%lld", (long long)r->step);
    add_text(s, "prompt", r->prompt);
    add_text(s, "completion", r->completion);
    add_text(s, "answer", r->answer);
    add_key(s, "rewards");
    str_puts(s, "{");
    for (int i = 0; i < r->n_rewards; i++) {
        if (i) str_puts(s, ", ");
        str_json(s, r->reward_names[i], strlen(r->reward_names[i]));
        str_puts(s, ": ");
        add_number(s, (double)r->score[i]);
    }
    str_puts(s, "}");
    add_key(s, "reward");
    add_number(s, (double)r->reward);
    add_key(s, "advantage");
    add_number(s, (double)r->advantage);
    add_key(s, "truncated");
    str_puts(s, r->truncated ? "true}\n" : "false}\n");
}

bool metrics_commit(Metrics *m, Error *e) {
    if (m->metrics.pending.n) str_puts(&m->metrics.pending, "}\n");
    return log_commit(&m->metrics, e) && log_commit(&m->completions, e);
}

void metrics_files(const Metrics *m, int *metrics, int *completions) {
    *metrics = m->metrics.fd;
    *completions = m->completions.fd;
}

bool metrics_sync(Metrics *m, int64_t *metrics_lines, int64_t *completions_lines, Error *e) {
    *metrics_lines = m->metrics.lines;
    *completions_lines = m->completions.lines;
    return log_sync(&m->metrics, e) && log_sync(&m->completions, e);
}
