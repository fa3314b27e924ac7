// A run on a terminal: sparklines, and the best and the worst completion of its last group.
#pragma once
#include "error.h"
#include "str.h"

typedef struct Watch Watch;
Watch *watch_open(const char *dir); // a run's output_dir
void watch_close(Watch *w);
// Reads on in its logs. *changed: there was something new. EXIT_INPUT: a directory without logs; EXIT_DISK.
bool watch_read(Watch *w, bool *changed, Error *e);
// The view in lines of at most `columns` columns and, where `rows` is not 0, so many lines; of marks beyond ASCII only where `utf8`
// is set, and control bytes of the logs shown, not sent.
void watch_view(Watch *w, int columns, int rows, bool utf8, Str *out);
// Whether all of its steps are done.
bool watch_finished(const Watch *w);
