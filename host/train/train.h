// The GRPO step and the loop around it.
#pragma once
#include "hooks.h"
#include "live.h"
#include "micro.h"
#include "profile.h"
#include "prompt.h"
#include "reward_threads.h"
#include "run_state.h"

typedef enum { STEP_DONE, STEP_SKIPPED, STEP_STOPPED, STEP_FAILED } StepResult; // of the ranks' results the last counts
// What one step measured beside the batch's columns. Times in seconds.
typedef struct {
    double grad_norm, learning_rate;
    bool generated;          // this step drew a new generation
    int first;               // index into Generation.order of the first sequence it trained on
    double rows, rows_alone; // of training's micro-batches, of all ranks; what they would be if no prompt were shared
    // Of this rank. Exchanges with other ranks, and waiting for them, are in reference_time and optimizer_time, and are
    // what is left of step_time.
    double rollout_time, reward_time /* after the rollout */, reference_time, train_time, optimizer_time, step_time;
    double process_memory; // bytes that this rank's process had at most so far
    double device_memory;  // bytes in use on its GPU, by any process; 0: it has none
    char bad[160];         // STEP_SKIPPED: what was not finite
} StepStats;
// Where questions come from.
typedef struct {
    Prompter prompter;
    Mix *data;
    Dataset *held_out; // NULL: no evaluations on the way
    int64_t steps_per_epoch;
} Questions;
// What judges answers.
typedef struct {
    Rewards rewards;
    Scorer *scorer;
    float weights[MAX_REWARDS];
    int64_t logged[MAX_REWARDS][REWARD_FAULTS]; // the faults of all ranks that are in the log
} Scoring;
// A generation: the completions of one rollout, and how training takes them.
typedef struct {
    Batch batch;
    int64_t next_key;          // first unused sequence key
    int decoded;               // sequences of the current rollout that have ended
    bool exact;                // the sampler's numbers are those of training, to the bit: so with our own products
    int steps_per_pass;        // optimizer steps one pass over a generation feeds
    int *order;                // [batch.n] the order its sequences are trained in
    float (*metric)[GM_COUNT]; // [batch.n] grpo_loss's sums
    Packing packing;
    int32_t *joined; // [max_prompt + max_completion] prompt and completion of one sequence
    float *scored;   // [RunShape.held] staging of per-token columns
} Generation;
typedef struct {
    const Config *cfg;
    Learner learner;
    Questions questions;
    Scoring scoring;
    Generation generation;
    RunReport report;
    StepStats stats;
    TrainState state; // the last consistent point
    int64_t total_steps;
} Trainer;
bool trainer_open(Trainer *t, const Config *c, Error *e);
void trainer_close(Trainer *t);
// Continues from the newest good checkpoint of output_dir by the `resume` rule, and opens the logs.
bool trainer_resume(Trainer *t, Error *e);
// Saves the last consistent point as output_dir/step_N.
bool trainer_save(Trainer *t, Error *e);
// One optimizer step; a new generation first where the last one is used up. STEP_SKIPPED: something was not finite
// (stats.bad), nothing changed but the counters. STEP_STOPPED: a signal; t->state is untouched. STEP_FAILED: *e.
StepResult grpo_step(Trainer *t, Error *e);
// The order a generation of n sequences is trained in, in so many optimizer steps: the batch's own for one; else which
// are in which step is drawn, and those of a step ascend, so that a prompt's are neighbours.
void grpo_order(int *order, int n, int steps, uint64_t seed, uint64_t stream);
// Whether all rewards of group p are equal, or absent, so that it teaches nothing.
bool group_is_flat(const Batch *b, int p);
// Logs a step that counted (done or skipped).
bool train_log(Trainer *t, StepResult result, Error *e);
