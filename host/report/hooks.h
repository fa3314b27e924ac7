// Hooks: the user's commands, started when a run saves, evaluates or ends.
#pragma once
#include "config.h"
#include <stdint.h>

typedef enum { HOOK_SAVE, HOOK_EVAL, HOOK_END, HOOK_COUNT } HookKind;
typedef struct Hooks Hooks;
// NULL where none of on_save, on_eval and on_end is set; the calls below then do nothing.
Hooks *hooks_open(const Config *c);
// Starts the command of `kind`. Its arguments are `path` (the checkpoint; for HOOK_EVAL and HOOK_END output_dir) and
// the step; its environment has GRPO_EVENT, GRPO_STEP, GRPO_PATH, GRPO_OUTPUT_DIR, GRPO_METRICS (`metrics`, a JSON
// object) and, for HOOK_END, GRPO_EXIT (`exit_code`). Its output goes to output_dir/hooks.log. If the command's last
// start still runs, this one is left out, with a note.
void hooks_start(Hooks *h, HookKind kind, const char *path, int64_t step, const char *metrics, int exit_code);
// Called between steps: notices which hooks have ended, and kills those that ran longer than hook_timeout seconds,
// together with all processes that they started.
void hooks_look(Hooks *h);
// Waits for the hooks that still run, until their time is up or a second signal ends the process; then says how many
// failed.
void hooks_close(Hooks *h);
