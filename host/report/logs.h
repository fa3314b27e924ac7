// One run's logs as a page or a terminal shows them: each logs_read goes on where the last one stopped, in bounded
// memory.
#pragma once
#include "curves.h"
#include "groups.h"
#include "tail.h"

typedef struct {
    const char *dir; // output_dir
    Tail metrics_log, completions_log;
    Curves train, eval; // the log's lines of training steps, and those of evaluations
    Groups groups;
} RunLogs;
// Opens the logs of `dir`, which is borrowed. At most `cells` numbers and `bytes` of completions are kept.
RunLogs logs_open(const char *dir, int cells, size_t bytes);
void logs_close(RunLogs *l);
// Reads what was written since the last call; a log that is not there is empty. EXIT_INPUT: it is no regular file;
// EXIT_DISK.
bool logs_read(RunLogs *l, Error *e);
// Appends what could not be read of the logs; nothing where all could. Of a run that goes on, half a line at the end is
// one under way.
void logs_say_damage(const RunLogs *l, bool goes_on, Str *out);
