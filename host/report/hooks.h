// Hooks: programs of the user's, started where a run saves, evaluates and ends.
#pragma once
#include "config.h"
#include <stdint.h>

typedef enum { HOOK_SAVE, HOOK_EVAL, HOOK_END, HOOK_COUNT } HookKind;
typedef struct Hooks Hooks;
// NULL where none of on_save, on_eval and on_end is set; the calls below then do nothing.
Hooks *hooks_open(const Config *c);
// Starts the program of `kind`, which gets `path` (the checkpoint; for HOOK_EVAL and HOOK_END output_dir) and the step as arguments, and
// in its environment GRPO_EVENT, GRPO_STEP, GRPO_PATH, GRPO_OUTPUT_DIR, GRPO_METRICS (`metrics`, a JSON object) and, for HOOK_END,
// GRPO_EXIT (`exit_code`). Its output goes to output_dir/hooks.log. Where the one before it still runs, this one is left out, and
// that is said.
void hooks_start(Hooks *h, HookKind kind, const char *path, int64_t step, const char *metrics, int exit_code);
// Between steps: takes note of those that have ended, and ends those that took more than hook_timeout seconds, with all that
// they started.
void hooks_look(Hooks *h);
// Waits for those that run, within their time and until a second signal ends the process; says what failed in all.
void hooks_close(Hooks *h);
