// A run on a terminal: sparklines, and the best and the worst completion of its last group.
#pragma once
#include "error.h"
#include "str.h"

typedef struct Watch Watch;
Watch *watch_open(const char *dir); // a run's output_dir; borrowed
void watch_close(Watch *w);
// Reads what the logs got since the last call; *changed: there was something new. EXIT_INPUT: a log is no
// regular file; EXIT_DISK.
bool watch_read(Watch *w, bool *changed, Error *e);
// Appends the view: lines of at most `columns` columns, at most `rows` lines unless that is 0, ASCII only unless
// `utf8`. Control bytes of the logs are shown escaped.
void watch_view(Watch *w, int columns, int rows, bool utf8, Str *out);
// Whether all of its steps are done.
bool watch_finished(const Watch *w);
