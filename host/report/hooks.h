// Hooks: the user's commands, started when a run saves, evaluates or ends.
#pragma once
#include "config.h"
#include <stdint.h>

typedef enum { HOOK_SAVE, HOOK_EVAL, HOOK_END, HOOK_COUNT } HookKind;
typedef struct Hooks Hooks;
// NULL where none of on_save, on_eval and on_end is set; the calls below then do nothing.
Hooks *hooks_open(const Config *c);
// What a hook is started for.
typedef struct {
    const char *path; // the checkpoint; for HOOK_EVAL and HOOK_END output_dir
    int64_t step;
    const char *metrics, *eval; // JSON objects: the last step's line of metrics.jsonl, the last evaluation's; NULL: {}
    int exit_code;              // of the run; for HOOK_END
} HookCall;
// Starts the command of `kind`. Its arguments are the path and the step; its environment has GRPO_EVENT, GRPO_STEP,
// GRPO_PATH, GRPO_OUTPUT_DIR, GRPO_METRICS, GRPO_EVAL and, for HOOK_END, GRPO_EXIT. Its output goes to
// output_dir/hooks.log. If the command still runs, this call waits for its end; of those that wait only the newest
// stays, the others are left out with a note. HOOK_END waits for the other hooks.
void hooks_start(Hooks *h, HookKind kind, const HookCall *c);
// Called between steps: notices which hooks have ended, ends those that ran longer than hook_timeout seconds together
// with all that they started, and starts those that waited.
void hooks_look(Hooks *h);
// Waits for the hooks that run or wait, until their time is up or a second signal ends the process; then says how many
// failed.
void hooks_close(Hooks *h);
