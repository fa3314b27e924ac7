// Several data sets as one: whose turn it is, and where each is.
#include "mix.h"
#include "str.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Mix {
    int n, last; // files; that of the last row
    struct {
        Dataset *data;
        double weight;
        int64_t drawn;
        char *label;
    } file[MAX_FILES];
};

// "kept" of runs/pick/kept.jsonl.
static char *short_name(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(name), end = strlen(".jsonl");
    return xstrndup(name, n > end && !strcmp(name + n - end, ".jsonl") ? n - end : n);
}

static void name_files(Mix *m, const FileList *files) {
    char *name[MAX_FILES];
    for (int f = 0; f < m->n; f++) name[f] = short_name(files->item[f].path);
    for (int f = 0; f < m->n; f++) {
        bool alone = true;
        for (int k = 0; k < m->n; k++) alone = alone && (k == f || strcmp(name[k], name[f]));
        m->file[f].label = xstrdup(alone ? name[f] : files->item[f].path);
    }
    for (int f = 0; f < m->n; f++) free(name[f]);
}

Mix *mix_open(const Config *c, DatasetOpen *open, const RowCheck *check, Error *e) {
    Mix *m = xcalloc(1, sizeof *m);
    m->n = c->train_file.n;
    name_files(m, &c->train_file);
    for (int f = 0; f < m->n; f++) {
        const DataFile *file = &c->train_file.item[f];
        m->file[f].weight = file->weight;
        m->file[f].data = open(file->path, c, check, e);
        if (m->file[f].data) continue;
        if (m->n > 1) error_prefix(e, "%s: train_file", file->place);
        mix_free(m);
        return NULL;
    }
    return m;
}

void mix_free(Mix *m) {
    if (!m) return;
    for (int f = 0; f < m->n; f++) {
        dataset_free(m->file[f].data);
        free(m->file[f].label);
    }
    free(m);
}

int64_t mix_rows(const Mix *m) {
    int64_t rows = 0;
    for (int f = 0; f < m->n; f++) rows += dataset_rows(m->file[f].data);
    return rows;
}

const char *mix_about(const Mix *m) {
    static char text[96];
    int64_t skipped = 0;
    for (int f = 0; f < m->n; f++) skipped += dataset_skipped(m->file[f].data);
    int n = m->n > 1 ? snprintf(text, sizeof text, " of %d files", m->n) : 0;
    snprintf(text + n, sizeof text - (size_t)n, "%s", dataset_skipped_text(skipped));
    return text;
}

bool mix_next(Mix *m, Row *row, Error *e) {
    int next = -1;
    double least = 0;
    for (int f = 0; f < m->n; f++) {
        double turn = (double)(m->file[f].drawn + 1) / m->file[f].weight;
        if (m->file[f].weight > 0 && (next < 0 || turn < least)) next = f, least = turn;
    }
    if (next < 0) die("mix: no file has a weight");
    if (!dataset_next(m->file[next].data, row, e)) return false;
    m->file[next].drawn++;
    m->last = row->file = next;
    return true;
}

void mix_again(Mix *m) { m->file[m->last].drawn--; }

MixCursor mix_cursor(const Mix *m) {
    MixCursor c = {.n = m->n};
    for (int f = 0; f < m->n; f++) c.file[f] = (FileCursor){dataset_cursor(m->file[f].data), m->file[f].drawn};
    return c;
}

void mix_seek(Mix *m, const MixCursor *c) {
    if (c->n && c->n != m->n) die("mix: a cursor of %lld files for %d", (long long)c->n, m->n);
    for (int f = 0; f < m->n; f++) {
        dataset_seek(m->file[f].data, c->file[f].at);
        m->file[f].drawn = c->file[f].drawn;
    }
}

const char *mix_label(const Mix *m, int f) { return m->file[f].label; }
