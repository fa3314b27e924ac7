// Long-lived helper programs that answer one line of JSON with one line of JSON, and a pool of them for many threads.
//
// A request is an object with a whole number "id"; the answer is an object with the same id. A worker that is late,
// ends, or writes too much or something else, is killed with its whole process group, and started again for the next
// request. Each start begins with the request {"id": 0, "samples": []}, which must be answered too. Workers are
// guarded: they end with this program, however that ends. Once a stop is requested, nothing waits for them any more.
#pragma once
#include "process.h"
#include "reward.h"
#include <jansson.h>

typedef struct WorkerPool WorkerPool;
typedef struct {
    const char *name;              // for messages
    ProcessSpec command;           // borrowed, as is all it points at
    int workers;                   // at most so many run at a time
    const char *hello;             // the rest of the first request; NULL: "samples": []
    double start_timeout, timeout; // seconds for the first answer, and for each other one
} WorkerOptions;

// Opens a pool and starts its first worker, so that a program that cannot work is found at once. NULL after filling *e.
WorkerPool *workers_open(const WorkerOptions *o, Error *e);
void workers_close(WorkerPool *pool);

// Sends {"id": N, <rest>} to a free worker (waiting for one) and returns its answer, of at most `limit` bytes; the
// caller frees it with json_decref. The pool chooses N. NULL after a fault, which *why tells: REWARD_FAULTS where it
// was given up because a stop is requested, so that the scores will not be used.
json_t *worker_ask(WorkerPool *pool, const char *rest, size_t limit, RewardFault *why);
// For an answer that came but turned out to be wrong: prints `what`, the caller's word for it, as a note, once for the
// pool.
void workers_blame(WorkerPool *pool, const char *what);

// Reads a line as the answer to request `id`; NULL where it is none.
json_t *worker_answer(const char *line, size_t n, int64_t id);
