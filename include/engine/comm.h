// Comm: ranks that train one model together, and the Board on which those of one host see each other.
//
// A collective is a call that every rank makes, in the same order, with the same name and the same sizes. The name
// stands in errors; a rank that makes another call than the others is an error, not a hang. A NULL Comm is a world of
// one rank: every comm_* function then does nothing and succeeds.
#pragma once
#include "error.h"
#include "tensor.h"

#define COMM_RANKS    64  // on one host, at most
#define COMM_ID_BYTES 128 // what NCCL's ranks find each other by

typedef struct Device Device;
typedef struct Comm Comm;
typedef struct Board Board;

#ifdef __cplusplus
extern "C" {
#endif

// ---- board.c: the ranks of one host --------------------------------------------------------------------------------
// Shared memory with a line for each rank: process, phase, step, heartbeat, and the collective it waits in; the request
// to stop; the first failure. Ranks are processes, or threads in tests.

// A board for `locals` ranks: inherited over fork, or by name between processes that share no parent (the first one
// makes it; board_unlink takes the name away once all have it). NULL after filling *e.
Board *board_new(int locals, Error *e);
Board *board_open(const char *name, int locals, Error *e);
void board_unlink(const char *name);
// The handle of the rank that is number `self` on this host and `rank` of all. board_close of the first handle, the one
// of board_new or board_open, gives the memory back.
Board *board_join(Board *b, int self, int rank);
void board_close(Board *b);
int board_locals(const Board *b);

// Says where this rank is, and that it is alive; `phase` has at most 23 bytes.
void board_phase(Board *b, const char *phase, int64_t step);
void board_beat(Board *b);
// Where rank number `local` was when it last said so: "phase `rollout` of step 3".
void board_where(const Board *b, int local, char *out, size_t n);
int *board_stop(Board *b); // the signal that asked some rank to stop, or 0; set and read with __atomic_*
// The first failure of any rank counts: true where this is it. It ends every wait and sets board_stop, so that long
// phases end too.
bool board_fail(Board *b, ExitCode code, const char *text);
bool board_failed(const Board *b, Error *e); // true after putting that failure into *e (which may be NULL)
// The same for a rank that waits for others: its own exit code is then EXIT_COMM.
bool board_broken(const Board *b, Error *e);
bool board_speak(Board *b); // true once, for the rank that is to print the failure
// Waits until every rank of the host is here. False after filling *e (EXIT_COMM): a rank died; is elsewhere; has not
// been heard of for `timeout` seconds; or somebody failed.
bool board_meet(Board *b, const char *name, uint64_t bytes, double timeout, Error *e);

// ---- comm.c, comm.cu: collectives ------------------------------------------------------------------------------------
struct Comm {
    int rank, world;
    double timeout; // seconds
    Board *board;   // of this rank; the ranks of its host
    void *backend;
    // x[n] on the device: rank r brings elements comm_slice(n, r), and gets all.
    bool (*all_gather)(Comm *c, const char *name, Tensor x, Error *e);
    // x[n] on the device, f32 or bf16: this rank's slice becomes the sum over ranks, added in rank order in f32 and rounded
    // once. The rest of x is left as it is.
    bool (*reduce_scatter)(Comm *c, const char *name, Tensor x, Error *e);
    // Host memory: rank r brings bytes [end[r - 1], end[r]) of data, and gets all. end[world] is the same everywhere.
    bool (*share)(Comm *c, const char *name, void *data, const uint64_t *end, Error *e);
    void (*close)(Comm *c);
};

typedef struct {
    int rank, world;
    Board *board;
    double timeout;
    char id[COMM_ID_BYTES]; // cuda: made by rank 0
} CommConfig;
// Ranks on the CPU, all on one host. NULL after filling *e.
Comm *cpu_comm_open(const CommConfig *how, Error *e);
// Ranks on GPUs, through NCCL; every rank calls it. NULL after filling *e (EXIT_CONFIG: a build without NCCL).
Comm *cuda_comm_open(Device *d, const CommConfig *how, Error *e);
bool cuda_comm_id(char *id /*[COMM_ID_BYTES]*/, Error *e);
void comm_close(Comm *c);

static inline int comm_rank(const Comm *c) { return c ? c->rank : 0; }
static inline int comm_world(const Comm *c) { return c ? c->world : 1; }
// The part of n elements that belongs to `rank`: multiples of 64 elements but for the last rank's end.
void comm_slice(int64_t n, int rank, int world, int64_t *first, int64_t *count);
bool comm_all_gather(Comm *c, const char *name, Tensor x, Error *e);
bool comm_reduce_scatter(Comm *c, const char *name, Tensor x, Error *e);
bool comm_share(Comm *c, const char *name, void *data, const uint64_t *end, Error *e);
// x[n] becomes the sum over ranks, added in rank order.
bool comm_all_reduce(Comm *c, const char *name, double *x, int n, Error *e);
bool comm_broadcast(Comm *c, const char *name, void *data, size_t bytes, int root, Error *e);
bool comm_barrier(Comm *c, const char *name, Error *e);
// all[world * bytes] = every rank's `bytes`, in rank order.
bool comm_gather(Comm *c, const char *name, const void *mine, size_t bytes, void *all, Error *e);
// Everybody's bytes, of whatever number, one rank behind the other: *all (heap), rank r's end at end[r].
bool comm_collect(Comm *c, const char *name, const void *mine, size_t bytes, char **all, uint64_t *end, Error *e);

#ifdef __cplusplus
}
#endif
