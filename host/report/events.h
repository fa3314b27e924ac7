// TensorBoard's event file: scalars, texts and hyperparameters of a run.
#pragma once
#include "config.h"
#include "str.h"
#include <stdint.h>

typedef struct EventLog EventLog;
// Opens (or makes) output_dir/events.out.tfevents.grpo. For a resumed run the whole records up to `step` are kept; for
// a new run (step 0) nothing is, and the file begins with the run's options. NULL after filling *e (EXIT_DISK).
EventLog *events_open(const Config *c, int64_t step, Error *e);
// The last step that was kept, and how many of its records; 0: none.
int64_t events_last(const EventLog *l, int *records);
void events_close(EventLog *l); // tries a last time to write what waits; NULL: nothing
// Adds a number of `step`. TensorBoard gets it as transformers names it: "eval/..." unchanged, any other as
// "train/<name>".
void events_number(EventLog *l, int64_t step, const char *name, double value);
void events_text(EventLog *l, int64_t step, const char *tag, const char *text);
// Writes what was added: whole records, or nothing. A failure (a full disk) is said in a note, once; what was added
// waits, up to 16 MiB of it, and the next call tries again.
void events_commit(EventLog *l);
