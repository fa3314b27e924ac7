// qk_norm: RMSNorm of each query and key head (Qwen3), before RoPE:
//
//   y = x * rstd * w        rstd = 1 / sqrt(mean(x^2) + eps), over the d elements of a head
//
// w is q_w for the query heads, k_w for the key heads. Backward is rmsnorm.c's; rstd is computed again from the inputs,
// which are kept in `raw`.
#include "norm.h"
#include "parallel.h"

// Normalizes one token's heads in place: of row[H+2K, d] the first H are queries and the next K keys.
static void norm_heads(Tensor row, Tensor q_w, Tensor k_w, int64_t H, int64_t K, float eps) {
    int64_t head = row.dim[2];
    for (int64_t h = 0; h < H + K; h++) {
        void *x = (char *)row.data + (size_t)(h * head) * dtype_size(row.dtype);
        Tensor w = h < H ? q_w : k_w;
        if (row.dtype == F32) norm_row(x, NULL, x, NULL, F32, w.data, w.dtype, head, eps);
        else norm_row(x, NULL, x, NULL, BF16, w.data, w.dtype, head, eps);
    }
}

void cpu_qk_norm(Device *d, Tensor qkv, Tensor raw, Tensor q_w, Tensor k_w, int n_kv, float eps) {
    int64_t T = qkv.dim[0], heads = qkv.dim[1], head = qkv.dim[2], H = heads - 2 * n_kv;
    size_t normed = (size_t)((H + n_kv) * head) * dtype_size(qkv.dtype);
#pragma omp parallel for schedule(static) if (T * heads * head >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        Tensor row = tensor_rows(qkv, t, 1);
        if (present(raw)) memcpy(tensor_rows(raw, t, 1).data, row.data, normed);
        norm_heads(row, q_w, k_w, H, n_kv, eps);
    }
}

ALWAYS_INLINE float head_rstd(const void *x, DType t, int64_t head, float eps) {
    vf ss = {0};
    FOR_LANES(i, n, head, {
        vf v = row_load_part(x, t, i, n);
        ss = vf_fma(v, v, ss);
    });
    return 1.0f / sqrtf(vf_sum(ss) / (float)head + eps);
}
ALWAYS_INLINE void head_bwd(void *dx, const void *x, DType t, float *dw, Tensor w, int64_t head, float eps) {
    norm_row_bwd(dx, dw, NULL, dx, x, t, head_rstd(x, t, head, eps), w.data, w.dtype, head);
}

void cpu_qk_norm_bwd(Device *d, Tensor dqkv, Tensor dq_w, Tensor dk_w, Tensor raw, Tensor q_w, Tensor k_w, int n_kv,
                     float eps) {
    int64_t T = dqkv.dim[0], head = dqkv.dim[2], H = dqkv.dim[1] - 2 * n_kv, rows = sum_block_rows(T);
    int64_t blocks = (T + rows - 1) / rows;
    size_t size = dtype_size(dqkv.dtype), mark = arena_mark(&d->scratch);
    float *q_part = arena_take(&d->scratch, (size_t)(blocks * head) * sizeof *q_part); // [blocks, d] of dq_w
    float *k_part = arena_take(&d->scratch, (size_t)(blocks * head) * sizeof *k_part); // [blocks, d] of dk_w
#pragma omp parallel for schedule(static) if (T * (H + n_kv) * head >= PARALLEL_MIN)
    for (int64_t b = 0; b < blocks; b++) {
        float *dq = q_part + b * head, *dk = k_part + b * head;
        memset(dq, 0, (size_t)head * sizeof *dq);
        memset(dk, 0, (size_t)head * sizeof *dk);
        for (int64_t t = b * rows; t < T && t < (b + 1) * rows; t++)
            for (int64_t h = 0; h < H + n_kv; h++) {
                void *dx = (char *)tensor_rows(dqkv, t, 1).data + (size_t)(h * head) * size;
                const void *x = (char *)tensor_rows(raw, t, 1).data + (size_t)(h * head) * size;
                if (dqkv.dtype == F32) head_bwd(dx, x, F32, h < H ? dq : dk, h < H ? q_w : k_w, head, eps);
                else head_bwd(dx, x, BF16, h < H ? dq : dk, h < H ? q_w : k_w, head, eps);
            }
    }
    if (present(dq_w)) add_column_sums(dq_w, q_part, blocks, head);
    if (present(dk_w)) add_column_sums(dk_w, k_part, blocks, head);
    arena_rewind(&d->scratch, mark);
}
