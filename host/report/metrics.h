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
    bool truncated; // it was cut at its longest
    // Its tokens, where they are logged: what each shows, its log-prob as sampled and the entropy of what it was drawn from, nats.
    const char *const *piece; // [n_tokens]
    const float *logp, *entropy;
    int n_tokens;
} CompletionRecord;
// Opens both logs, each cut back to a checkpoint's length (0: a new run). NULL after filling *e.
Metrics *metrics_open(const char *output_dir, int64_t metrics_lines, int64_t completions_lines, Error *e);
// What is added from here on goes to TensorBoard's file too; metrics_close closes it.
void metrics_events(Metrics *m, EventLog *l);
void metrics_close(Metrics *m); // drops what was not committed
// A line of metrics.jsonl, name by name in the order it shall have. Numbers read back as the same f32; NaN, Inf: null.
void metrics_add(Metrics *m, const char *name, double value);
void metrics_add_int(Metrics *m, const char *name, int64_t value);
void metrics_completion(Metrics *m, const CompletionRecord *r); // a line of completions.jsonl
// Writes what was added since the last commit: whole lines, or nothing (EXIT_DISK).
bool metrics_commit(Metrics *m, Error *e);
// The descriptors of both, for reading by offset; not to be closed: with any descriptor of a file its lock goes too.
void metrics_files(const Metrics *m, int *metrics, int *completions);
// The last line of metrics.jsonl that this process wrote, without its newline; "{}" before there is one.
const char *metrics_last(const Metrics *m);
// For a checkpoint: what was committed is on the disk, and how long the logs are now.
bool metrics_sync(Metrics *m, int64_t *metrics_lines, int64_t *completions_lines, Error *e);
