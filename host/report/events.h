// TensorBoard's event file: scalars, texts and hyperparameters of a run.
#pragma once
#include "config.h"
#include "str.h"
#include <stdint.h>

typedef struct EventLog EventLog;
// Opens (or makes) output_dir/events.out.tfevents.grpo. Of what is there the whole records up to `step` stay, for a run that is
// resumed; of a new run (step 0) nothing, and it begins with the options. NULL after filling *e (EXIT_DISK).
EventLog *events_open(const Config *c, int64_t step, Error *e);
void events_close(EventLog *l); // NULL: nothing
// A number of `step` under TensorBoard's name for it: "eval/..." as it is, all else behind "train/", as Transformers names them.
void events_number(EventLog *l, int64_t step, const char *name, double value);
void events_text(EventLog *l, int64_t step, const char *tag, const char *text);
// Writes what was added: whole records, or nothing. What cannot be written is said once, and tried no more.
void events_commit(EventLog *l);
