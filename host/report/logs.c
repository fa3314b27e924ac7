// One run's logs. See logs.h.
#include "logs.h"
#include <string.h>

RunLogs logs_open(const char *dir, int cells, size_t bytes) {
    return (RunLogs){.dir = dir,
                     .metrics_log = tail_open(dir, "metrics.jsonl"),
                     .completions_log = tail_open(dir, "completions.jsonl"),
                     .train = curves_new(cells / 8 * 7),
                     .eval = curves_new(cells / 8),
                     .groups = groups_new(bytes)};
}

void logs_close(RunLogs *l) {
    tail_close(&l->metrics_log), tail_close(&l->completions_log);
    curves_free(&l->train), curves_free(&l->eval);
    groups_free(&l->groups);
}

static void metrics_line(void *to, char *s, size_t n) {
    RunLogs *l = to;
    curves_add(strstr(s, "\"eval/") ? &l->eval : &l->train, s, n);
}
static void metrics_again(void *to) {
    RunLogs *l = to;
    int train = l->train.cells, eval = l->eval.cells;
    curves_free(&l->train), curves_free(&l->eval);
    l->train = curves_new(train), l->eval = curves_new(eval);
}
static void completions_line(void *to, char *s, size_t n) { groups_add(&((RunLogs *)to)->groups, s, n); }
static void completions_again(void *to) {
    RunLogs *l = to;
    size_t budget = l->groups.budget;
    groups_free(&l->groups);
    l->groups = groups_new(budget);
}

void logs_say_damage(const RunLogs *l, bool goes_on, Str *out) {
    int64_t torn = l->train.torn + l->eval.torn + l->groups.torn;
    int64_t skipped = l->metrics_log.skipped + l->completions_log.skipped;
    const char *between = "";
    if (torn) str_printf(out, "%lld lines of its logs cannot be read", (long long)torn), between = "; ";
    if (skipped)
        str_printf(out, "%s%lld lines are longer than 16 MiB and are left out", between, (long long)skipped),
            between = "; ";
    if (!goes_on && (l->metrics_log.half || l->completions_log.half))
        str_printf(out, "%sa log ends in half a line", between);
}

bool logs_read(RunLogs *l, Error *e) {
    return tail_read(&l->metrics_log, metrics_line, metrics_again, l, e) &&
           tail_read(&l->completions_log, completions_line, completions_again, l, e);
}
