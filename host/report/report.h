// report.html: the logs of one or several runs on one page, curves and completions.
#pragma once
#include "error.h"

// What was read of the logs so far, in bounded memory.
typedef struct Report Report;
// dirs[n]: the output_dirs of runs.
Report *report_open(const char *const *dirs, int n);
// Of one run that this process makes: its logs are read through descriptors that are open already.
Report *report_open_live(const char *dir, int metrics, int completions);
void report_close(Report *r);
// Reads what was written since the last call. EXIT_INPUT: a directory without logs; EXIT_DISK.
bool report_read(Report *r, Error *e);
// Writes an SVG of the runs' main numbers in the same way: for a README.
bool report_picture(Report *r, const char *path, Error *e);
// Writes the page, at most 8 MB, with evenly chosen samples of longer logs: whole or not at all, in place of an earlier page only
// (EXIT_DISK). `live`: the run goes on.
bool report_write(Report *r, const char *path, bool live, Error *e);
