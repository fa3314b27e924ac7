// Data sets: JSONL files, read from the disk row by row.
#pragma once
#include "config.h"
#include "error.h"
#include <jansson.h>

// A data set stays on the disk: memory holds the place of each row, 8 bytes. Every line is checked when it is opened,
// on all cores, so that a bad one stops a run before it starts; bad_lines=skip leaves bad ones out and counts them.
typedef struct Dataset Dataset;
typedef struct {
    int64_t line;     // from 1
    const char *path; // of the file; the data set's
    int file;         // its place among the training files (mix.h)
    char *question;   // heap; freed by the caller with row_free
    char *answer;     // the whole answer field
    char *gold;       // after the last marker, stripped as Python's str.strip
    json_t *example;  // the whole object, in a data set opened for sft or pairs; then the three above are NULL
} Row;
// Position in a data set: all that a resumed run needs.
typedef struct {
    int64_t epoch, index;
} Cursor;
// A further check of each row, called while the data set is opened, by several threads at once. For ROW_BAD and
// ROW_FATAL *e says why (file and line are added by the caller); a ROW_BAD row is treated as bad_lines says, ROW_FATAL
// always stops the run.
typedef enum { ROW_GOOD, ROW_BAD, ROW_FATAL } RowFate;
typedef struct {
    RowFate (*fate)(const void *arg, const Row *row, Error *e);
    const void *arg;
} RowCheck;
// `check` may be NULL.
typedef Dataset *DatasetOpen(const char *path, const Config *c, const RowCheck *check, Error *e);
Dataset *dataset_open(const char *path, const Config *c, const RowCheck *check, Error *e);
// Rows for sft: objects with messages_field (a list of {role, content}), or prompt_field and completion_field.
Dataset *dataset_open_sft(const char *path, const Config *c, const RowCheck *check, Error *e);
// Rows of any fields, which `check` alone judges; they come as `example`.
Dataset *dataset_open_pairs(const char *path, const Config *c, const RowCheck *check, Error *e);
void dataset_free(Dataset *d); // and those joined to it
// Puts the rows of `then` behind those of `first` (NULL: none yet), for dataset_row; returns the whole. dataset_next
// draws from the first file alone.
Dataset *dataset_join(Dataset *first, Dataset *then);
int64_t dataset_rows(const Dataset *d);
const char *dataset_path(const Dataset *d, int64_t i); // the file that row i is of
int64_t dataset_skipped(const Dataset *d);             // bad lines left out
// For a run's header: " (2 bad lines left out)", or nothing. Valid until the next call.
const char *dataset_skipped_text(int64_t skipped);
Cursor dataset_cursor(const Dataset *d);
void dataset_seek(Dataset *d, Cursor cursor);
// The next row; wraps into the next epoch with its own order, a function of (seed, epoch, rows) alone. False after
// filling *e.
bool dataset_next(Dataset *d, Row *row, Error *e);
// Row number i (0-based, file order).
bool dataset_row(Dataset *d, int64_t i, Row *row, Error *e);
void row_free(Row *row);
// The row at position i of an epoch's shuffled order: a permutation of 0..n-1, computed without storing it.
int64_t shuffle_index(uint64_t seed, int64_t epoch, int64_t n, int64_t i);
