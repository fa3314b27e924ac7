// report.html: the logs of one or several runs on one page, curves and completions.
#pragma once
#include "error.h"

// What was read of the logs so far; its memory is bounded.
typedef struct Report Report;
// dirs[n]: the output_dirs of runs.
Report *report_open(const char *const *dirs, int n);
// Opens the report of the run that this process is: its logs are read through their open descriptors (see
// metrics_files).
Report *report_open_live(const char *dir, int metrics, int completions);
void report_close(Report *r);
// Reads what was written since the last call. EXIT_INPUT: a log is no regular file; EXIT_DISK.
bool report_read(Report *r, Error *e);
// Writes an SVG of the runs' main numbers, for a README, whole or not at all (EXIT_DISK).
bool report_picture(Report *r, const char *path, Error *e);
// Writes the page, at most 8 MB, with evenly spaced samples of longer logs: whole or not at all, and never over a file
// that is not such a page (EXIT_DISK). `live`: the run goes on.
bool report_write(Report *r, const char *path, bool live, Error *e);
// Shows, on pages, the phases of the pipeline whose output_dir `dir` is (it is borrowed), where it is one.
void report_pipeline(Report *r, const char *dir);
// Notes what could not be read of the logs.
void report_note_damage(const Report *r);
