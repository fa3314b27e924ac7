// Tile products, from which matmul, logprob and sample are made: a block multiplies rows of weights w[.,K] by rows of
// tokens x[.,K], both contiguous along K.
//
// One output is one fixed sequence of instructions, whatever the tile, its place in the tile, and the rows beside it:
//   - K is cut into chunks of K_CHUNK_BYTES counted from 0. A chunk's accumulator starts at 0 and takes its terms in
//     ascending k: for bf16 by mma.m16n8k16 with the weights always as A (the 16 rows) and the tokens as B (the 8
//     columns), for f32 by one fmaf a term. The last chunk is padded with zeros to whole steps of 128 bytes;
//   - the sum starts at 0 and takes the chunks in ascending order. A block that has all chunks adds them itself;
//     blocks that have one chunk each store it, and the last of them adds them up in the same order (matmul.cu).
//
// MmaTile (bf16) and FmaTile (f32) have the same members, so a kernel is a template on its tile:
//   T               the storage type of w and x
//   W, X            rows of weights and of tokens in a tile
//   THREADS         threads of a block, one-dimensional
//   SUMS            outputs a thread holds: float sum[SUMS]
//   SHARED_BYTES    dynamic shared memory for the stages of the copy pipeline, 128-byte aligned (SHARED_DYNAMIC)
//   HOLD            where the sum of the chunks so far is kept while the next chunk accumulates
//   RESIDENT        the tokens are in shared memory already, all K of them: stages hold weights alone
//   each(f)         calls f(j, w, x) for every j < SUMS: sum[j] is the product of the tile's rows w and x
//
// tile_stream is the pipeline: for tiles 0, 1, ... of W weights it calls done(tile, sum) while the copies for the next
// tile are under way. Every thread calls done, which may use barriers, and shared memory other than the stages. A block
// of matmul has one tile; after tile_stream and one more __syncthreads the stages are free for other use.
//
// Shared memory: a stage holds W + X rows of 128 bytes, which is eight packs of 16; pack p of row r is stored at p ^ (r
// % 8), so that eight rows' packs at one k are in different banks, for the copies in, ldmatrix and 16-byte loads alike.
#pragma once
#include "ptx.cuh"

#define K_CHUNK_BYTES 2048 // of a row: the unit of the numerics contract
#define ROW_BYTES     128  // bytes of one row in a stage
#define ROW_PACKS     8    // the same in packs of 16 bytes

template <typename T> constexpr int K_CHUNK = K_CHUNK_BYTES / (int)sizeof(T); // elements
template <typename T> static int64_t k_chunks(int64_t K) { return K > 0 ? (K + K_CHUNK<T> - 1) / K_CHUNK<T> : 1; }

// Where a thread keeps the sum over chunks. IN_REGISTERS: beside the accumulators. IN_SHARED: in shared memory behind
// the stages, for tiles whose accumulators need all registers. ONE_CHUNK: nowhere, as K is no longer than one chunk.
enum Hold { IN_REGISTERS, IN_SHARED, ONE_CHUNK };

// ---- copying --------------------------------------------------------------------------------------------------------
// Copies ROWS rows of an operand to the stages; a thread always copies the same pack of the same rows.
template <typename T, int ROWS, int THREADS> struct Panel {
    static constexpr int EACH = (ROWS * ROW_PACKS + THREADS - 1) / THREADS, APART = THREADS / ROW_PACKS;
    static constexpr int ELEMS = Pack<T>::N;
    const T *row[EACH];
    unsigned valid; // bit i: row[i] exists, else it is taken as zeros

    // row_of(r): where row r begins, or NULL for a row of zeros.
    template <typename RowOf> __device__ __forceinline__ void open(RowOf row_of) {
        valid = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int r = (int)threadIdx.x / ROW_PACKS + i * APART;
            row[i] = r < ROWS ? row_of(r) : NULL;
            if (row[i]) valid |= 1u << i;
        }
    }
    // Copies 128 bytes of every row, from column k on, zeros from k_end on. ALIGNED: rows are multiples of 16 bytes.
    // `any`: a readable address.
    template <bool ALIGNED> __device__ __forceinline__ void copy(char *to, const T *any, int k, int k_end) const {
        int pack = (int)threadIdx.x % ROW_PACKS;
        k += pack * ELEMS;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int r = (int)threadIdx.x / ROW_PACKS + i * APART;
            if (ROWS * ROW_PACKS % THREADS && r >= ROWS) continue;
            char *at = to + r * ROW_BYTES + (pack ^ (r % ROW_PACKS)) * 16;
            bool there = (valid >> i & 1) && k < k_end;
            if (ALIGNED) {
                cp_async_16(at, there ? row[i] + k : any, there);
            } else {
                Pack<T> v;
#pragma unroll
                for (int e = 0; e < ELEMS; e++) v.x[e] = there && k + e < k_end ? row[i][k + e] : from_float<T>(0);
                store_pack((T *)at, v);
            }
        }
    }
};

// ---- bf16: tensor cores ---------------------------------------------------------------------------------------------
// A bf16 tile of W_WARPS x X_WARPS warps, each with W / W_WARPS weights and X / X_WARPS tokens. RESIDENT: behind the
// stages, SHARED_BYTES from the start of shared memory, lie X rows of 128 bytes for each step of K, as a stage would
// have them. MORE_WARPS are there for what else the block does: they copy with the others, and their products, those of
// the first warps, go nowhere.
template <int W_, int X_, int W_WARPS, int X_WARPS, int STAGES_, Hold HOLD_ = IN_REGISTERS, bool RESIDENT_ = false,
          int MORE_WARPS = 0>
struct MmaTile {
    typedef Bf16 T;
    static constexpr int W = W_, X = X_, STAGES = STAGES_, WARPS = W_WARPS * X_WARPS;
    static constexpr int THREADS = (WARPS + MORE_WARPS) * WARP;
    static constexpr bool RESIDENT = RESIDENT_;
    static constexpr int STAGE_BYTES = (W + (RESIDENT ? 0 : X)) * ROW_BYTES;
    static constexpr Hold HOLD = HOLD_;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + (HOLD == IN_SHARED ? W * X * (int)sizeof(float) : 0);
    static constexpr int WI = W / W_WARPS / 16, XI = X / X_WARPS / 8; // mma tiles of a warp
    static constexpr int SUMS = WI * XI * 4, STEPS = ROW_BYTES / 32;  // steps of 16 elements a stage
    static_assert(WI > 0 && XI > 0 && WI * W_WARPS * 16 == W && XI * X_WARPS * 8 == X && (XI == 1 || XI % 2 == 0), "");

    uint32_t a[2][4], b[2][XI][2];    // fragments: those in use, and those being loaded
    int a_at, b_at;                   // this lane's address for ldmatrix in a stage, before the step's XOR
    const char *tokens, *first, *end; // RESIDENT: the rows beside this stage, the first step's, and where all end

    static __device__ __forceinline__ int warp() {
        return MORE_WARPS ? (int)threadIdx.x / WARP % WARPS : (int)threadIdx.x / WARP;
    }
    static __device__ __forceinline__ int w_first() { return warp() % W_WARPS * WI * 16; }
    static __device__ __forceinline__ int x_first() { return warp() / W_WARPS * XI * 8; }

    // shared: where the stages begin; steps: of K.
    __device__ __forceinline__ void open(const char *stage, const char *shared, int steps) {
        int lane = (int)threadIdx.x % WARP, swizzle = lane % ROW_PACKS;
        a_at = (w_first() + lane % 16) * ROW_BYTES + (lane / 16 ^ swizzle) * 16;
        int row = XI == 1 ? lane % 8 : lane % 8 + lane / 16 * 8;
        b_at = ((RESIDENT ? 0 : W) + x_first() + row) * ROW_BYTES + (lane / 8 % 2 ^ swizzle) * 16;
        if (RESIDENT) tokens = first = shared + SHARED_BYTES, end = first + steps * (X * ROW_BYTES);
        load_a(0, stage, 0, 0);
        load_b(0, RESIDENT ? tokens : stage, 0);
    }
    // The rows beside the next stage: the first step's follow the last's.
    __device__ __forceinline__ const char *next_tokens() {
        tokens += X * ROW_BYTES;
        return tokens = tokens == end ? first : tokens;
    }
    __device__ __forceinline__ void load_a(int to, const char *stage, int step, int i) {
        ldmatrix_x4(a[to], stage + (a_at ^ step * 32) + i * 16 * ROW_BYTES);
    }
    __device__ __forceinline__ void load_b(int to, const char *rows, int step) {
        if (XI == 1) ldmatrix_x2(b[to][0], rows + (b_at ^ step * 32));
#pragma unroll
        for (int i = 0; i + 1 < XI; i += 2) {
            uint32_t two[4];
            ldmatrix_x4(two, rows + (b_at ^ step * 32) + i * 8 * ROW_BYTES);
            b[to][i][0] = two[0], b[to][i][1] = two[1];
            b[to][i + 1][0] = two[2], b[to][i + 1][1] = two[3];
        }
    }
    // acc += the products of a stage. Fragments are loaded one row of products ahead. next() waits for the next stage,
    // whose first fragments are loaded before this stage's last row.
    template <typename Next> __device__ __forceinline__ void multiply(float *acc, const char *stage, Next next) {
        const char *rows = RESIDENT ? tokens : stage;
#pragma unroll
        for (int row = 0; row < STEPS * WI; row++) {
            int step = row / WI, i = row % WI, then = (row + 1) % (STEPS * WI);
            if (!then) stage = next(), rows = RESIDENT ? next_tokens() : stage;
            load_a((row + 1) % 2, stage, then / WI, then % WI);
            if (i + 1 == WI) load_b((step + 1) % 2, rows, then / WI);
#pragma unroll
            for (int j = 0; j < XI; j++) mma_bf16(acc + (i * XI + j) * 4, a[row % 2], b[step % 2][j]);
        }
    }
    template <typename F> static __device__ __forceinline__ void each(F f) {
        int g = (int)threadIdx.x % WARP / 4, q = (int)threadIdx.x % 4;
        if (MORE_WARPS && threadIdx.x >= WARPS * WARP) return;
#pragma unroll
        for (int j = 0; j < SUMS; j++) {
            int i = j / 4 / XI, k = j / 4 % XI, e = j % 4;
            f(j, w_first() + i * 16 + e / 2 * 8 + g, x_first() + k * 8 + 2 * q + e % 2);
        }
    }
};

// ---- f32: fmaf chains -----------------------------------------------------------------------------------------------
// An f32 tile, in which a thread has W_EACH x X_EACH outputs, so that many products share a 16-byte load of shared
// memory.
template <int W_, int X_, int W_EACH, int X_EACH, int STAGES_> struct FmaTile {
    typedef float T;
    static constexpr int W = W_, X = X_, STAGES = STAGES_, W_THREADS = W / W_EACH, X_THREADS = X / X_EACH;
    static constexpr int THREADS = W_THREADS * X_THREADS, SUMS = W_EACH * X_EACH;
    static constexpr int STAGE_BYTES = (W + X) * ROW_BYTES, SHARED_BYTES = STAGES * STAGE_BYTES;
    static constexpr Hold HOLD = IN_REGISTERS;
    static constexpr bool RESIDENT = false;
    static_assert(W_THREADS * W_EACH == W && X_THREADS * X_EACH == X && THREADS % WARP == 0, "");

    static __device__ __forceinline__ int w_of(int i) { return (int)threadIdx.x % W_THREADS + i * W_THREADS; }
    static __device__ __forceinline__ int x_of(int i) { return (int)threadIdx.x / W_THREADS + i * X_THREADS; }
    static __device__ __forceinline__ Pack<float> at(const char *rows, int row, int pack) {
        return load_pack((const float *)(rows + row * ROW_BYTES + (pack ^ (row % ROW_PACKS)) * 16));
    }

    __device__ __forceinline__ void open(const char *, const char *, int) {}
    template <typename Next> __device__ __forceinline__ void multiply(float *acc, const char *stage, Next next) {
#pragma unroll 1
        for (int pack = 0; pack < ROW_PACKS; pack++) {
            Pack<float> w[W_EACH];
#pragma unroll
            for (int i = 0; i < W_EACH; i++) w[i] = at(stage, w_of(i), pack);
#pragma unroll
            for (int j = 0; j < X_EACH; j++) {
                Pack<float> x = at(stage + W * ROW_BYTES, x_of(j), pack);
#pragma unroll
                for (int i = 0; i < W_EACH; i++)
#pragma unroll
                    for (int e = 0; e < 4; e++) acc[i * X_EACH + j] = fmaf(w[i].x[e], x.x[e], acc[i * X_EACH + j]);
            }
        }
        next();
    }
    template <typename F> static __device__ __forceinline__ void each(F f) {
#pragma unroll
        for (int j = 0; j < SUMS; j++) f(j, w_of(j / X_EACH), x_of(j % X_EACH));
    }
};

// ---- the pipeline ---------------------------------------------------------------------------------------------------
// For each tile below `tiles`: sum = the products of weights w_row(tile W + 0 .. W - 1) and tokens x_row(0 .. X - 1)
// over columns [k_begin, k_end), then done(tile, sum). k_begin is a multiple of K_CHUNK<T>.
//   shared        Tile::SHARED_BYTES
//   w_row(int64_t i), x_row(int64_t i)   where row i begins (const T *), or NULL: a row of zeros
//   ALIGNED       every row begins on 16 bytes and K is whole packs (aligned_rows); else a slower path, the same bits
//   any           a readable address: where rows that are zeros point to
//   ready()       is called before anything of the tokens is read; with w_first (of the whole grid), the copies of the
//                 first weights are under way by then
//   fill()        of a RESIDENT tile: writes the tokens to shared memory, while the first weights are under way
struct Nothing {
    __device__ __forceinline__ void operator()() const {}
};
template <typename Tile, bool ALIGNED, typename WRow, typename XRow, typename Done, typename Ready = Nothing,
          typename Fill = Nothing>
static __device__ __forceinline__ void tile_stream(char *shared, const typename Tile::T *any, WRow w_row, int tiles,
                                                   XRow x_row, int k_begin, int k_end, Done done, bool w_first = false,
                                                   Ready ready = {}, Fill fill = {}) {
    typedef typename Tile::T T;
    constexpr int STEP = ROW_BYTES / (int)sizeof(T);
    const int steps = k_end > k_begin ? (k_end - k_begin + STEP - 1) / STEP : 1; // of a tile
    Panel<T, Tile::W, Tile::THREADS> w;
    Panel<T, Tile::X, Tile::THREADS> x;
    const int early = !w_first ? 0 : steps < Tile::STAGES - 1 ? steps : Tile::STAGES - 1;
    w.open(w_row);
#pragma unroll 1
    for (int s = 0; s < early; s++)
        w.template copy<ALIGNED>(shared + s * Tile::STAGE_BYTES, any, k_begin + s * STEP, k_end);
    ready();
    if (!Tile::RESIDENT) x.open(x_row);
    // Where the copies are, which run STAGES - 1 steps ahead of the products.
    int ahead_tile = 0, ahead_k = k_begin, ahead_slot = 0;
    auto copy_next = [&](bool with_w) {
        if (ahead_tile < tiles) {
            char *stage = shared + ahead_slot * Tile::STAGE_BYTES;
            if (with_w) w.template copy<ALIGNED>(stage, any, ahead_k, k_end);
            if (!Tile::RESIDENT) x.template copy<ALIGNED>(stage + Tile::W * ROW_BYTES, any, ahead_k, k_end);
            ahead_k += STEP;
            if (ahead_k >= k_end) {
                ahead_k = k_begin;
                if (++ahead_tile < tiles) w.open([&](int r) { return w_row((int64_t)ahead_tile * Tile::W + r); });
            }
            ahead_slot = ahead_slot + 1 == Tile::STAGES ? 0 : ahead_slot + 1;
        }
        cp_async_commit();
    };
#pragma unroll 1
    for (int s = 0; s < Tile::STAGES - 1; s++) copy_next(s >= early);
    fill();
    // Waits for the oldest copies under way. After its barrier the stage before them may be overwritten.
    int slot = -1;
    auto next_stage = [&]() -> const char * {
        cp_async_wait<Tile::STAGES - 2>();
        __syncthreads();
        slot = slot + 1 == Tile::STAGES ? 0 : slot + 1;
        return shared + slot * Tile::STAGE_BYTES;
    };
    Tile core;
    core.open(next_stage(), shared, steps);
    float acc[Tile::SUMS], sum[Tile::SUMS];
    float *held = (float *)(shared + Tile::STAGES * Tile::STAGE_BYTES) + threadIdx.x; // each thread's own column
    for (int tile = 0; tile < tiles; tile++) {
#pragma unroll
        for (int j = 0; j < Tile::SUMS; j++) {
            acc[j] = sum[j] = 0;
            if (Tile::HOLD == IN_SHARED) held[j * Tile::THREADS] = 0;
        }
#pragma unroll 1
        for (int step = 1; step <= steps; step++) {
            const char *stage = shared + slot * Tile::STAGE_BYTES;
            copy_next(true);
            core.multiply(acc, stage, next_stage);
            if (Tile::HOLD != ONE_CHUNK && (step % (K_CHUNK<T> / STEP) == 0 || step == steps))
#pragma unroll
                for (int j = 0; j < Tile::SUMS; j++) {
                    if (Tile::HOLD == IN_SHARED) held[j * Tile::THREADS] += acc[j];
                    else sum[j] += acc[j];
                    acc[j] = 0;
                }
        }
#pragma unroll
        for (int j = 0; j < Tile::SUMS; j++) {
            if (Tile::HOLD == IN_SHARED) sum[j] = held[j * Tile::THREADS];
            if (Tile::HOLD == ONE_CHUNK) sum[j] += acc[j];
        }
        done(tile, sum);
    }
}
