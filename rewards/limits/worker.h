// Long-lived helper programs that answer one line of JSON with one line of JSON, and a pool of them for many threads.
//
// A request is an object with a whole number "id"; the answer is an object with the same id. A worker that is late, ends,
// writes too much or anything else is killed with its whole process group, and started again for the next request. Each
// start begins with the request {"id": 0, "samples": []}, which must be answered too. Workers are guarded: they end with
// this program, however that ends. Where a stop is requested, nobody waits for them any more.
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

// Starts the first worker, so that one that cannot work is known at once. NULL after filling *e.
WorkerPool *workers_open(const WorkerOptions *o, Error *e);
void workers_close(WorkerPool *pool);

// Sends {"id": N, <rest>} to a free worker (waits for one) and gives its answer, at most `limit` bytes; the caller frees
// it with json_decref. NULL after an error, *why says which: REWARD_FAULTS where it was given up because a stop is requested,
// and the scores will not be used. The id is the pool's.
json_t *worker_ask(WorkerPool *pool, const char *rest, size_t limit, RewardFault *why);
// As worker_ask, for an answer that came and turned out to be no good: the caller's word for it is noted once.
void workers_blame(WorkerPool *pool, const char *what);

// One line as an answer to request `id`; NULL where it is none.
json_t *worker_answer(const char *line, size_t n, int64_t id);
