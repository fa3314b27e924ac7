// Matrix products for gradients, by cuBLASLt; by a plain tiled kernel of our own where the library refuses (types,
// alignments).
//
// The contract does not ask for equal bits of gradients across batch sizes, so the library may choose how to sum; it
// must only choose the same way in every run. So an algorithm is chosen once for a shape and kept, among those whose
// result does not depend on the order in which blocks finish. Its epilogue adds to the result (beta = 1) and rounds to
// its type.
//
// Floor: 2 M N K FLOP on the tensor cores. The plain kernel is for odd shapes and is not tuned: a block has 64 x 64
// outputs, a thread 4 x 4, in f32 on the ordinary cores.
#include "cuda.cuh"
#include "tile.cuh"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the plain product ----------------------------------------------------------------------------------------------
#define PLAIN      64 // rows and columns of a block's outputs
#define PLAIN_K    16 // terms of the sum at a time
#define PLAIN_EACH 4  // rows and columns of a thread's outputs

// An operand of the plain kernel: element (i, k) is data[i * outer + k * inner].
template <typename T> struct Strided {
    const T *data;
    int64_t rows, outer, inner;
};

// Loads room[k][i] = element (first + i, from + k) of a, zeros outside it.
template <typename T>
static __device__ __forceinline__ void fetch(float room[PLAIN_K][PLAIN + 1], Strided<T> a, int64_t first, int64_t from,
                                             int64_t K) {
    bool along_k = a.inner == 1; // neighbouring threads read neighbouring memory
    for (int n = (int)threadIdx.x; n < PLAIN * PLAIN_K; n += (int)blockDim.x) {
        int i = along_k ? n / PLAIN_K : n % PLAIN, k = along_k ? n % PLAIN_K : n / PLAIN;
        bool there = first + i < a.rows && from + k < K;
        room[k][i] = there ? to_float(a.data[(first + i) * a.outer + (from + k) * a.inner]) : 0;
    }
}

// c[m,n] = (or +=, with `add`) the sum over k of a(m, k) b(n, k), in chunks combined in ascending order.
template <typename T, typename U>
static __global__ void plain_kernel(U *c, bool add, Strided<T> a, Strided<T> b, int64_t K) {
    SHARED(float, as, [PLAIN_K][PLAIN + 1]);
    SHARED(float, bs, [PLAIN_K][PLAIN + 1]);
    int tx = (int)threadIdx.x % (PLAIN / PLAIN_EACH), ty = (int)threadIdx.x / (PLAIN / PLAIN_EACH);
    int64_t first_a = (int64_t)blockIdx.y * PLAIN, first_b = (int64_t)blockIdx.x * PLAIN;
    float sum[PLAIN_EACH][PLAIN_EACH] = {}, acc[PLAIN_EACH][PLAIN_EACH] = {};
    for (int64_t from = 0; from < K; from += PLAIN_K) {
        fetch(as, a, first_a, from, K);
        fetch(bs, b, first_b, from, K);
        __syncthreads();
        for (int k = 0; k < PLAIN_K; k++)
#pragma unroll
            for (int i = 0; i < PLAIN_EACH; i++)
#pragma unroll
                for (int j = 0; j < PLAIN_EACH; j++)
                    acc[i][j] = fmaf(as[k][ty * PLAIN_EACH + i], bs[k][tx + j * (PLAIN / PLAIN_EACH)], acc[i][j]);
        __syncthreads();
        if ((from + PLAIN_K) % K_CHUNK<float> == 0 || from + PLAIN_K >= K)
#pragma unroll
            for (int i = 0; i < PLAIN_EACH; i++)
#pragma unroll
                for (int j = 0; j < PLAIN_EACH; j++) sum[i][j] += acc[i][j], acc[i][j] = 0;
    }
#pragma unroll
    for (int i = 0; i < PLAIN_EACH; i++)
#pragma unroll
        for (int j = 0; j < PLAIN_EACH; j++) {
            int64_t m = first_a + ty * PLAIN_EACH + i, n = first_b + tx + j * (PLAIN / PLAIN_EACH);
            if (m >= a.rows || n >= b.rows) continue;
            U *to = c + m * b.rows + n;
            *to = from_float<U>(add ? to_float(*to) + sum[i][j] : sum[i][j]);
        }
}

template <typename T> static Strided<T> strided(Tensor a, bool transposed) {
    int64_t rows = a.dim[0], width = tensor_width(a);
    return transposed ? Strided<T>{data_of<T>(a), width, 1, width} : Strided<T>{data_of<T>(a), rows, width, 1};
}

// Launches the plain kernel, several times where c has more rows than one grid can cover.
template <typename T, typename U>
static void plain_product(Device *d, Tensor c, bool add, Strided<T> a, Strided<T> b, int64_t K) {
    int64_t step = (int64_t)MAX_GRID * PLAIN;
    for (int64_t m = 0; m < a.rows; m += step) {
        Strided<T> piece = a;
        piece.data += m * a.outer;
        piece.rows = a.rows - m < step ? a.rows - m : step;
        LAUNCH(d, (plain_kernel<T, U>), dim3(blocks_for(b.rows, PLAIN), blocks_for(piece.rows, PLAIN)), 256, 0,
               data_of<U>(c) + m * b.rows, add, piece, b, K);
    }
}

// ---- cuBLASLt -------------------------------------------------------------------------------------------------------
#define PLANS     512                // remembered shapes; a run's are few, but packed batches have many lengths
#define WORKSPACE ((size_t)32 << 20) // bytes at most, from scratch
#define ALIGN     256                // bytes: the library wants its workspace on a multiple of them
#define PROPOSALS 8                  // for a shape that can be asked for

// A product as the library sees it: all that the choice of an algorithm may depend on. Its matrices are column-major,
// so it is asked for c^T = b^T a^T, and its A is our b.
typedef struct {
    int64_t m, n, k; // c[m,n]
    cudaDataType_t type, out;
    int a_transposed, b_transposed, add;
    uint32_t align_a, align_b, align_c; // bytes
    int proposal;                       // which of the library's
    size_t workspace;
} Shape;
typedef struct {
    Shape shape;
    bool known, works; // works: false where the library refuses
    cublasLtMatmulAlgo_t algo;
} Plan;
struct MatmulPlans {
    Plan plan[PLANS];
};

// The library's objects that describe a product, made for one call.
typedef struct {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
} Described;

static bool describe(Described *t, const Shape *s) {
    cublasOperation_t op_a = s->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t op_b = s->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    uint64_t a_rows = (uint64_t)(s->b_transposed ? s->k : s->n), a_cols = (uint64_t)(s->b_transposed ? s->n : s->k);
    uint64_t b_rows = (uint64_t)(s->a_transposed ? s->m : s->k), b_cols = (uint64_t)(s->a_transposed ? s->k : s->m);
    return cublasLtMatmulDescCreate(&t->op, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(t->op, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(t->op, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&t->a, s->type, a_rows, a_cols, (int64_t)a_rows) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&t->b, s->type, b_rows, b_cols, (int64_t)b_rows) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&t->c, s->out, (uint64_t)s->n, (uint64_t)s->m, s->n) == CUBLAS_STATUS_SUCCESS;
}
static void forget(Described *t) {
    if (t->c) cublasLtMatrixLayoutDestroy(t->c);
    if (t->b) cublasLtMatrixLayoutDestroy(t->b);
    if (t->a) cublasLtMatrixLayoutDestroy(t->a);
    if (t->op) cublasLtMatmulDescDestroy(t->op);
}

// Chooses an algorithm: of those that the library proposes, best guess first, among those that add partial sums in f32
// in a fixed order, the one of that number, or the last. False where it has none.
static bool choose(cublasLtHandle_t blas, const Shape *s, const Described *t, cublasLtMatmulAlgo_t *algo) {
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublasLtMatmulPreference_t wish = NULL;
    cublasLtMatmulHeuristicResult_t found[PROPOSALS] = {};
    int n = 0, i = s->proposal < PROPOSALS ? s->proposal : PROPOSALS - 1;
    if (cublasLtMatmulPreferenceCreate(&wish) != CUBLAS_STATUS_SUCCESS) return false;
#define WISH(name, value)                                                                                              \
    cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_##name, value, sizeof *(value))
    bool ok = WISH(MAX_WORKSPACE_BYTES, &s->workspace) == CUBLAS_STATUS_SUCCESS &&
              WISH(REDUCTION_SCHEME_MASK, &schemes) == CUBLAS_STATUS_SUCCESS &&
              WISH(MIN_ALIGNMENT_A_BYTES, &s->align_b) == CUBLAS_STATUS_SUCCESS &&
              WISH(MIN_ALIGNMENT_B_BYTES, &s->align_a) == CUBLAS_STATUS_SUCCESS &&
              WISH(MIN_ALIGNMENT_C_BYTES, &s->align_c) == CUBLAS_STATUS_SUCCESS &&
              WISH(MIN_ALIGNMENT_D_BYTES, &s->align_c) == CUBLAS_STATUS_SUCCESS &&
              cublasLtMatmulAlgoGetHeuristic(blas, t->op, t->a, t->b, t->c, t->c, wish, i + 1, found, &n) ==
                  CUBLAS_STATUS_SUCCESS &&
              n > 0;
    if (i >= n) i = n - 1;
    ok = ok && found[i].state == CUBLAS_STATUS_SUCCESS;
    if (ok) *algo = found[i].algo;
    cublasLtMatmulPreferenceDestroy(wish);
    return ok;
}

// The alignment of p in bytes, at most 256.
static uint32_t alignment(const void *p) {
    uint32_t align = 256;
    while ((uintptr_t)p % align) align /= 2;
    return align;
}

// The slot of the table of plans for a shape; another shape may be in it.
static Plan *plan_for(MatmulPlans *plans, const Shape *s) {
    uint64_t hash = 1469598103934665603u; // FNV-1a over the bytes
    for (size_t i = 0; i < sizeof *s; i++) hash = (hash ^ ((const unsigned char *)s)[i]) * 1099511628211u;
    return &plans->plan[hash % PLANS];
}

// Computes the product by the library; false where it refuses such a product.
static bool library_product(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b, bool b_t, int64_t K) {
    CudaDevice *own = (CudaDevice *)d->backend;
    size_t left = d->scratch.cap - d->scratch.used;
    Shape s;
    memset(&s, 0, sizeof s); // the padding too: shapes are compared by their bytes
    s.m = c.dim[0], s.n = tensor_width(c), s.k = K;
    s.type = a.dtype == F32 ? CUDA_R_32F : CUDA_R_16BF, s.out = c.dtype == F32 ? CUDA_R_32F : CUDA_R_16BF;
    s.a_transposed = a_t, s.b_transposed = b_t, s.add = add;
    s.align_a = alignment(a.data), s.align_b = alignment(b.data), s.align_c = alignment(c.data);
    s.proposal = d->proposal;
    s.workspace = left > WORKSPACE + 2 * ALIGN ? WORKSPACE : left / 2 / ALIGN * ALIGN;
    Plan *plan = plan_for(own->plans, &s);
    bool same = plan->known && !memcmp(&plan->shape, &s, sizeof s);
    if (same && !plan->works) return false;
    Described t = {};
    bool ok = describe(&t, &s);
    if (ok && !same) {
        plan->shape = s, plan->known = true;
        ok = plan->works = choose(own->blas, &s, &t, &plan->algo);
    }
    if (ok) {
        size_t mark = arena_mark(&d->scratch);
        void *workspace = NULL;
        if (s.workspace) {
            uintptr_t room = (uintptr_t)arena_take(&d->scratch, s.workspace + ALIGN - ARENA_ALIGN);
            workspace = (void *)((room + ALIGN - 1) / ALIGN * ALIGN);
        }
        float one = 1, beta = add ? 1 : 0;
        cublasStatus_t status = cublasLtMatmul(own->blas, t.op, &one, b.data, t.a, a.data, t.b, &beta, c.data, t.c,
                                               c.data, t.c, &plan->algo, workspace, s.workspace, own->stream);
        if (status == CUBLAS_STATUS_NOT_SUPPORTED) {
            ok = plan->works = false;
        } else if (status != CUBLAS_STATUS_SUCCESS && !d->error[0]) {
            snprintf(d->error, sizeof d->error, "matrix product %lld x %lld x %lld: %s; update the NVIDIA driver",
                     (long long)s.m, (long long)s.n, (long long)s.k, cublasLtGetStatusString(status));
            d->error_code = EXIT_COMM;
        }
        arena_rewind(&d->scratch, mark);
    }
    forget(&t);
    return ok;
}

void cuda_product(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b, bool b_t) {
    int64_t m = c.dim[0], n = tensor_width(c), K = a_t ? a.dim[0] : tensor_width(a);
    if (a.dtype != b.dtype)
        die("matrix product: one factor is %s, the other %s", dtype_name(a.dtype), dtype_name(b.dtype));
    if (d->error[0] || !m || !n || (!K && add)) return;
    if (K && library_product(d, c, add, a, a_t, b, b_t, K)) return;
    DISPATCH2(a.dtype, T, c.dtype, U, (plain_product<T, U>(d, c, add, strided<T>(a, a_t), strided<T>(b, !b_t), K)));
}

bool product_open(Device *d) {
    CudaDevice *own = (CudaDevice *)d->backend;
    own->plans = (MatmulPlans *)xcalloc(1, sizeof *own->plans);
    if (cuda_failed(d, cudaMalloc(&own->arrived, BLOCK_COUNTERS * sizeof *own->arrived), "opening the products") ||
        cuda_failed(d, cudaMemsetAsync(own->arrived, 0, BLOCK_COUNTERS * sizeof *own->arrived, own->stream),
                    "opening the products"))
        return false;
    cublasStatus_t status = cublasLtCreate(&own->blas);
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    snprintf(d->error, sizeof d->error, "cuBLASLt does not start: %s; check that it is of this build's CUDA version",
             cublasLtGetStatusString(status));
    return false;
}
void product_close(Device *d) {
    CudaDevice *own = (CudaDevice *)d->backend;
    if (own->blas) cublasLtDestroy(own->blas);
    if (own->arrived) cudaFree(own->arrived);
    free(own->plans);
}
