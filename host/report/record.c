// run.json: the description of a run. See record.h.
#include "config_table.h"
#include "json.h"
#include "machine.h"
#include "record.h"
#include "version.h"
#include "whole.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static json_t *record_read(const char *dir) {
    char *path = xasprintf("%s/run.json", dir);
    Error none;
    json_t *j = access(path, F_OK) ? NULL : json_read(path, &none);
    free(path);
    if (json_is_object(j)) return j;
    json_decref(j);
    return NULL;
}

void record_json(const char *dir, Str *out) {
    json_t *j = record_read(dir);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    str_puts(out, text && strlen(text) < (256 << 10) ? text : "null");
    free(text);
    json_decref(j);
}

static json_t *options_json(const Config *c) {
    Config defaults;
    config_defaults(&defaults);
    json_t *all = json_array();
    Str value = {0};
    for (int i = 0; i < OPTION_COUNT; i++) {
        const Option *o = &config_options[i];
        json_t *row = json_pack("{s:s, s:s}", "name", o->name, "group", config_groups[o->group].name);
        config_put_value(&value, c, o);
        json_object_set_new(row, "value", json_string(value.s));
        str_clear(&value);
        if (!option_is_default(c, o)) {
            config_put_value(&value, &defaults, o);
            json_object_set_new(row, "default", json_string(value.s));
            str_clear(&value);
        }
        json_array_append_new(all, row);
    }
    str_free(&value);
    config_free(&defaults);
    return all;
}

// The list of starts: those in an earlier run.json of this run, and this one behind them.
static json_t *starts_json(const RunRecord *r) {
    json_t *old = r->step ? record_read(r->cfg->output_dir) : NULL;
    json_t *starts = json_incref(json_object_get(old, "starts"));
    if (!json_is_array(starts) || json_array_size(starts) >= 1000) {
        json_decref(starts);
        starts = json_array();
    }
    char now[40], at[64]; // to the millisecond: a pipeline's runs are told apart by it
    struct timespec t;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &t);
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%S", gmtime_r(&t.tv_sec, &utc));
    snprintf(at, sizeof at, "%s.%03ldZ", now, t.tv_nsec / 1000000);
    json_array_append_new(starts, json_pack("{s:s, s:I, s:s, s:s}", "at", at, "step", (json_int_t)r->step, "version",
                                            grpo_version, "device", r->device));
    json_decref(old);
    return starts;
}

bool record_write(const RunRecord *r, Error *e) {
    struct utsname host = {0};
    uname(&host);
    char *machine = xasprintf("%s, %d cores, %.1f GiB", host.machine, machine_cores(1),
                              (double)machine_memory(1).bytes / (1 << 30));
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:I, s:I, s:o, s:o}", "command", r->command, "version",
                          grpo_version, "machine", machine, "plan", r->plan, "device", r->device, "ranks",
                          (json_int_t)r->cfg->gpus, "data", r->data, "rows", (json_int_t)r->rows, "steps",
                          (json_int_t)r->steps, "starts", starts_json(r), "options", options_json(r->cfg));
    if (!j) die("run.json: a text is not UTF-8");
    free(machine);
    char *path = xasprintf("%s/run.json", r->cfg->output_dir), *text = json_dumps(j, JSON_INDENT(1));
    bool ok = whole_write(path, text, strlen(text), false, e);
    json_decref(j);
    free(text);
    free(path);
    return ok;
}
