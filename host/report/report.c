// report.html from the logs of runs. See report.h.
#include "curves.h"
#include "file.h"
#include "groups.h"
#include "page.h"
#include "record.h"
#include "report.h"
#include "tail.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    CELLS = 160 << 10,      // numbers of all runs together, at most 19 bytes each
    GROUP_BYTES = 7 << 19,  // completions of all runs together
    GROUP_FLOOR = 32 << 10, // of one run
};

typedef struct {
    const char *dir;
    Tail metrics_log, completions_log;
    Curves train, eval;
    Groups groups;
} Run;

struct Report {
    int n;
    Run *run; // [n]
};

static Run run_new(const char *dir, int runs) {
    size_t bytes = GROUP_BYTES / (size_t)runs;
    return (Run){.dir = dir,
                 .metrics_log = tail_open(dir, "metrics.jsonl"),
                 .completions_log = tail_open(dir, "completions.jsonl"),
                 .train = curves_new(CELLS * 7 / 8 / runs),
                 .eval = curves_new(CELLS / 8 / runs),
                 .groups = groups_new(bytes > GROUP_FLOOR ? bytes : GROUP_FLOOR)};
}

Report *report_open(const char *const *dirs, int n) {
    Report *r = xcalloc(1, sizeof *r);
    r->n = n;
    r->run = xcalloc((size_t)n, sizeof *r->run);
    for (int i = 0; i < n; i++) r->run[i] = run_new(dirs[i], n);
    return r;
}

Report *report_open_live(const char *dir, int metrics, int completions) {
    Report *r = report_open(&dir, 1);
    r->run->metrics_log.fd = metrics;
    r->run->completions_log.fd = completions;
    return r;
}

void report_close(Report *r) {
    if (!r) return;
    for (int i = 0; i < r->n; i++) {
        tail_close(&r->run[i].metrics_log), tail_close(&r->run[i].completions_log);
        curves_free(&r->run[i].train), curves_free(&r->run[i].eval);
        groups_free(&r->run[i].groups);
    }
    free(r->run);
    free(r);
}

// ---- reading ---------------------------------------------------------------------------------------------------------

static void metrics_line(void *to, char *s, size_t n) {
    Run *run = to;
    curves_add(strstr(s, "\"eval/") ? &run->eval : &run->train, s, n);
}
static void metrics_again(void *to) {
    Run *run = to;
    int train = run->train.cells, eval = run->eval.cells;
    curves_free(&run->train), curves_free(&run->eval);
    run->train = curves_new(train), run->eval = curves_new(eval);
}
static void completions_line(void *to, char *s, size_t n) { groups_add(&((Run *)to)->groups, s, n); }
static void completions_again(void *to) {
    Run *run = to;
    size_t budget = run->groups.budget;
    groups_free(&run->groups);
    run->groups = groups_new(budget);
}

bool report_read(Report *r, Error *e) {
    for (int i = 0; i < r->n; i++) {
        Run *run = &r->run[i];
        if (access(run->metrics_log.path, F_OK) && access(run->completions_log.path, F_OK))
            return error_set(e, EXIT_INPUT,
                             "%s: holds no metrics.jsonl and no completions.jsonl; name the output_dir of a run",
                             run->dir);
        if (!tail_read(&run->metrics_log, metrics_line, metrics_again, run, e) ||
            !tail_read(&run->completions_log, completions_line, completions_again, run, e))
            return false;
    }
    return true;
}

// ---- the data of a page ----------------------------------------------------------------------------------------------

static int step_of(const struct dirent *entry) {
    const char *s = entry->d_name;
    return !strncmp(s, "step_", 5) && s[5] && !s[5 + strspn(s + 5, "0123456789")];
}

static void add_checkpoints(Str *s, const char *dir) {
    struct dirent **entry;
    int n = scandir(dir, &entry, step_of, versionsort);
    str_puts(s, ",\n\"checkpoints\": [");
    for (int i = 0; i < n; i++) {
        str_printf(s, "%s%s", i ? ", " : "", entry[i]->d_name + 5);
        free(entry[i]);
    }
    if (n >= 0) free(entry);
    str_puts(s, "]");
}

static void add_run(Str *s, Run *run) {
    str_puts(s, "{\"dir\": ");
    str_json(s, run->dir, strlen(run->dir));
    str_puts(s, ",\n\"record\": ");
    record_json(run->dir, s);
    add_checkpoints(s, run->dir);
    str_puts(s, ",\n\"train\": ");
    curves_json(&run->train, s);
    str_puts(s, ",\n\"eval\": ");
    curves_json(&run->eval, s);
    str_puts(s, ",\n\"completions\": ");
    groups_json(&run->groups, s);
    str_printf(s, ",\n\"half\": %s, \"long\": %lld}",
               run->metrics_log.half || run->completions_log.half ? "true" : "false",
               (long long)(run->metrics_log.skipped + run->completions_log.skipped));
}

bool report_write(Report *r, const char *path, bool live, Error *e) {
    Str data = {0}, page = {0};
    char now[40];
    time_t seconds = time(NULL);
    struct tm utc;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    str_printf(&data, "{\"made\": \"%s\", \"live\": %s, \"runs\": [", now, live ? "true" : "false");
    for (int i = 0; i < r->n; i++) {
        if (i) str_puts(&data, ",\n");
        add_run(&data, &r->run[i]);
    }
    str_puts(&data, "]}");
    page_make(&page, data.s, data.n);
    bool ok = page_write(&page, path, e);
    str_free(&data);
    str_free(&page);
    return ok;
}
