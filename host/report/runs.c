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

static bool has_logs(const char *dir) {
    char *metrics = xasprintf("%s/metrics.jsonl", dir), *completions = xasprintf("%s/completions.jsonl", dir);
    bool has = !access(metrics, F_OK) || !access(completions, F_OK);
    free(metrics), free(completions);
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
