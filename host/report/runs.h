// The runs below a directory, as `report` and `watch` are given them.
#pragma once
#include "error.h"

typedef struct {
    char **dir; // [n] output_dirs, in the order in which their runs began
    int n;
} Runs;
// Finds the runs of `dir`: itself, where it holds logs; else those of its directories that do, as of a pipeline's
// output_dir. False after filling *e (EXIT_INPUT): there is no such directory, or there are no logs.
bool runs_find(const char *dir, Runs *runs, Error *e);
void runs_free(Runs *runs);
// Whether a process of this machine writes the run's logs now.
bool run_goes_on(const char *dir);
