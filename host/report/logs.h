// What a page or a terminal shows of one run's logs, read on from look to look in bounded memory.
#pragma once
#include "curves.h"
#include "groups.h"
#include "tail.h"

typedef struct {
    const char *dir; // output_dir
    Tail metrics_log, completions_log;
    Curves train, eval; // lines of steps, and of evaluations on the way
    Groups groups;
} RunLogs;
// At most `cells` numbers and `bytes` of completions are kept.
RunLogs logs_open(const char *dir, int cells, size_t bytes);
void logs_close(RunLogs *l);
// EXIT_INPUT: there are no logs in `dir`; EXIT_DISK.
bool logs_read(RunLogs *l, Error *e);
