// metrics.jsonl and completions.jsonl in output_dir.
#pragma once
#include "error.h"
#include "events.h"
#include <stdint.h>

typedef struct Metrics Metrics;
typedef struct {
    int64_t step;
    const char *prompt, *completion, *answer;
    const char *const *reward_names; // [n_rewards]
    const float *score;              // [n_rewards]; NaN (abstains) becomes null
    int n_rewards;
    float reward, advantage;
    bool truncated; // it reached max_completion_length without an end token
    // Its tokens, if they are logged: the text of each, its log-prob as sampled, and the entropy of the distribution it
    // was drawn from, in nats.
    const char *const *piece; // [n_tokens]
    const float *logp, *entropy;
    int n_tokens;
    const char *file; // of the question, where there are several; else NULL
} CompletionRecord;
// Opens both logs, each cut back to a checkpoint's length (0: a new run). NULL after filling *e.
Metrics *metrics_open(const char *output_dir, int64_t metrics_lines, int64_t completions_lines, Error *e);
// Sends what is added from here on to TensorBoard's file, too, and first what metrics.jsonl has and that file lacks: it
// was damaged, removed, or not wanted before. metrics_close closes `l`.
void metrics_events(Metrics *m, EventLog *l);
void metrics_close(Metrics *m); // drops what was not committed
// Adds a number to the current line of metrics.jsonl, behind those added before. A value reads back as the same f32;
// NaN and Inf become null.
void metrics_add(Metrics *m, const char *name, double value);
void metrics_add_int(Metrics *m, const char *name, int64_t value);
void metrics_completion(Metrics *m, const CompletionRecord *r); // adds a line to completions.jsonl
// Ends the line of metrics.jsonl and writes what was added to both logs: whole lines, or nothing (EXIT_DISK).
bool metrics_commit(Metrics *m, Error *e);
// The descriptors of both logs, for reading by offset. Never close them, nor any other descriptor of the same file:
// POSIX drops the process's lock on the file then.
void metrics_files(const Metrics *m, int *metrics, int *completions);
// The last line of metrics.jsonl that this process wrote for a step, and for an evaluation, without its newline; "{}"
// before there is one.
const char *metrics_last(const Metrics *m);
const char *metrics_last_eval(const Metrics *m);
// Called before a checkpoint: waits until what was committed is on the disk, and returns the lengths of the logs.
bool metrics_sync(Metrics *m, int64_t *metrics_lines, int64_t *completions_lines, Error *e);
