// A data set: questions and answers of a JSONL file, in file order or in a seeded random order an epoch.
#include "dataset.h"
#include "signals.h"
#include "file.h"
#include "json.h"
#include "jsonl.h"
#include "random.h"
#include "text.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <stdio.h>

// A stretch of rows on consecutive lines: row `row` stands on line `line`, the next row on the next line, and so on
// until the next Stretch. This spares a line number for each row.
typedef struct {
    int64_t row, line;
} Stretch;

// What rows are: questions with a gold answer; examples for sft, and objects that only the opener's check judges, kept
// whole.
typedef enum { ROWS_QUESTIONS, ROWS_EXAMPLES, ROWS_OBJECTS } RowKind;

struct Dataset {
    RowKind kind;
    char *path, *question_field, *answer_field, *answer_marker;
    char *messages_field; // of ROWS_EXAMPLES, whose question and answer are prompt and completion
    bool shuffle;
    uint64_t seed;
    LineReader reader;
    int64_t *offset; // [rows] byte where the row's line begins
    int64_t rows, cap, skipped;
    Stretch *run; // [n_runs] ascending
    int64_t n_runs, cap_runs;
    Cursor cursor;
    Dataset *then; // whose rows come behind these; NULL: none
};

void row_free(Row *row) {
    free(row->question);
    free(row->answer);
    free(row->gold);
    json_decref(row->example);
    *row = (Row){0};
}

// Finds the gold answer: what follows the last marker, stripped.
static bool find_gold(const char *answer, const char *marker, const char *where, Text *gold, Error *e) {
    Text t = text_of(answer), mark = text_of(marker);
    if (mark.n > 0) {
        size_t at = text_find_last(t, mark);
        if (at == TEXT_NONE)
            return error_set(
                e, EXIT_INPUT,
                "%s: the answer has no \"%s\" before its result; set answer_marker to what stands there, or "
                "answer_marker= where the whole answer is the result",
                where, marker);
        t = text_from(t, at + mark.n);
    }
    *gold = text_strip(t);
    if (gold->n == 0) return error_set(e, EXIT_INPUT, "%s: the answer's result is empty", where);
    return true;
}

// Checks a row for sft: it has messages, one of them the assistant's, or a prompt and a completion.
static bool check_example(const Dataset *d, const json_t *j, const char *where, Error *e) {
    const json_t *messages = json_object_get(j, d->messages_field), *m;
    if (!messages)
        return json_field_string(j, d->question_field, where, e) && json_field_string(j, d->answer_field, where, e);
    if (!json_is_array(messages)) return error_set(e, EXIT_INPUT, "%s: \"%s\" is not a list", where, d->messages_field);
    bool answered = false;
    size_t i;
    json_array_foreach(messages, i, m) {
        char place[4096 + 128];
        snprintf(place, sizeof place, "%.4160s: messages[%zu]", where, i);
        if (!json_is_object(m)) return error_set(e, EXIT_INPUT, "%s: not an object", place);
        const char *role = json_field_string(m, "role", place, e);
        bool calls = json_array_size(json_object_get(m, "tool_calls")) > 0; // which may stand alone
        if (!role || (!calls && !json_field_string(m, "content", place, e))) return false;
        answered |= !strcmp(role, "assistant");
    }
    return answered || error_set(e, EXIT_INPUT, "%s: no message of the assistant: there is nothing to learn", where);
}

// Reads one line into *row, or only checks it where row is NULL.
static bool read_line(const Dataset *d, const char *line, size_t n, int64_t number, Row *row, Error *e) {
    char where[4096 + 32];
    snprintf(where, sizeof where, "%s:%lld", d->path, (long long)number);
    json_t *j = json_parse(line, n, where, e);
    if (!j) return false;
    const char *question = NULL, *answer = NULL;
    Text gold = {0};
    bool ok = json_is_object(j) || error_set(e, EXIT_INPUT, "%s: not a JSON object", where);
    if (d->kind != ROWS_QUESTIONS) {
        ok = ok && (d->kind == ROWS_OBJECTS || check_example(d, j, where, e));
        if (ok && row) *row = (Row){.line = number, .path = d->path, .example = json_incref(j)};
        json_decref(j);
        return ok;
    }
    ok = ok && (question = json_field_string(j, d->question_field, where, e)) != NULL;
    if (ok) json_field_to_text(j, d->answer_field);
    ok = ok && (answer = json_field_string(j, d->answer_field, where, e)) != NULL;
    ok = ok && find_gold(answer, d->answer_marker, where, &gold, e);
    if (ok && row)
        *row = (Row){.line = number,
                     .path = d->path,
                     .question = xstrdup(question),
                     .answer = xstrdup(answer),
                     .gold = xstrndup(gold.s, gold.n)};
    json_decref(j);
    return ok;
}

static void add_row(Dataset *d, int64_t offset, int64_t line) {
    if (d->rows == d->cap) {
        d->cap = d->cap ? d->cap * 2 : 1024;
        d->offset = xrealloc(d->offset, (size_t)d->cap * sizeof *d->offset);
    }
    const Stretch *last = d->n_runs ? &d->run[d->n_runs - 1] : NULL;
    if (!last || line - last->line != d->rows - last->row) {
        if (d->n_runs == d->cap_runs) {
            d->cap_runs = d->cap_runs ? d->cap_runs * 2 : 16;
            d->run = xrealloc(d->run, (size_t)d->cap_runs * sizeof *d->run);
        }
        d->run[d->n_runs++] = (Stretch){d->rows, line};
    }
    d->offset[d->rows++] = offset;
}

static int64_t line_of(const Dataset *d, int64_t row) {
    int64_t low = 0, high = d->n_runs;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (d->run[middle].row <= row) low = middle;
        else high = middle;
    }
    return d->run[low].line + (row - d->run[low].row);
}

// A chunk of lines that are checked in parallel, and what was found. A line that could not even be read gets its error
// first.
enum { CHUNK_LINES = 4096, CHUNK_BYTES = 8 << 20 };
typedef struct {
    char *text; // heap
    size_t n;
    int64_t offset, line;
    RowFate fate;
    Error *why; // heap, where it is not good
} Line;

static void line_fails(Line *x, RowFate fate, const Error *why) {
    x->fate = fate;
    x->why = xmalloc(sizeof *x->why);
    *x->why = *why;
}

static void line_check(const Dataset *d, const RowCheck *check, Line *x) {
    Error e = {0};
    Row row = {0};
    if (!read_line(d, x->text, x->n, x->line, check ? &row : NULL, &e)) return line_fails(x, ROW_BAD, &e);
    RowFate fate = check ? check->fate(check->arg, &row, &e) : ROW_GOOD;
    row_free(&row);
    if (fate == ROW_GOOD) return;
    error_prefix(&e, "%s:%lld", d->path, (long long)x->line);
    line_fails(x, fate, &e);
}

// Reads the next lines; their number, 0 at the end.
static int chunk_read(Dataset *d, Line *chunk) {
    int n = 0;
    for (size_t bytes = 0; n < CHUNK_LINES && bytes < CHUNK_BYTES;) {
        char *text;
        size_t length;
        Error e = {0};
        int got = stop_requested() ? error_set(&e, EXIT_STOPPED, "stopped by a signal") - 1
                                   : line_reader_next(&d->reader, &text, &length, &e);
        if (!got) break;
        chunk[n] = (Line){.offset = d->reader.offset, .line = d->reader.line};
        if (got > 0) chunk[n].text = xstrndup(text, chunk[n].n = length), bytes += length;
        else line_fails(&chunk[n], e.code == EXIT_INPUT ? ROW_BAD : ROW_FATAL, &e);
        if (chunk[n++].fate == ROW_FATAL) break;
    }
    return n;
}

// One pass over the file: checks every line and keeps the places of the good ones.
static bool index_rows(Dataset *d, const RowCheck *check, bool skip, Error *e) {
    Line *chunk = xcalloc(CHUNK_LINES, sizeof *chunk);
    Error first = {0};
    bool ok = true;
    for (int n; ok && (n = chunk_read(d, chunk));) {
#pragma omp parallel for schedule(dynamic, 16)
        for (int i = 0; i < n; i++)
            if (chunk[i].fate == ROW_GOOD) line_check(d, check, &chunk[i]);
        for (int i = 0; i < n; i++) {
            Line *x = &chunk[i];
            if (ok && x->fate == ROW_GOOD) add_row(d, x->offset, x->line);
            else if (ok && (x->fate == ROW_FATAL || !skip)) ok = error_set(e, x->why->code, "%s", x->why->text);
            else if (ok && d->skipped++ == 0) first = *x->why;
            free(x->text);
            free(x->why);
        }
    }
    free(chunk);
    if (!ok) return false;
    if (d->rows == 0 && d->skipped)
        return error_set(e, EXIT_INPUT, "%s: no good line; %lld bad, the first: %s", d->path, (long long)d->skipped,
                         first.text);
    if (d->rows == 0) return error_set(e, EXIT_INPUT, "%s: the data set is empty", d->path);
    if (d->skipped) note("%lld bad line%s left out; %s", (long long)d->skipped, d->skipped > 1 ? "s" : "", first.text);
    return true;
}

static Dataset *open_rows(const char *path, const Config *c, RowKind kind, const RowCheck *check, Error *e) {
    Dataset *d = xcalloc(1, sizeof *d);
    bool sft = kind == ROWS_EXAMPLES;
    d->kind = kind;
    d->path = xstrdup(path);
    d->question_field = xstrdup(sft ? c->prompt_field : c->question_field);
    d->answer_field = xstrdup(sft ? c->completion_field : c->answer_field);
    d->answer_marker = xstrdup(c->answer_marker);
    d->messages_field = sft ? xstrdup(c->messages_field) : NULL;
    d->shuffle = c->shuffle;
    d->seed = (uint64_t)c->seed;
    // Rows are read again in every epoch: a pipe will not do.
    bool ok =
        strlen(path) > 4096 ? error_set(e, EXIT_INPUT, "%.64s...: the path is too long", path)
        : !strcmp(path, "-")
            ? error_set(e, EXIT_INPUT,
                        "standard input: rows are read again in every epoch, and after a resume, so they must be in a "
                        "file; save them first and give its path")
            : file_regular(path, e);
    ok = ok && line_reader_open_json(&d->reader, d->path, e) && index_rows(d, check, c->bad_lines == BAD_LINES_SKIP, e);
    if (ok) return d;
    dataset_free(d);
    return NULL;
}

Dataset *dataset_open(const char *path, const Config *c, const RowCheck *check, Error *e) {
    return open_rows(path, c, ROWS_QUESTIONS, check, e);
}
Dataset *dataset_open_sft(const char *path, const Config *c, const RowCheck *check, Error *e) {
    return open_rows(path, c, ROWS_EXAMPLES, check, e);
}
Dataset *dataset_open_pairs(const char *path, const Config *c, const RowCheck *check, Error *e) {
    return open_rows(path, c, ROWS_OBJECTS, check, e);
}

void dataset_free(Dataset *d) {
    if (!d) return;
    dataset_free(d->then);
    line_reader_close(&d->reader);
    free(d->path);
    free(d->question_field);
    free(d->answer_field);
    free(d->answer_marker);
    free(d->messages_field);
    free(d->offset);
    free(d->run);
    free(d);
}

Dataset *dataset_join(Dataset *first, Dataset *then) {
    Dataset **at = &first;
    while (*at) at = &(*at)->then;
    *at = then;
    return first;
}

int64_t dataset_rows(const Dataset *d) { return d->rows + (d->then ? dataset_rows(d->then) : 0); }
int64_t dataset_skipped(const Dataset *d) { return d->skipped + (d->then ? dataset_skipped(d->then) : 0); }
const char *dataset_path(const Dataset *d, int64_t i) {
    return i < d->rows || !d->then ? d->path : dataset_path(d->then, i - d->rows);
}
const char *dataset_skipped_text(int64_t skipped) {
    static char text[64];
    snprintf(text, sizeof text, " (%lld bad line%s left out)", (long long)skipped, skipped > 1 ? "s" : "");
    return skipped ? text : "";
}
Cursor dataset_cursor(const Dataset *d) { return d->cursor; }
void dataset_seek(Dataset *d, Cursor cursor) { d->cursor = cursor; }

bool dataset_row(Dataset *d, int64_t i, Row *row, Error *e) {
    if (i >= d->rows && d->then) return dataset_row(d->then, i - d->rows, row, e);
    if (i < 0 || i >= d->rows) die("dataset: row %lld of %lld", (long long)i, (long long)d->rows);
    char *line;
    size_t n;
    int64_t number = line_of(d, i);
    line_reader_seek(&d->reader, d->offset[i], number);
    int got = line_reader_next(&d->reader, &line, &n, e);
    if (got < 0) return false;
    if (got == 0 || d->reader.line != number)
        return error_set(e, EXIT_INPUT, "%s:%lld: the line is gone; the file changed during the run", d->path,
                         (long long)number);
    return read_line(d, line, n, number, row, e);
}

bool dataset_next(Dataset *d, Row *row, Error *e) {
    Cursor at = d->cursor;
    if (at.index >= d->rows) at = (Cursor){at.epoch + 1, 0};
    int64_t i = d->shuffle ? shuffle_index(d->seed, at.epoch, d->rows, at.index) : at.index;
    if (!dataset_row(d, i, row, e)) return false;
    d->cursor = (Cursor){at.epoch, at.index + 1};
    return true;
}

// A Feistel network permutes 0..4^half - 1 (Luby & Rackoff 1988); numbers that fall outside 0..n-1 are sent through
// again until they come back in (cycle walking, Black & Rogaway 2002), fewer than four times on average.
int64_t shuffle_index(uint64_t seed, int64_t epoch, int64_t n, int64_t i) {
    enum { ROUNDS = 8 };
    int half = 1;
    while (half < 31 && (int64_t)1 << (2 * half) < n) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1, x = (uint64_t)i;
    uint64_t key = random_mix(random_mix(seed + RANDOM_STEP) + (uint64_t)epoch);
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < ROUNDS; round++) {
            uint64_t next = left ^ (random_mix(key + (round << 32) + right) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}
