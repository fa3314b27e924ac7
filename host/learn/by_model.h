// One reward that a model on the engine's device gives, and the two kinds of it: score_model.c, reply_model.c.
#pragma once
#include "arena.h"
#include "hf.h"
#include "ops.h"
#include "reward.h"
#include "tokenizer.h"

typedef struct ByModel ByModel;
typedef struct {
    // Looks at what the directory says and takes what the kind needs on the host. False after filling *e.
    bool (*describe)(ByModel *m, Error *e);
    void (*carve_work)(ByModel *m, Arena *a); // what scoring needs on the device; called again where memory stays
    // Fills score[n]. False after filling *e: a signal (EXIT_STOPPED), or the device failed.
    bool (*score)(ByModel *m, Device *d, const Sample *samples, int n, float *score, Error *e);
    void (*close)(ByModel *m); // of described ones, also if that failed
    const char *limit;         // the parameter that says how many tokens are too many
} ModelKind;
extern const ModelKind score_model, reply_model;

struct ByModel {
    const ModelKind *kind;
    const Reward *reward;
    int place;           // among the run's rewards; behind them: it is the grader
    bool own;            // the model is the one that the run begins with, whose weights are elsewhere
    bool unmade;         // it is not made yet: the directory is that of what it is made of
    bool asked;          // it has scored samples
    const char *dir;     // borrowed: a model's, or that of `adapter`'s model
    const char *adapter; // borrowed; NULL: none
    char *beside;        // what its config says it was trained beside
    AdapterSpec lora;
    HfConfig hf;
    DType dtype;
    Tokenizer *tokenizer;
    Model model;
    void *data; // the kind's
};
