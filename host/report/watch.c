// Shows a run on a terminal. See watch.h.
#include "json.h"
#include "logs.h"
#include "record.h"
#include "runs.h"
#include "watch.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { CELLS = 64 << 10, SPARK_MOST = 48, TEXT_LINES = 8 };

struct Watch {
    RunLogs logs; // of the groups only the last is used
    double steps; // of the whole run; NaN: unknown
    bool pairs;   // it trains a reward model: accuracy is that of pairs
};

Watch *watch_open(const char *dir) {
    Watch *w = xcalloc(1, sizeof *w);
    *w = (Watch){.logs = logs_open(dir, CELLS, 1), .steps = NAN};
    return w;
}

void watch_close(Watch *w) {
    if (!w) return;
    logs_close(&w->logs);
    free(w);
}

static void read_record(Watch *w) {
    Str text = {0};
    record_json(w->logs.dir, &text);
    json_t *j = json_parse(text.s, text.n, "", NULL);
    const json_t *steps = json_object_get(j, "steps");
    const char *command = json_string_value(json_object_get(j, "command"));
    w->steps = json_is_number(steps) ? json_number_value(steps) : NAN;
    w->pairs = command && !strcmp(command, "reward_model");
    json_decref(j);
    str_free(&text);
}

bool watch_read(Watch *w, bool *changed, Error *e) {
    int64_t before = w->logs.metrics_log.offset + w->logs.completions_log.offset;
    if (!logs_read(&w->logs, e)) return false;
    curves_show(&w->logs.train);
    curves_show(&w->logs.eval);
    *changed = w->logs.metrics_log.offset + w->logs.completions_log.offset != before;
    if (*changed) read_record(w);
    return true;
}

// The finite values of column `name`: *n of them, on the heap; NULL where there are none.
static double *values_of(const Curves *c, const char *name, int *n) {
    *n = 0;
    for (int k = 0; k < c->n_columns; k++) {
        if (strcmp(c->column[k].name, name)) continue;
        double *v = xmalloc((size_t)(c->rows + 1) * sizeof *v);
        for (int r = 0; r < c->rows; r++)
            if (isfinite(c->column[k].value[r])) v[(*n)++] = c->column[k].value[r];
        if (*n) return v;
        free(v);
    }
    return NULL;
}

static double last_step(const Watch *w) {
    int n;
    double *steps = values_of(&w->logs.train, "step", &n), step = steps ? steps[n - 1] : 0;
    free(steps);
    return step;
}

bool watch_finished(const Watch *w) { return w->steps > 0 && last_step(w) >= w->steps; }

// ---- the view -------------------------------------------------------------------------------------------------------

// Appends a line, cut to `columns` columns.
static void add_line(Str *out, const char *text, size_t n, int columns) {
    size_t at = 0;
    for (int used = 0; at < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c);
        if (bytes < 1) break;
        used += utf8proc_charwidth(c);
        if (used > columns) break;
        at += (size_t)bytes;
    }
    str_add(out, text, at);
    str_puts(out, "\n");
}

// Appends a sparkline: v[n] is split into as many pieces as fit `width`, and each piece's mean is one mark.
static void add_spark(Str *s, const double *v, int n, int width, bool utf8) {
    static const char *const marks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}, *const plain[] = {"_", ".", ":", "-",
                                                                                                   "=", "+", "*", "#"};
    if (width > n) width = n;
    double *mean = xcalloc((size_t)width, sizeof *mean), low = INFINITY, high = -INFINITY;
    for (int i = 0; i < width; i++) {
        int from = (int)((int64_t)n * i / width), to = (int)((int64_t)n * (i + 1) / width);
        for (int k = from; k < to; k++) mean[i] += v[k] / (to - from);
        low = fmin(low, mean[i]), high = fmax(high, mean[i]);
    }
    for (int i = 0; i < width; i++) {
        int level = high > low ? (int)((mean[i] - low) / (high - low) * 7.999) : 0;
        str_puts(s, (utf8 ? marks : plain)[level]);
    }
    free(mean);
}

static void add_number(Str *out, const Curves *c, const char *name, const char *label, int columns, bool utf8) {
    int n;
    double *v = values_of(c, name, &n);
    if (!v) return;
    Str line = {0};
    str_printf(&line, "%-20s %10.4g  ", label, v[n - 1]);
    int width = columns - (int)line.n;
    if (width > 0) add_spark(&line, v, n, width < SPARK_MOST ? width : SPARK_MOST, utf8);
    add_line(out, line.s, line.n, columns);
    str_free(&line);
    free(v);
}

static void add_completion(Str *out, const char *which, const json_t *row, int columns) {
    const json_t *reward = json_object_get(row, "reward"), *advantage = json_object_get(row, "advantage");
    const char *text = json_string_value(json_object_get(row, "completion"));
    Str line = {0}, shown = {0};
    str_printf(&line, "%s: reward %g, advantage %+g%s", which, json_number_value(reward), json_number_value(advantage),
               json_is_true(json_object_get(row, "truncated")) ? ", truncated" : "");
    add_line(out, line.s, line.n, columns);
    if (text) str_visible(&shown, text, strnlen(text, 4096));
    const char *at = shown.n ? shown.s : "";
    for (int lines = 0; *at && lines < TEXT_LINES; lines++) {
        size_t n = strcspn(at, "\n");
        str_clear(&line);
        str_puts(&line, "  ");
        for (size_t i = 0; i < n; i++) str_add(&line, at[i] == '\t' ? " " : at + i, 1);
        add_line(out, line.s, line.n, columns);
        at += n + (at[n] == '\n');
    }
    if (*at) str_puts(out, "  ...\n");
    str_free(&line), str_free(&shown);
}

// Appends the best and the worst completion of the last group.
static void add_group(const Watch *w, Str *out, int columns) {
    json_t *best = NULL, *worst = NULL;
    int n = 0;
    for (const char *line = w->logs.groups.raw.s, *end; line && *line; line = end + 1) {
        end = strchr(line, '\n');
        json_t *row = json_parse(line, (size_t)(end - line), "", NULL);
        const json_t *reward = json_object_get(row, "reward");
        if (json_is_number(reward)) {
            double x = json_number_value(reward);
            n++;
            if (!best || x > json_number_value(json_object_get(best, "reward")))
                json_decref(best), best = json_incref(row);
            if (!worst || x <= json_number_value(json_object_get(worst, "reward")))
                json_decref(worst), worst = json_incref(row);
        }
        json_decref(row);
    }
    if (!n) return;
    Str line = {0}, shown = {0};
    const char *prompt = json_string_value(json_object_get(best, "prompt")),
               *answer = json_string_value(json_object_get(best, "answer"));
    str_printf(&line, "last group, step %lld, %d completions; gold answer %s",
               (long long)json_integer_value(json_object_get(best, "step")), n, answer ? answer : "?");
    str_visible(&shown, line.s, line.n);
    str_puts(out, "\n");
    add_line(out, shown.s, strcspn(shown.s, "\n"), columns);
    str_clear(&shown);
    str_puts(&shown, "  ");
    if (prompt) str_visible(&shown, prompt, strnlen(prompt, 1024));
    add_line(out, shown.s, strcspn(shown.s, "\n"), columns);
    add_completion(out, n > 1 ? "best" : "completion", best, columns);
    if (n > 1) add_completion(out, "worst", worst, columns);
    json_decref(best), json_decref(worst);
    str_free(&line), str_free(&shown);
}

void watch_view(Watch *w, int columns, int rows, bool utf8, Str *out) {
    static const struct {
        bool eval;
        const char *name, *label, *of_pairs;
    } numbers[] = {{false, "reward", "reward"},
                   {false, "accuracy", "accuracy", "accuracy of pairs"},
                   {false, "lenient_accuracy", "lenient accuracy"},
                   {true, "eval/accuracy", "accuracy, held out", "pairs, held out"},
                   {false, "completions/mean_length", "length"},
                   {false, "kl", "KL"},
                   {false, "entropy", "entropy"},
                   {false, "loss", "loss"},
                   {false, "grad_norm", "gradient norm"},
                   {false, "step_time", "seconds a step"}};
    Str line = {0}, shown = {0};
    size_t begin = out->n;
    str_visible(&shown, w->logs.dir, strlen(w->logs.dir));
    str_printf(&line, "step %.0f", last_step(w));
    if (isfinite(w->steps)) str_printf(&line, " of %.0f", w->steps);
    bool goes_on = run_goes_on(w->logs.dir);
    if (!watch_finished(w) && !goes_on) str_puts(&line, ", not running here");
    str_printf(&line, "  %s", shown.s);
    add_line(out, line.s, strcspn(line.s, "\n"), columns);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        add_number(out, numbers[i].eval ? &w->logs.eval : &w->logs.train, numbers[i].name,
                   w->pairs && numbers[i].of_pairs ? numbers[i].of_pairs : numbers[i].label, columns, utf8);
    str_clear(&line);
    logs_say_damage(&w->logs, goes_on, &line);
    if (line.n) add_line(out, line.s, line.n, columns);
    add_group(w, out, columns);
    char *end = out->s + begin;
    for (int i = 0; rows && i < rows && end; i++)
        end = i + 1 < rows || *end ? strchr(end, '\n') ? strchr(end, '\n') + 1 : NULL : NULL;
    if (rows && end) out->n = (size_t)(end - out->s), *end = 0;
    str_free(&line), str_free(&shown);
}
