// Evaluation: how many questions of a data set a model answers rightly, graded strictly and leniently.
#pragma once
#include "dataset.h"
#include "prompt.h"
#include "reward_set.h"
#include "engine.h"

// Lenient grading: 1 where the last number of the text equals gold as a number, whatever the format, else 0.
int grade_lenient(const char *text, const char *gold);
// Strict grading: the answer between the tags (the whole text, if it has none) equals gold as a string.
int grade_strict(const char *text, const char *gold);
#define PASS_POINTS 13 // k up to 4096
typedef struct {
    int64_t questions;
    int samples;                      // completions a question
    double strict, lenient;           // mean over completions of which there is a verdict; NaN: of none
    double graded;                    // how many those are: all, but where a grader abstains
    double pass[PASS_POINTS];         // pass@1, 2, 4 ... up to samples, lenient, unbiased, over
    double passable[PASS_POINTS];     //   the questions with so many verdicts
    double majority;                  // fraction of questions whose most frequent answer is right (maj@samples)
    double length, truncated;         // means over completions
    double reward, each[MAX_REWARDS]; // mean of all and of each reward, over completions that have one; NaN: none has
    double rewarded, scored[MAX_REWARDS]; // how many completions have a total, and each single reward
} EvalResult;
// Evaluates rows [0, limit) (0: all) of the data set, `samples` completions each; one is greedy.
bool eval_run(Engine *en, const Prompter *p, Dataset *data, const Rewards *rw, int64_t limit, int samples,
              EvalResult *out, Error *e);
// How many completions the grader gave no verdict of.
int64_t eval_ungraded(const EvalResult *res);
// Whether a result may take the place of what is at `path`. False after filling *e.
bool eval_replaces(const char *path, Error *e);
// The result as one JSON object.
void eval_json(const EvalResult *res, const Rewards *rw, Str *out);
