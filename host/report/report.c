// report.html from the logs of runs. See report.h.
#include "checkpoint.h"
#include "logs.h"
#include "notes.h"
#include "page.h"
#include "picture.h"
#include "record.h"
#include "report.h"
#include "runs.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CELLS = 160 << 10,      // numbers of all runs together, at most 19 bytes each
    GROUP_BYTES = 7 << 19,  // completions of all runs together
    GROUP_FLOOR = 32 << 10, // completions of one run at least
};

struct Report {
    int n;
    RunLogs *run;  // [n]
    Str pipelines; // JSON objects {dir, phases}
};

Report *report_open(const char *const *dirs, int n) {
    Report *r = xcalloc(1, sizeof *r);
    r->n = n;
    r->run = xcalloc((size_t)n, sizeof *r->run);
    size_t bytes = GROUP_BYTES / (size_t)n;
    if (bytes < GROUP_FLOOR) bytes = GROUP_FLOOR;
    for (int i = 0; i < n; i++) r->run[i] = logs_open(dirs[i], CELLS / n, bytes);
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
    for (int i = 0; i < r->n; i++) logs_close(&r->run[i]);
    free(r->run);
    str_free(&r->pipelines);
    free(r);
}

bool report_read(Report *r, Error *e) {
    for (int i = 0; i < r->n; i++)
        if (!logs_read(&r->run[i], e)) return false;
    return true;
}

// ---- the data of a page ---------------------------------------------------------------------------------------------

static int is_checkpoint(const struct dirent *entry) {
    const char *suffix;
    return checkpoint_step(entry->d_name, &suffix) >= 0 && !*suffix;
}

static void add_checkpoints(Str *s, const char *dir) {
    struct dirent **entry;
    int n = scandir(dir, &entry, is_checkpoint, versionsort);
    str_puts(s, ",\n\"checkpoints\": [");
    for (int i = 0; i < n; i++) {
        const char *suffix;
        str_printf(s, "%s%lld", i ? ", " : "", (long long)checkpoint_step(entry[i]->d_name, &suffix));
        free(entry[i]);
    }
    if (n >= 0) free(entry);
    str_puts(s, "]");
}

static void add_run(Str *s, RunLogs *run) {
    str_puts(s, "{\"dir\": ");
    str_json(s, run->dir, strlen(run->dir));
    str_puts(s, ",\n\"record\": ");
    record_json(run->dir, s);
    add_checkpoints(s, run->dir);
    str_puts(s, ",\n\"notes\": ");
    notes_json(run->dir, s);
    str_puts(s, ",\n\"train\": ");
    curves_json(&run->train, s);
    str_puts(s, ",\n\"eval\": ");
    curves_json(&run->eval, s);
    str_puts(s, ",\n\"completions\": ");
    groups_json(&run->groups, s);
    str_printf(s, ",\n\"goes_on\": %s, \"half\": %s, \"long\": %lld}",
               run->metrics_log.fd >= 0 || run_goes_on(run->dir) ? "true" : "false",
               run->metrics_log.half || run->completions_log.half ? "true" : "false",
               (long long)(run->metrics_log.skipped + run->completions_log.skipped));
}

void report_pipeline(Report *r, const char *dir) {
    Str phases = {0};
    if (runs_phases(dir, &phases)) {
        str_puts(&r->pipelines, r->pipelines.n ? ",\n{\"dir\": " : "{\"dir\": ");
        str_json(&r->pipelines, dir, strlen(dir));
        str_printf(&r->pipelines, ", \"phases\": %s}", phases.s);
    }
    str_free(&phases);
}

void report_note_damage(const Report *r) {
    for (int i = 0; i < r->n; i++) {
        Str damage = {0};
        logs_say_damage(&r->run[i], run_goes_on(r->run[i].dir), &damage);
        if (damage.n) note("%s: %s", r->run[i].dir, damage.s);
        str_free(&damage);
    }
}

bool report_picture(Report *r, const char *path, Error *e) {
    Str svg = {0};
    str_puts(&svg, page_mark);
    for (int i = 0; i < r->n; i++) curves_show(&r->run[i].train);
    picture_svg(r->run, r->n, &svg);
    bool ok = page_write(&svg, path, e);
    str_free(&svg);
    return ok;
}

bool report_write(Report *r, const char *path, bool live, Error *e) {
    Str data = {0}, page = {0};
    char now[40];
    time_t seconds = time(NULL);
    struct tm utc;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    str_printf(&data, "{\"made\": \"%s\", \"live\": %s, \"pipelines\": [%s], \"runs\": [", now, live ? "true" : "false",
               r->pipelines.n ? r->pipelines.s : "");
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
