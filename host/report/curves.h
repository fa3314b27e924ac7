// The numbers of metrics.jsonl in columns, evenly thinned to what a page can hold.
#pragma once
#include "str.h"
#include <stdint.h>

typedef struct {
    char *name;
    double *value; // [cap]; NaN: no number there
} Column;
typedef struct {
    int64_t seen, stride; // lines given so far; every stride-th of them, from the first on, has a row
    int64_t torn;         // lines read that are not JSON objects
    int64_t unnamed;      // numbers dropped because there were MAX_COLUMNS already
    int cells;            // limit of rows x columns
    int rows, cap, n_columns;
    Column *column; // [n_columns]
    Str last;       // the last line, if it is not one of those that have a row
    bool shown;     // `last` has a row for now (curves_show)
    int64_t torn_before, unnamed_before;
} Curves;
enum { MAX_COLUMNS = 256 };
Curves curves_new(int cells);
void curves_free(Curves *c);
void curves_add(Curves *c, const char *line, size_t n);
// Gives the last line a row, if it has none, until the next curves_add: a plot should end where the log does.
void curves_show(Curves *c);
// Appends {"seen", "stride", "torn", "unnamed", "columns": {name: [numbers]}}; the last line has a row there in any
// case. Numbers read back as the same doubles.
void curves_json(Curves *c, Str *out);
