// cuBLASLt: D = alpha op(A) op(B) + beta C (+ bias along a column), as plainly as possible.
#include "cublasLt.h"
#include "cuda_bf16.h"
#include "emu_internal.h"
#include <vector>

struct EmuBlas {
    int open;
};
struct EmuMatmul {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int pointer_mode, transa, transb, epilogue;
    const void *bias;
};
struct EmuLayout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
    int order;
};
struct EmuPreference {
    size_t workspace;
};

const char *cublasGetStatusString(cublasStatus_t s) {
    switch (s) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "unknown status";
}
const char *cublasLtGetStatusName(cublasStatus_t s) { return cublasGetStatusString(s); }
const char *cublasLtGetStatusString(cublasStatus_t s) { return cublasGetStatusString(s); }

template <typename T> static cublasStatus_t make(T **p, T value) {
    *p = new T(value);
    return CUBLAS_STATUS_SUCCESS;
}
template <typename T> static cublasStatus_t destroy(T *p) {
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
// Reads an attribute's value; every one has exactly one size.
template <typename T> static cublasStatus_t take(T *to, const void *value, size_t size) {
    if (size != sizeof *to || !value) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) { return make(h, EmuBlas{1}); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return destroy(h); }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *m, cublasComputeType_t compute, cudaDataType_t scale) {
    if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    return make(m, EmuMatmul{compute, scale, CUBLASLT_POINTER_MODE_HOST, CUBLAS_OP_N, CUBLAS_OP_N,
                             CUBLASLT_EPILOGUE_DEFAULT, nullptr});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t m) { return destroy(m); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t m, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t size) {
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: return take(&m->pointer_mode, value, size);
    case CUBLASLT_MATMUL_DESC_TRANSA: return take(&m->transa, value, size);
    case CUBLASLT_MATMUL_DESC_TRANSB: return take(&m->transb, value, size);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(&m->epilogue, value, size);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(&m->bias, value, size);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t cols,
                                          int64_t ld) {
    return make(l, EmuLayout{type, rows, cols, ld, CUBLASLT_ORDER_COL});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) { return destroy(l); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t size) {
    int32_t batch;
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: return take(&l->type, value, size);
    case CUBLASLT_MATRIX_LAYOUT_ORDER: return take(&l->order, value, size);
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return take(&l->rows, value, size);
    case CUBLASLT_MATRIX_LAYOUT_COLS: return take(&l->cols, value, size);
    case CUBLASLT_MATRIX_LAYOUT_LD: return take(&l->ld, value, size);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        if (take(&batch, value, size) == CUBLAS_STATUS_SUCCESS && batch == 1) return CUBLAS_STATUS_SUCCESS;
        return CUBLAS_STATUS_NOT_SUPPORTED;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) { return make(p, EmuPreference{0}); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) { return destroy(p); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t size) {
    uint32_t mask;
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return take(&p->workspace, value, size);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return take(&mask, value, size);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

static bool known(cudaDataType_t t) { return t == CUDA_R_32F || t == CUDA_R_16BF; }
// Whether the shapes fit together and the types are a combination that the real library takes.
static cublasStatus_t check(const EmuMatmul *m, const EmuLayout *a, const EmuLayout *b, const EmuLayout *c,
                            const EmuLayout *d) {
    for (const EmuLayout *l : {a, b, c, d}) {
        if (!known(l->type)) return CUBLAS_STATUS_NOT_SUPPORTED;
        if (!l->rows || !l->cols || l->ld < (int64_t)(l->order == CUBLASLT_ORDER_COL ? l->rows : l->cols))
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    uint64_t M = m->transa ? a->cols : a->rows, K = m->transa ? a->rows : a->cols;
    uint64_t N = m->transb ? b->rows : b->cols, Kb = m->transb ? b->cols : b->rows;
    if (K != Kb || d->rows != M || d->cols != N || c->rows != M || c->cols != N) return CUBLAS_STATUS_INVALID_VALUE;
    if (a->type != b->type || c->type != d->type || (a->type == CUDA_R_32F && d->type != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (m->epilogue != CUBLASLT_EPILOGUE_DEFAULT && m->epilogue != CUBLASLT_EPILOGUE_BIAS)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t m, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t p, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found) {
    *found = 0;
    if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = check(m, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    results[0] = {};
    results[0].algo.data[0] = 1;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

static float element(const void *p, cudaDataType_t t, size_t i) {
    return t == CUDA_R_32F ? ((const float *)p)[i] : __bfloat162float(((const __nv_bfloat16 *)p)[i]);
}
static size_t place(const EmuLayout &l, uint64_t row, uint64_t col) {
    return l.order == CUBLASLT_ORDER_COL ? col * (size_t)l.ld + row : row * (size_t)l.ld + col;
}
// [major][K] in f32: the rows of op(A), or the columns of op(B).
static std::vector<float> gather(const void *p, const EmuLayout &l, bool rows_first) {
    uint64_t outer = rows_first ? l.rows : l.cols, inner = rows_first ? l.cols : l.rows;
    std::vector<float> out(outer * inner);
    for (uint64_t i = 0; i < outer; i++)
        for (uint64_t k = 0; k < inner; k++)
            out[i * inner + k] = element(p, l.type, rows_first ? place(l, i, k) : place(l, k, i));
    return out;
}
// Four partial sums, each of every fourth block of 16: a fixed order that vectorises.
__attribute__((optimize("O3"), no_sanitize("address"))) static float dot(const float *a, const float *b, uint64_t n) {
    typedef float Float16 __attribute__((vector_size(64)));
    Float16 sum[2] = {};
    uint64_t k = 0;
    for (; k + 32 <= n; k += 32)
        for (int u = 0; u < 2; u++) {
            Float16 x, y;
            memcpy(&x, a + k + 16 * u, sizeof x);
            memcpy(&y, b + k + 16 * u, sizeof y);
            sum[u] += x * y;
        }
    double s = 0;
    for (int i = 0; i < 16; i++) s += (double)sum[0][i] + (double)sum[1][i];
    for (; k < n; k++) s += (double)a[k] * b[k];
    return (float)s;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t m, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                              const void *c, cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    if (!h || !alpha || !beta || !a || !b || !d) return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = check(m, la, lb, lc, ld);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (algo && algo->data[0] != 1) return CUBLAS_STATUS_INVALID_VALUE;
    if (m->epilogue == CUBLASLT_EPILOGUE_BIAS && !m->bias) return CUBLAS_STATUS_INVALID_VALUE;
    for (const void *p : {a, b, (const void *)d, c, (const void *)workspace}) emu_check_pointer(nullptr, 0, p);
    if (workspace_bytes && (uintptr_t)workspace % 256)
        emu_fail("cublasLtMatmul: the workspace %p is not a multiple of 256", workspace);
    EmuMatmul desc = *m;
    EmuLayout A = *la, B = *lb, C = *lc, D = *ld;
    bool host_scalars = desc.pointer_mode == CUBLASLT_POINTER_MODE_HOST;
    float alpha_now = host_scalars ? *(const float *)alpha : 0, beta_now = host_scalars ? *(const float *)beta : 0;
    cudaError_t e = emu_submit(stream, [=] {
        float al = host_scalars ? alpha_now : *(const float *)alpha,
              be = host_scalars ? beta_now : *(const float *)beta;
        std::vector<float> x = gather(a, A, !desc.transa), y = gather(b, B, desc.transb != 0);
        uint64_t M = D.rows, N = D.cols, K = desc.transa ? A.rows : A.cols;
        for (uint64_t j = 0; j < N; j++)
            for (uint64_t i = 0; i < M; i++) {
                float v = al * dot(&x[i * K], &y[j * K], K);
                if (be != 0) v += be * element(c, C.type, place(C, i, j));
                if (desc.epilogue == CUBLASLT_EPILOGUE_BIAS) v += element(desc.bias, D.type, i);
                if (D.type == CUDA_R_32F) ((float *)d)[place(D, i, j)] = v;
                else ((__nv_bfloat16 *)d)[place(D, i, j)] = __float2bfloat16_rn(v);
            }
    });
    return e == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
