// The numbers of metrics.jsonl in columns, evenly thinned to what a page can hold.
#pragma once
#include "str.h"
#include <stdint.h>

typedef struct {
    char *name;
    double *value; // [cap]; NaN: no number there
} Column;
typedef struct {
    int64_t seen, stride; // lines given; every stride-th of them, from the first on, has a row
    int64_t torn;         // lines among those read that are no JSON objects
    int64_t unnamed;      // numbers that found no column any more
    int cells;            // most rows x columns
    int rows, cap, n_columns;
    Column *column; // [n_columns]
    Str last;       // the last line, where it is not one of those
    bool shown;     // it has a row all the same, for now
    int64_t torn_before, unnamed_before;
} Curves;
enum { MAX_COLUMNS = 256 };
Curves curves_new(int cells);
void curves_free(Curves *c);
void curves_add(Curves *c, const char *line, size_t n);
// Gives the last line a row, if it has none, until the next curves_add.
void curves_show(Curves *c);
// Appends {"seen", "stride", "torn", "unnamed", "columns": {name: [numbers]}}; the last line has a row there in any case.
// Numbers read back as the same doubles.
void curves_json(Curves *c, Str *out);
