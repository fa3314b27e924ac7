// metrics.jsonl and completions.jsonl: one JSON object a line, written in whole lines at the end of a step.
#include "json.h"
#include "line_log.h"
#include "metrics.h"
#include "tail.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct Metrics {
    Log metrics, completions;
    Str last, eval;   // lines of metrics: the last step's, the last evaluation's
    bool evaluates;   // the line under way is an evaluation's
    EventLog *events; // or NULL
    int64_t step;     // of the line under way
    int texts;        // completions of the step that have gone to `events`
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

// Lines of metrics.jsonl that an event file lacks.
typedef struct {
    EventLog *events;
    int64_t last;        // step of the event file's end
    int of_last;         // lines of that step that it has
    int64_t first, step; // steps of the lines it got: the first, the last; 0: none
} Refill;

static void refill_line(void *to, char *line, size_t n) {
    Refill *r = to;
    json_t *row = json_parse(line, n, "", NULL), *value;
    int64_t step = json_integer_value(json_object_get(row, "step"));
    const char *name;
    bool lacks = step > r->last || (step == r->last && r->of_last-- <= 0);
    if (step > 0 && lacks) {
        json_object_foreach(row, name, value) if (json_is_number(value) && strcmp(name, "step"))
            events_number(r->events, step, name, json_number_value(value));
        events_commit(r->events);
        if (!r->first) r->first = step;
        r->step = step;
    }
    json_decref(row);
}

void metrics_events(Metrics *m, EventLog *l) {
    m->events = l;
    Refill r = {.events = l};
    r.last = events_last(l, &r.of_last);
    Tail log = {.path = m->metrics.path, .fd = m->metrics.fd};
    Error e = {0};
    if (!tail_read(&log, refill_line, NULL, &r, &e)) note("%s", e.text);
    if (r.first)
        note("events.out.tfevents.grpo lacked steps %lld to %lld; their numbers are written again from metrics.jsonl, "
             "with "
             "the time of now",
             (long long)r.first, (long long)r.step);
}

void metrics_close(Metrics *m) {
    if (!m) return;
    events_close(m->events);
    str_free(&m->last), str_free(&m->eval);
    log_close(&m->metrics);
    log_close(&m->completions);
    free(m);
}

static void add_key(Str *s, const char *name) {
    str_puts(s, s->n && s->s[s->n - 1] != '\n' ? ", " : "{");
    str_json(s, name, strlen(name));
    str_puts(s, ": ");
}

void metrics_add(Metrics *m, const char *name, double value) {
    add_key(&m->metrics.pending, name);
    str_json_number(&m->metrics.pending, value);
    m->evaluates |= !strncmp(name, "eval/", 5);
    events_number(m->events, m->step, name, value);
}

void metrics_add_int(Metrics *m, const char *name, int64_t value) {
    add_key(&m->metrics.pending, name);
    str_printf(&m->metrics.pending, "%lld", (long long)value);
    if (!strcmp(name, "step")) m->step = value;
    else events_number(m->events, m->step, name, (double)value);
}

static void add_text(Str *s, const char *name, const char *text) {
    add_key(s, name);
    str_json(s, text, strlen(text));
}

// The first bytes of a text, whole characters.
static void add_head(Str *s, const char *text, size_t most) {
    size_t n = strlen(text);
    for (n = n < most ? n : most; n && text[n] && ((unsigned char)text[n] & 0xc0) == 0x80; n--)
        ;
    str_add(s, text, n);
}

// Adds a few completions to TensorBoard's file. TensorBoard renders Markdown; indenting keeps a text as it is.
static void add_event(Metrics *m, const CompletionRecord *r) {
    enum { EVENT_STEPS = 10, EVENT_TEXTS = 2, EVENT_BYTES = 4096 }; // every 10th step, 2 texts, of 4096 bytes at most
    bool wanted = m->events && r->step == m->step && r->step % EVENT_STEPS == 1 && m->texts < EVENT_TEXTS;
    if (!wanted) return;
    Str s = {0}, text = {0};
    str_printf(&s, "reward %g, advantage %g\n\n", (double)r->reward, (double)r->advantage);
    add_head(&text, r->prompt, EVENT_BYTES);
    str_puts(&text, "\n\n");
    add_head(&text, r->completion, EVENT_BYTES);
    for (const char *line = text.s; *line;) {
        size_t n = strcspn(line, "\n");
        str_puts(&s, "    ");
        str_add(&s, line, n);
        str_puts(&s, "\n");
        line += n + (line[n] == '\n');
    }
    char *tag = xasprintf("train/completion %d", ++m->texts);
    events_text(m->events, r->step, tag, s.s);
    free(tag);
    str_free(&s), str_free(&text);
}

// Appends the tokens as [[text, log-prob, entropy], ...].
static void add_tokens(Str *s, const CompletionRecord *r) {
    add_key(s, "tokens");
    for (int i = 0; i < r->n_tokens; i++) {
        str_puts(s, i ? ", [" : "[[");
        str_json(s, r->piece[i], strlen(r->piece[i]));
        str_puts(s, ", ");
        str_json_number(s, (double)r->logp[i]);
        str_puts(s, ", ");
        str_json_number(s, (double)r->entropy[i]);
        str_puts(s, "]");
    }
    str_puts(s, "]");
}

void metrics_completion(Metrics *m, const CompletionRecord *r) {
    Str *s = &m->completions.pending;
    add_key(s, "step");
    str_printf(s, "%lld", (long long)r->step);
    if (r->file) add_text(s, "file", r->file);
    add_text(s, "prompt", r->prompt);
    add_text(s, "completion", r->completion);
    add_text(s, "answer", r->answer);
    add_key(s, "rewards");
    str_puts(s, "{");
    for (int i = 0; i < r->n_rewards; i++) {
        if (i) str_puts(s, ", ");
        str_json(s, r->reward_names[i], strlen(r->reward_names[i]));
        str_puts(s, ": ");
        str_json_number(s, (double)r->score[i]);
    }
    str_puts(s, "}");
    add_key(s, "reward");
    str_json_number(s, (double)r->reward);
    add_key(s, "advantage");
    str_json_number(s, (double)r->advantage);
    add_key(s, "truncated");
    str_puts(s, r->truncated ? "true" : "false");
    if (r->n_tokens) add_tokens(s, r);
    str_puts(s, "}\n");
    add_event(m, r);
}

bool metrics_commit(Metrics *m, Error *e) {
    events_commit(m->events);
    m->texts = 0;
    if (m->metrics.pending.n) {
        Str *last = m->evaluates ? &m->eval : &m->last;
        str_puts(&m->metrics.pending, "}");
        str_clear(last);
        str_add(last, m->metrics.pending.s, m->metrics.pending.n);
        str_puts(&m->metrics.pending, "\n");
        m->evaluates = false;
    }
    return log_commit(&m->metrics, e) && log_commit(&m->completions, e);
}

const char *metrics_last(const Metrics *m) { return m->last.n ? m->last.s : "{}"; }
const char *metrics_last_eval(const Metrics *m) { return m->eval.n ? m->eval.s : "{}"; }

void metrics_files(const Metrics *m, int *metrics, int *completions) {
    *metrics = m->metrics.fd;
    *completions = m->completions.fd;
}

bool metrics_sync(Metrics *m, int64_t *metrics_lines, int64_t *completions_lines, Error *e) {
    *metrics_lines = m->metrics.lines;
    *completions_lines = m->completions.lines;
    return log_sync(&m->metrics, e) && log_sync(&m->completions, e);
}
