// The runs below a directory. See runs.h.
#include "json.h"
#include "record.h"
#include "runs.h"
#include "str.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOUND_MOST = 256 << 10 }; // bytes of a JSON file that is shown

static bool has_logs(const char *dir) {
    static const char *const names[] = {"metrics.jsonl", "completions.jsonl"};
    bool has = false;
    for (int i = 0; i < 2; i++) {
        struct stat st;
        char *path = xasprintf("%s/%s", dir, names[i]);
        has = has || (!stat(path, &st) && (S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)));
        free(path);
    }
    return has;
}

typedef struct {
    char *dir, *begin; // time of its first start, as run.json has it: such texts sort by time
} Found;

static Found found(char *dir) {
    Str text = {0};
    record_json(dir, &text);
    json_t *record = json_parse(text.s, text.n, "", NULL);
    const json_t *first = json_array_get(json_object_get(record, "starts"), 0);
    const char *at = json_string_value(json_object_get(first, "at"));
    Found f = {dir, xstrdup(at ? at : "")};
    json_decref(record);
    str_free(&text);
    return f;
}

static int earlier(const void *a, const void *b) {
    const Found *x = a, *y = b;
    int order = strcmp(x->begin, y->begin);
    return order ? order : strverscmp(x->dir, y->dir);
}

static int no_dot(const struct dirent *entry) { return entry->d_name[0] != '.'; }

bool runs_find(const char *dir, Runs *runs, Error *e) {
    *runs = (Runs){0};
    struct stat st;
    if (stat(dir, &st)) return error_set(e, EXIT_INPUT, "%s: %s", dir, error_open(errno));
    if (!S_ISDIR(st.st_mode)) return error_set(e, EXIT_INPUT, "%s: is no directory; name the output_dir of a run", dir);
    struct dirent **entry = NULL;
    int n = has_logs(dir) ? 0 : scandir(dir, &entry, no_dot, versionsort);
    Found *all = xcalloc((size_t)(n > 0 ? n : 0) + 1, sizeof *all);
    if (!n && has_logs(dir)) all[runs->n++] = found(xstrdup(dir));
    for (int i = 0; i < n; i++) {
        char *below = xasprintf("%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", entry[i]->d_name);
        if (has_logs(below)) all[runs->n++] = found(below);
        else free(below);
        free(entry[i]);
    }
    free(entry);
    qsort(all, (size_t)runs->n, sizeof *all, earlier);
    runs->dir = xcalloc((size_t)runs->n + 1, sizeof *runs->dir);
    for (int i = 0; i < runs->n; i++) runs->dir[i] = all[i].dir, free(all[i].begin);
    free(all);
    if (runs->n) return true;
    runs_free(runs);
    return error_set(
        e, EXIT_INPUT,
        "%s: holds no metrics.jsonl and no completions.jsonl, nor does a directory in it; name the output_dir "
        "of a run",
        dir);
}

// What the phase `name`, an evaluation or a selection, found; NULL: it is another, or its file is not there.
static json_t *found_by(const char *dir, const char *name, const char *command) {
    const char *ending = !strcmp(command, "eval") ? ".json" : !strcmp(command, "select") ? "/select.json" : NULL;
    if (!ending) return NULL;
    char *path = xasprintf("%s/%s%s", dir, name, ending);
    struct stat st;
    Error none;
    bool small = !stat(path, &st) && S_ISREG(st.st_mode) && st.st_size < FOUND_MOST;
    json_t *found = small ? json_read(path, &none) : NULL;
    free(path);
    return found;
}

bool runs_phases(const char *dir, Str *out) {
    char *path = xasprintf("%s/pipeline.json", dir);
    struct stat st;
    Error none;
    bool there = !stat(path, &st) && S_ISREG(st.st_mode) && st.st_size < FOUND_MOST;
    json_t *all = there ? json_read(path, &none) : NULL, *phases = json_array(), *phase;
    const char *name;
    json_object_foreach(all, name, phase) {
        const char *command = json_string_value(json_object_get(phase, "command"));
        if (!json_object_get(phase, "made")) continue; // it has only begun
        json_t *row = json_pack("{s:s}", "name", name);
        json_object_set(row, "command", json_object_get(phase, "command"));
        json_object_set(row, "seconds", json_object_get(phase, "seconds"));
        if (command) json_object_set_new(row, "found", found_by(dir, name, command));
        json_array_append_new(phases, row);
    }
    char *text = json_array_size(phases) ? json_dumps(phases, JSON_COMPACT) : NULL;
    if (text) str_puts(out, text);
    there = text != NULL;
    json_decref(all), json_decref(phases);
    free(text), free(path);
    return there;
}

void runs_free(Runs *runs) {
    for (int i = 0; i < runs->n; i++) free(runs->dir[i]);
    free(runs->dir);
    *runs = (Runs){0};
}

bool run_goes_on(const char *dir) {
    char *path = xasprintf("%s/metrics.jsonl", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET}; // the run has locked it for writing (line_log.c)
    bool writes = fd >= 0 && !fcntl(fd, F_GETLK, &lock) && lock.l_type != F_UNLCK;
    if (fd >= 0) close(fd);
    free(path);
    return writes;
}
