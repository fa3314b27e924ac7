// The training files of a run, drawn from in the ratio of their weights.
#pragma once
#include "dataset.h"

// A question comes from the file that is furthest behind its share: the one with the least (drawn + 1) / weight, the
// first of equals (stride scheduling, Waldspurger & Weihl 1995). So any stretch of a run has the ratio of the weights,
// to one question a file, and which file is next follows from the cursors alone. A file's rows come in its data set's
// own order, one epoch of its own after the other. A file of weight 0 is never drawn from.
typedef struct Mix Mix;
typedef struct {
    Cursor at;
    int64_t drawn; // questions that counted
} FileCursor;
// Position in the files: all that a resumed run needs.
typedef struct {
    FileCursor file[MAX_FILES]; // [n]
    int64_t n;
} MixCursor;
// The files of c->train_file, every line checked (dataset.h), opened by `open`. NULL after filling *e.
Mix *mix_open(const Config *c, DatasetOpen *open, const RowCheck *check, Error *e);
void mix_free(Mix *m);
int64_t mix_rows(const Mix *m); // of all files: an epoch of the run
// For a run's header, after the number of rows: " of 3 files", " (2 bad lines left out)", both or nothing. Valid until
// the next call.
const char *mix_about(const Mix *m);
// The next row; row->file says of which file. False after filling *e.
bool mix_next(Mix *m, Row *row, Error *e);
// The row drawn last is of no use: it does not count, and the next is of the same file.
void mix_again(Mix *m);
MixCursor mix_cursor(const Mix *m);
void mix_seek(Mix *m, const MixCursor *cursor); // of as many files, or of none: the start
// What file f is called in metrics: its name without directory and .jsonl, or its path where two have that name.
const char *mix_label(const Mix *m, int f);
