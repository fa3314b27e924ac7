// The runs below a directory, as `report` and `watch` are given them.
#pragma once
#include "error.h"
#include "str.h"

typedef struct {
    char **dir; // [n] output_dirs, in the order in which their runs began
    int n;
} Runs;
// Appends a JSON list of the finished phases in dir/pipeline.json, with what those that evaluate or select found:
// nothing, and false, where there is no such file.
bool runs_phases(const char *dir, Str *out);
// Finds the runs of `dir`: itself, where it holds logs; else those of its directories that do, as of a pipeline's
// output_dir. False after filling *e (EXIT_INPUT): there is no such directory, or there are no logs.
bool runs_find(const char *dir, Runs *runs, Error *e);
void runs_free(Runs *runs);
// Whether a process of this machine writes the run's logs now.
bool run_goes_on(const char *dir);
