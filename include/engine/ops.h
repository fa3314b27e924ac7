// Every operation the engine computes, one line each; and the Device, which computes them.
//
// OPS generates the members of struct Device, the prototypes of cpu_<op> and cuda_<op>, and both tables: an op without
// its twin is a link error. Adding one is four touches: a line here, the two twins (NAME.c, NAME.cu), its row in
// tests/cases.h with arguments and oracle beside it.
//
// Rules for every op:
//   - never allocates (scratch comes from d->scratch, marked and rewound), never blocks, reads no global. On a GPU an
//     op only starts work on the stream: rewound scratch may still be in use, by work that is done before what takes
//     it next;
//   - storage is f32 or bf16 and may differ between arguments only where the line says so; arithmetic is f32;
//   - the value of an output row depends on that row's inputs alone: not on how many rows are beside it, not on
//     their order, not on the number of threads. Sums over D, F, K(eys) or V run in fixed chunks counted from 0,
//     combined in ascending order. This is what makes sampled and trained log-probs equal to the bit;
//   - `x[A,B]` after a name is its shape; `?` marks an argument that may be NONE; `=` after an output means it is
//     set, `+=` that it is added to.
#pragma once
#include "arena.h"
#include "cpu_isa.h"
#include "error.h"
#include "grpo.h"
#include "rope.h"

typedef struct Device Device;

// How tokens are drawn. The filters apply in HF generate's order: repetition penalty, temperature, top-k, top-p, min-p.
typedef struct {
    float temperature;        // 0: greedy
    int top_k;                // 0: off
    float top_p;              // 1: off
    float min_p;              // 0: off
    float repetition_penalty; // 1: off
    uint64_t seed;
} SampleParams;

// Where a draw's results for B rows go. lse and entropy are those of the distribution that logp is of: all logits over
// the temperature, before filters.
typedef struct {
    Tensor token;              // [B] I32
    Tensor logp, lse, entropy; // [B] [B]? [B]? F32: the same bits as `logprob` gives for that token
} SampleOut;

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    double grad_scale;  // gradients are multiplied by this first (global clipping)
    int64_t step;       // 1, 2, ...: bias correction
    uint64_t seed;      // stochastic rounding of bf16 state, keyed by (seed, step, element)
    int64_t first_elem; // index of the slice's first element in the whole, for that key
} AdamParams;

// The rows of a decode batch, on the device. Row j belongs to a sequence where key[j] >= 0; else it is idle: kv_row and
// slot are -1 too, everything else 0. For a sequence that has drawn n tokens after a prompt of m, ids has the last of
// them, at position m + n - 1 and suffix row n - 1; for one that has drawn none, the prompt's last token.
typedef struct {
    Tensor ids, pos, kv_row, span; // [B] [B] [B] [B,4] I32: what embed and rope_decode take
    Tensor key, place;             // [B] I64, [B] I32: what sample takes; place is the number of tokens drawn
    Tensor slot;                   // [B] I32: the number by which the caller knows the sequence, 0 .. slots - 1
    Tensor seen, seen_len;         // [B,C]? [B]? I32: the repetition penalty's ids, prompt and completion
    Tensor stop;                   // [slots] I32: not 0 where the sequence is to end
    Tensor count;                  // [2] I32: rows in use; rows of `drawn` written so far
    Tensor drawn;                  // [S,DRAWN_COUNT,slots] I32: a ring
} DecodeRows;

// The columns of one row of DecodeRows.drawn: the slot (-1: none), the token, and the bits of its f32 results.
enum { DRAWN_SLOT, DRAWN_TOKEN, DRAWN_LOGP, DRAWN_LSE, DRAWN_ENTROPY, DRAWN_COUNT };

#define MAX_EOS 8
typedef struct {
    int32_t eos[MAX_EOS]; // ids that end a sequence
    int n_eos;
    int max_completion; // tokens: the length that ends it
} EndRule;

// Low-rank adapters beside the projections whose columns one product has side by side (q, k and v). Those that have one
// have their `rank` columns of z one after another, and their [rank, width] of w.
typedef struct {
    int n, rank;
    int64_t width[3]; // [n] columns of each projection
    bool low[3];      // [n] it has an adapter
    float scale;
} LowRank;

// What rmsnorm takes, for an op that norms and goes on.
typedef struct {
    Tensor y, sum, rstd, x, delta, w; // [T,D] [T,D]? [T] [T,D] [T,D]? [D]
    float eps;
} Norm;

// clang-format off
#define OPS(OP)                                                                                                       \
    /* x = value */                                                                                                   \
    OP(fill, (Device *d, Tensor x, float value))                                                                      \
    /* y = x, converting between f32 and bf16 */                                                                      \
    OP(cast, (Device *d, Tensor y, Tensor x))                                                                         \
    /* y = alpha x + (1 - alpha) y: the reference model's moving average; at alpha 1 y equals x */               \
    OP(lerp, (Device *d, Tensor y, Tensor x, float alpha))                                                            \
    /* out[1] f64 (as I64 storage) = sum of x^2, in f64, chunks of 4096 combined in order */                          \
    OP(sumsq, (Device *d, Tensor out, Tensor x))                                                                      \
    /* y[T,D] = w[V,D] rows ids[T]        dw[V,D] += dy rows, ascending token order; none of id `pad` (< 0: no such) */\
    OP(embed, (Device *d, Tensor y, Tensor w, Tensor ids))                                                            \
    OP(embed_bwd, (Device *d, Tensor dw, Tensor dy, Tensor ids, int pad))                                             \
    /* sum[T,D]? = x + delta?; y[T,D] = sum * rstd * w[D]; rstd[T] f32 = 1/sqrt(mean(sum^2) + eps) */                 \
    /* without delta, sum is not written and x stands for it; the norm reads the sum as stored (rounded) */           \
    OP(rmsnorm, (Device *d, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor delta, Tensor w, float eps))          \
    /* dx[T,D] = dres[T,D]? + gradient through the norm (dx may be dres); dw[D]? += */                                 \
    OP(rmsnorm_bwd, (Device *d, Tensor dx, Tensor dw, Tensor dres, Tensor dy, Tensor sum, Tensor rstd, Tensor w))     \
    /* y[M,N] = x[M,K] w[N,K]^T */                                                                                    \
    OP(matmul, (Device *d, Tensor y, Tensor x, Tensor w))                                                             \
    /* dx[M,K]? = dy[M,N] w[N,K];  dw[N,K]? += dy^T x;  dw's dtype may differ */                                      \
    OP(matmul_bwd, (Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w))                                  \
    /* low-rank adapters, projection by projection: see LowRank; z[T,R] and w are f32. z = scale x w^T */           \
    OP(lora_down, (Device *d, Tensor z, Tensor x, Tensor w, LowRank p))                                               \
    /* y[T,N] = base[T,N] + scale z w, rounded once; base is f32 or as y, and may be y. A projection without one: base */    \
    OP(lora_up, (Device *d, Tensor y, Tensor base, Tensor z, Tensor w, LowRank p))                                    \
    /* dw += scale z^T x */                                                                                           \
    OP(lora_grad, (Device *d, Tensor dw, Tensor z, Tensor x, LowRank p))                                              \
    /* in place on qkv[T,H+2K,d]: each query head = its RMSNorm times q_w[d], each key head times k_w[d]; values stay. */ \
    /* raw[T,H+K,d]? = those heads before */                                                                          \
    OP(qk_norm, (Device *d, Tensor qkv, Tensor raw, Tensor q_w, Tensor k_w, int n_kv, float eps))                     \
    /* in place on dqkv: query and key heads; dq_w[d]? +=, dk_w[d]? +=*/                                               \
    OP(qk_norm_bwd, (Device *d, Tensor dqkv, Tensor dq_w, Tensor dk_w, Tensor raw, Tensor q_w, Tensor k_w, int n_kv,  \
                     float eps))                                                                                      \
    /* in place on qkv[T,H+2K,d]: += bias[(H+2K)d]?, then q and k rotated (rotate-half, HF's RoPE) by pos[T] */       \
    /* i32 times the table's frequencies (on the host, read at once); where kv[R,2K,d]? is given, row t's k and v */  \
    /* heads are also stored at row kv_row[T] i32 (< 0: no) */                                                        \
    OP(rope, (Device *d, Tensor qkv, Tensor bias, Tensor pos, const RopeTable *table, int n_kv, Tensor kv,            \
              Tensor kv_row))                                                                                         \
    /* in place on dqkv: rotated back; dbias[(H+2K)d]? += column sums */                                              \
    OP(rope_bwd, (Device *d, Tensor dqkv, Tensor dbias, Tensor pos, const RopeTable *table, int n_kv))                \
    /* causal GQA over packed sequences: y[T,H,d] =, lse[T,H] f32 =; seq[B+1] i32 offsets; scale 1/sqrt(d) */         \
    /* prefix[B]? i32: sequence b goes on where sequence prefix[b] ends (< 0: it begins at position 0). That one has */  \
    /* no prefix itself, and those that go on from it follow it directly */                                           \
    OP(attention, (Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv))                 \
    /* dqkv[T,H+2K,d] =; of a prefix's keys: the sum over itself, then those that go on from it, in their order */    \
    OP(attention_bwd, (Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq,               \
                       Tensor prefix, int n_kv))                                                                      \
    /* one query a sequence over the cache: y[B,H,d] =; span[B,4] i32 = {prefix_row, prefix_len, suffix_row, */       \
    /* suffix_len}: key j lies at row prefix_row + j, or suffix_row + j - prefix_len; an empty span gives 0 */        \
    OP(decode, (Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, int n_kv))                                   \
    /* qk_norm where q_norm[d] and k_norm[d] are given, rope, then decode, to the bit. The last key of span[b] is */    \
    /* token b's own, at row kv_row[b] of kv, where it is stored (< 0: token b has none, and an empty span). What qkv */ \
    /* holds afterwards is not defined */                                                                              \
    OP(rope_decode, (Device *d, Tensor y, Tensor qkv, Tensor q_norm, Tensor k_norm, float eps, Tensor bias,            \
                     Tensor pos, const RopeTable *table, int n_kv, Tensor kv, Tensor kv_row, Tensor span))             \
    /* h[T,F] = silu(gu[T,:F]) * gu[T,F:] (gu is [T,2F])        dgu[T,2F] = */                                        \
    OP(swiglu, (Device *d, Tensor h, Tensor gu))                                                                      \
    OP(swiglu_bwd, (Device *d, Tensor dgu, Tensor dh, Tensor gu))                                                     \
    /* matmul, then swiglu: gu[T,2F]? = x[T,D] w[2F,D]^T, h[T,F] = swiglu of gu as stored, to the bit */              \
    OP(matmul_swiglu, (Device *d, Tensor h, Tensor gu, Tensor x, Tensor w))                                           \
    /* rmsnorm, then matmul of its y: y[T,N] = n.y w[N,D]^T; or, where h[T,N/2]? is given, matmul_swiglu (y? is gu), to */ \
    /* the bit. n.sum is set as by rmsnorm; what n.y and n.rstd hold afterwards is not defined. No output may be n.x or */ \
    /* n.delta */                                                                                                     \
    OP(norm_matmul, (Device *d, Tensor y, Tensor h, Norm n, Tensor w))                                                \
    /* the head, streamed: with logits z = x[rows[n]] w[V,D]^T / temperature,  lse[N] = logsumexp(z), */              \
    /* logp[N] = z[target[n]] - lse, entropy[N]? = lse - sum p z;  f32;  rows[N], target[N] i32 */                    \
    OP(logprob, (Device *d, Tensor logp, Tensor lse, Tensor entropy, Tensor x, Tensor rows, Tensor w,                 \
                 Tensor target, float temperature))                                                                   \
    /* dx[T,D] = (rows not listed: 0), dw[V,D]? += from dlogp[N] and dentropy[N]?, all f32 but dx */                  \
    OP(logprob_bwd, (Device *d, Tensor dx, Tensor dw, Tensor dlogp, Tensor dentropy, Tensor x, Tensor rows,           \
                     Tensor w, Tensor target, Tensor lse, Tensor entropy, float temperature))                         \
    /* draws a token for each row of x[B,D] and gives its log-prob, the same bits as `logprob` would. Random */       \
    /* numbers are Philox(seed, key[B] i64, pos[B] i32, token): the draw does not depend on the batch. */             \
    /* seen[B,C]? i32 with seen_len[B]? i32: the ids the repetition penalty applies to. key < 0: row idle */          \
    OP(sample, (Device *d, SampleOut to, Tensor x, Tensor w, Tensor key, Tensor pos, Tensor seen, Tensor seen_len,    \
                SampleParams p))                                                                                      \
    /* takes in what was drawn for rows first .. first + n: writes it to the next row of `drawn` (columns from 0 on, */    \
    /* slot -1 in the rest), appends the tokens to seen, and moves those rows on by a token. Then sequences */             \
    /* that ended (an id of eos, the length, stop) become idle, and the others move to the front of all B rows, in */     \
    /* their order. Where nothing was drawn (no token), only this last part */                                            \
    OP(advance, (Device *d, DecodeRows rows, SampleOut drawn, int64_t first, EndRule rule))                            \
    /* the GRPO loss of one micro-batch and its gradients: see grpo.h */                                              \
    OP(grpo_loss, (Device *d, GrpoOut out, GrpoIn in, GrpoParams p))                                                  \
    /* AdamW (Loshchilov & Hutter) on master[n]? f32 (else on w itself); m[n], v[n] f32 or bf16; w = rounded. A */     \
    /* u16 master is a split one: its low half, with w bf16 and v f32 (adamw.h) */                                    \
    OP(adamw, (Device *d, Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, AdamParams p))

// clang-format on

#define OP_MEMBER(name, args)         void(*name) args;
#define OP_PROTOTYPE_CPU(name, args)  void cpu_##name args;
#define OP_PROTOTYPE_CUDA(name, args) void cuda_##name args;

// The ops of one instruction set of the CPU.
typedef struct {
    OPS(OP_MEMBER)
} OpTable;

#define VARIANT_LINE 160 // bytes

typedef struct Graph Graph;
typedef struct Event Event;

// Who computes matrix products on a GPU: its own kernels, or the vendor's library (cuBLASLt).
typedef enum {
    PRODUCTS_CHOSEN,  // forward its own; backward, by the shape, whichever is expected to be faster
    PRODUCTS_OWN,     // its own, backward too wherever there is a kernel for it
    PRODUCTS_LIBRARY, // the library, to measure what the contract above costs: a row's bits depend on those beside it
} Products;

struct Device {
    const char *name;  // "cpu" or "cuda"
    bool on_host;      // whether its memory is host memory: a tensor's data may be read and written without a copy
    char about[160];   // what it is, for people: cores and instruction set, or card and driver
    char instead[384]; // where device=auto took the CPU: why not a GPU; else ""
    char numerics[32]; // what the last bits of results depend on: the instruction set, or the card's generation
    double peak_flops; // dense bf16 products a second by the card's data sheet, in FLOP; 0: not known
    Arena scratch;     // of its memory, for the ops themselves: at least DEVICE_SCRATCH bytes
    void *backend;     // the backend's own
    Products products; // who computes matrix products; the CPU's are all its own
    int proposal;      // which of its proposals for a shape the library takes, from 0; or the last that it has
    // The first failure of any op or copy, one line with what to do; "" while there is none. Ops return nothing:
    // whoever waits for results looks here afterwards.
    char error[256];
    ExitCode error_code;
    // Memory of the device. alloc returns NULL when there is not enough; fresh memory is zero.
    void *(*alloc)(Device *d, size_t bytes);
    void (*free)(Device *d, void *p, size_t bytes);
    // Copies in any direction, ordered with the ops. On return `src` may be changed; a copy to host memory is then
    // complete.
    void (*copy)(Device *d, void *dst, const void *src, size_t bytes);
    void (*sync)(Device *d);          // waits for all work started so far
    size_t (*memory)(Device *d);      // bytes the device has in all
    size_t (*memory_used)(Device *d); // bytes of a card that any process has in use now; on the CPU machine_memory_peak
    // copy_async copies without waiting, ordered with the ops; host memory must be from host_alloc (NULL: no memory),
    // and must not be touched until an event recorded later has passed. An event may be recorded again once it has
    // passed.
    void *(*host_alloc)(Device *d, size_t bytes);
    void (*host_free)(Device *d, void *host, size_t bytes);
    void (*copy_async)(Device *d, void *dst, const void *src, size_t bytes);
    // fetch_async copies to `host` once the work started so far is done, while later work already runs; that must not
    // change src until event e, which is recorded after the copy, has passed.
    void (*fetch_async)(Device *d, void *host, const void *src, size_t bytes, Event *e);
    Event *(*event_new)(Device *d); // NULL where it failed, the reason in d->error
    void (*event_record)(Device *d, Event *e);
    void (*event_wait)(Device *d, Event *e); // returns at once where it was never recorded, or the device has failed
    void (*event_free)(Device *d, Event *e);
    // Graphs: the ops called between begin and end are recorded, not run; graph_run starts all of them at once, with
    // the same pointers and scalars. Only ops may be called between. NULL on the CPU, which has no graphs.
    // constant?: memory that none of the recorded ops writes, as the weights while tokens are drawn. A product may read
    // it while the ops recorded before it still run. (What ran before the graph is done when its first op begins.)
    void (*graph_begin)(Device *d, Tensor constant);
    Graph *(*graph_end)(Device *d); // NULL where it failed, the reason in d->error
    void (*graph_run)(Device *d, Graph *g);
    void (*graph_free)(Device *d, Graph *g);
    // range opens a profiler's range (NVTX) by its name, or closes the innermost with NULL; every op opens its own.
    // record starts and ends what a profiler that waits for it (nsys, ncu) records. NULL on the CPU.
    void (*range)(Device *d, const char *name);
    void (*record)(Device *d, bool on);
    // Writes what came of kernel i of those for one kind of card alone ("products of many tokens by wgmma: used"), and
    // returns it; NULL past the last one. NULL itself on the CPU.
    const char *(*variant)(const Device *d, int i, char line[VARIANT_LINE]);
    OPS(OP_MEMBER)
};

// d->range where the device has it.
static inline void device_range(Device *d, const char *name) {
    if (d->range) d->range(d, name);
}

#define DEVICE_SCRATCH ((size_t)64 << 20) // bytes; ops block their work to fit, whatever the shapes

#ifdef __cplusplus
extern "C" {
#endif
// Opens the CPU: `threads` OpenMP threads (0: all cores), CPU_ISA_*. NULL after filling *e: an instruction set that is
// not there (EXIT_CONFIG), no memory (EXIT_MEMORY).
Device *cpu_open(int threads, int isa, Error *e);
void cpu_close(Device *d);
// Opens GPU number `ordinal` of those that CUDA_VISIBLE_DEVICES leaves. NULL after filling *e: no driver, a driver that
// is too old, no such GPU, a GPU the build has no code for (all EXIT_CONFIG), no memory (EXIT_MEMORY).
Device *cuda_open(int ordinal, Error *e);
void cuda_close(Device *d);
OPS(OP_PROTOTYPE_CPU)
OPS(OP_PROTOTYPE_CUDA)
#ifdef __cplusplus
}
#endif
