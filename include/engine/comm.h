// Comm: the collectives of ranks that train one model together; and the Board, by which the ranks of one host see each
// other.
//
// A collective is a call that every rank makes, in the same order, with the same name and the same sizes. The name
// appears in errors; a rank that makes another call than the others is an error, not a hang. A NULL Comm is a world of
// one rank: every comm_* function then does nothing and succeeds.
#pragma once
#include "error.h"
#include "tensor.h"

#define COMM_RANKS    64                 // on one host, at most
#define COMM_ID_BYTES 128                // the id by which NCCL's ranks find each other
#define COMM_ROOM     ((size_t)32 << 20) // bytes of its device that a Comm of GPUs keeps, for what others send

typedef struct Device Device;
typedef struct Comm Comm;
typedef struct Board Board;

#ifdef __cplusplus
extern "C" {
#endif

// ---- board.c: the ranks of one host --------------------------------------------------------------------------------
// A Board is shared memory with a line for each rank (process, phase, step, heartbeat, the collective it waits in), the
// request to stop, and the first failure. Ranks are processes, or threads in tests.

// Makes a board for `locals` ranks: board_new one that children inherit over fork, board_open one by name, for
// processes that share no parent (the first one makes it; board_unlink removes the name once all have it). NULL after
// filling *e.
Board *board_new(int locals, Error *e);
Board *board_open(const char *name, int locals, Error *e);
void board_unlink(const char *name);
// A handle for the rank that is number `self` on this host and `rank` of all. The memory is freed by board_close of the
// first handle, that of board_new or board_open.
Board *board_join(Board *b, int self, int rank);
void board_close(Board *b);
int board_locals(const Board *b);

// Says on the board where this rank is, and that it is alive (board_beat: only the latter); `phase` has at most 23
// bytes.
void board_phase(Board *b, const char *phase, int64_t step);
void board_beat(Board *b);
// Where rank number `local` was when it last said so: "phase `rollout` of step 3".
void board_where(const Board *b, int local, char *out, size_t n);
int *board_stop(Board *b); // the signal that asked some rank to stop, or 0; set and read with __atomic_*
// Puts a failure on the board, unless there is one already; true where this is the first. It ends every wait and sets
// board_stop, so that long phases end too.
bool board_fail(Board *b, ExitCode code, const char *text);
bool board_failed(const Board *b, Error *e); // true after putting that failure into *e (which may be NULL)
// board_failed for a rank that only waited for others: its exit code becomes EXIT_COMM.
bool board_broken(const Board *b, Error *e);
// Puts what such a rank found on the board, and the board's first failure into *e: a rank that tells of a failure and
// ends may be seen to have ended before its failure is read. Always false.
bool board_report(Board *b, const char *text, Error *e);
bool board_speak(Board *b); // true once, for the rank that is to print the failure
// Waits until every rank of the host has called this. False after filling *e (EXIT_COMM): a rank died, is in another
// collective, has given no sign of life for `timeout` seconds, or has failed.
bool board_meet(Board *b, const char *name, uint64_t bytes, double timeout, Error *e);

// ---- comm.c, comm.cu: collectives -----------------------------------------------------------------------------------
struct Comm {
    int rank, world;
    double timeout; // seconds
    Board *board;   // this rank's handle; shared with the ranks of its host
    void *backend;
    // Fills x[n], on the device, everywhere: rank r brings the elements of comm_slice(n, r).
    bool (*all_gather)(Comm *c, const char *name, Tensor x, Error *e);
    // Adds up x[n], on the device, f32 or bf16, over ranks, a part after another: of elements [first, first + count)
    // each rank gets the sums of those in its slice, comm_slice(n), formed in rank order in f32 and rounded once, so
    // that their bits do not depend on how x is cut into parts. Every rank adds the same parts in the same order, and
    // makes no other collective before reduce_end, which waits for all of them; what is not in its slice is void then.
    bool (*reduce_part)(Comm *c, const char *name, Tensor x, int64_t first, int64_t count, Error *e);
    bool (*reduce_end)(Comm *c, const char *name, Tensor x, Error *e);
    // Whether reduce_part only starts: it adds up what the work started before it leaves there, while later work of the
    // device, which must not touch the part, goes on beside it. Else it is done when it returns.
    bool beside;
    // Fills `data`, in host memory, everywhere: rank r brings bytes [end[r - 1], end[r]). end[world] is the same
    // everywhere.
    bool (*exchange)(Comm *c, const char *name, void *data, const uint64_t *end, Error *e);
    void (*close)(Comm *c);
};

typedef struct {
    int rank, world;
    Board *board;
    double timeout;
    char id[COMM_ID_BYTES]; // cuda: by cuda_comm_id of rank 0
} CommConfig;
// Opens a Comm of ranks on the CPU, all on one host. NULL after filling *e.
Comm *cpu_comm_open(const CommConfig *how, Error *e);
// Opens a Comm of ranks on GPUs, by NCCL; every rank calls it. NULL after filling *e (EXIT_CONFIG: a build without
// NCCL).
Comm *cuda_comm_open(Device *d, const CommConfig *how, Error *e);
bool cuda_comm_id(char *id /*[COMM_ID_BYTES]*/, Error *e);
void comm_close(Comm *c);

static inline int comm_rank(const Comm *c) { return c ? c->rank : 0; }
static inline int comm_world(const Comm *c) { return c ? c->world : 1; }
// The slice of n elements that belongs to `rank`: a multiple of 64 elements, but for the last rank, which has the rest
// too.
void comm_slice(int64_t n, int rank, int world, int64_t *first, int64_t *count);
bool comm_all_gather(Comm *c, const char *name, Tensor x, Error *e);
bool comm_reduce_part(Comm *c, const char *name, Tensor x, int64_t first, int64_t count, Error *e);
bool comm_reduce_end(Comm *c, const char *name, Tensor x, Error *e);
bool comm_exchange(Comm *c, const char *name, void *data, const uint64_t *end, Error *e);
// Makes x[n] the sum over ranks, added in rank order.
bool comm_all_reduce(Comm *c, const char *name, double *x, int n, Error *e);
bool comm_broadcast(Comm *c, const char *name, void *data, size_t bytes, int root, Error *e);
bool comm_barrier(Comm *c, const char *name, Error *e);
// Fills all[world * bytes] with every rank's `bytes`, in rank order.
bool comm_gather(Comm *c, const char *name, const void *mine, size_t bytes, void *all, Error *e);
// Collects bytes of which each rank may have another number: *all (heap) has them in rank order, those of rank r ending
// at end[r].
bool comm_collect(Comm *c, const char *name, const void *mine, size_t bytes, char **all, uint64_t *end, Error *e);

#ifdef __cplusplus
}
#endif
