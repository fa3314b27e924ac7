// Progress: the live line on a terminal, and the lines that stay above it.
#pragma once
#include "error.h"
#include <stdint.h>
#include <stdio.h>

typedef struct Progress Progress;
typedef struct {
    double reward, accuracy /* 0..1 */, kl, length /* tokens */, loss, tokens_per_second; // NaN: not shown
} ProgressStep;
// `mode` is PROGRESS_*. Live: one line, redrawn in place to the terminal's width. Plain: a line a step.
// `step` steps of total_steps were done before (a resumed run).
Progress *progress_open(FILE *out, int mode, int64_t step, int64_t total_steps);
void progress_close(Progress *p); // ends the live line
// Says that the step is in phase `name` (kept as a pointer), `done` of `total` (0: unknown). Cheap enough to call
// often: the line is redrawn a few times a second only. The phase's clock starts at the first call.
void progress_phase(Progress *p, const char *name, int64_t done, int64_t total);
// Ends the step (number `step` of total_steps is done): shows it with its phases' seconds and the time to go.
void progress_step(Progress *p, int64_t step, const ProgressStep *s);
// Prints a line that stays, such as "saved runs/out/step_100". Control bytes are shown escaped.
void progress_say(Progress *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
// The same for what may be a mistake: a note, also where progress is off.
void progress_warn(Progress *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
