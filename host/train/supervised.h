// A run that learns from rows of training files as they stand, without sampling: what the commands `sft` and
// `reward_model` share. A command's own struct begins with a Supervised.
#pragma once
#include "mix.h"
#include "train.h"

typedef struct {
    const Config *cfg;
    Learner learner;
    Mix *data;
    RunReport report;
    TrainState state; // the last consistent point
    int64_t total_steps, steps_per_epoch;
    char bad[160]; // what of the last skipped step was not finite
} Supervised;

// What a command does of it. A bool is false after filling *e; of `step` also, with e->code EXIT_OK, where a signal
// stopped it.
typedef struct {
    const char *command, *rows;          // "sft", "examples": its name, and that of what it learns from
    bool (*open)(Supervised *, Error *); // the engine, data, the learner, and what else it needs
    bool (*step)(Supervised *, Error *);
    bool (*evaluate)(Supervised *, Error *); // every eval_steps, and at the end; NULL: never
    void (*close)(Supervised *);
} SupervisedKind;

// The whole command: its configuration, ranks, resuming, steps, evaluations, checkpoints. s is all zeros.
ExitCode supervised_command(const SupervisedKind *kind, Supervised *s, int argc, char **argv, Error *e);
// Whether max_length is in the model's context. False after filling *e.
bool max_length_fits(const Config *c, const HfConfig *hf, Error *e);
// Updates the weights with gradients that are there, begun at `start` (clock_seconds) from `tokens` tokens of all
// ranks, and counts the step; nothing changes where the loss or a gradient is not finite. Shows loss and accuracy (NaN:
// none). *log: this rank logs the step; its number, epoch, loss, gradient norm and learning rate are added.
bool supervised_update(Supervised *s, double start, double loss, double accuracy, int64_t tokens, bool *log, Error *e);
