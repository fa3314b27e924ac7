// AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW computes it:
//
//   p *= 1 - lr * decay;   m += (1 - b1)(g - m);   v = b2 v + (1 - b2) g^2;
//   p -= lr / (1 - b1^step) * m / (sqrt(v) / sqrt(1 - b2^step) + eps)
//
// p is the f32 master copy of the weight where there is one, whole or split (adamw.h), and w is p rounded; else p is w
// itself.
#include "adamw.h"
#include "parallel.h"
#include "philox_vec.h"

#define BLOCK 4096 // elements a thread takes at a time

// Random bits for the stochastic rounding of a block of elements: 16 each for w, m and v of an element. They are the
// halves, chosen by element % 2, of the first three words of Philox4x32-10 (philox.h) for the counter {element / 2,
// step} and the key `seed`. The counter's top bit is set, which sampling never does (there it is a sign), so that the
// two share no numbers.
typedef struct {
    uint16_t bits[3][BLOCK + 2 * LANES] __attribute__((aligned(64)));
} Noise;

// Fills the bits of the elements [first, first + n), n <= BLOCK; first is even.
static void noise_fill(Noise *out, uint64_t seed, uint64_t step, uint64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        uint64_t block = (first + (uint64_t)i) / 2;
        vu a = (vu)vi_lanes() + (uint32_t)block,
           b = (uint32_t)(block >> 32) - (vu)(a < (uint32_t)block); // a carry is -1
        vu c = (vu){0} + (uint32_t)step, d = (vu){0} + ((uint32_t)(step >> 32) | 0x80000000);
        PhiloxVec r = philox_vec((PhiloxVec){{a, b, c, d}}, seed);
        memcpy(out->bits[0] + i, &r.v[0], sizeof r.v[0]);
        memcpy(out->bits[1] + i, &r.v[1], sizeof r.v[1]);
        memcpy(out->bits[2] + i, &r.v[2], sizeof r.v[2]);
    }
}

// Rounds to bf16 stochastically: up with a probability that is the distance from the value below. NaN and infinity
// stay.
static inline vf round_stochastic(vf x, const uint16_t *bits) {
    vh h;
    memcpy(&h, bits, sizeof h);
    vu u = (vu)x, finite = (vu)((u & 0x7f800000) != 0x7f800000);
    return (vf)((u + (vu_widen(h) & finite)) & (0xffff0000 | ~finite));
}

// Loads the low halves of n <= LANES split masters; low_store stores them.
static inline vu low_load(const uint16_t *p, int64_t n) {
    vh h = {0};
    memcpy(&h, p, n >= LANES ? sizeof h : (size_t)n * sizeof *p);
    return vu_widen(h);
}
static inline void low_store(uint16_t *p, int64_t n, vf master) {
    vh h = vu_narrow((vu)master & 0xffff);
    memcpy(p, &h, n >= LANES ? sizeof h : (size_t)n * sizeof *p);
}
// The bit of a float's sign, set where rounding x to bf16 adds one to its high half.
static inline vu rounded_up(vf x) {
    vu u = (vu)x;
    return ((u + 0x7fff + (u >> 16 & 1)) ^ u) >> 16 << 31;
}

// One block of elements, [begin, end). What is kept in bf16 alone (moments, and w without a master) would lose every
// change below half a unit in its last place, so it is rounded stochastically; w with a master is rounded to nearest.
ALWAYS_INLINE void adamw_block(Tensor w, DType tw, Tensor master, bool split, Tensor m, Tensor v, DType state,
                               Tensor dw, DType tg, const AdamParams *params, AdamStep s, int64_t begin, int64_t end) {
    bool mastered = present(master) && !split, noisy = state == BF16 || (tw == BF16 && !mastered && !split);
    void *home = mastered ? master.data : w.data;
    uint64_t first = (uint64_t)(params->first_elem + begin);
    Noise noise;
    if (noisy) noise_fill(&noise, params->seed, (uint64_t)params->step, first & ~1ull, end - begin + 1);
    FOR_LANES(j, n, end - begin, {
        int64_t i = begin + j, at = j + (int64_t)(first & 1);
        vf g = row_load_part(dw.data, tg, i, n) * s.grad_scale;
        vf a = row_load_part(m.data, state, i, n), b = row_load_part(v.data, state, i, n);
        vf p = row_load_part(home, mastered ? F32 : tw, i, n);
        if (split) {
            vu up = (vu)b & 0x80000000;
            p = (vf)(((vu)p | low_load((const uint16_t *)master.data + i, n)) - (up >> 15));
            b = (vf)((vu)b ^ up);
        }
        a = vf_fma(g - a, vf_set(s.new1), a);
        b = vf_fma(g * g, vf_set(s.new2), b * s.beta2);
        p = p * s.keep - s.step_size * (a / vf_fma(vf_sqrt(b), vf_set(s.inv_bias), vf_set(s.eps)));
        if (tw == BF16 && !mastered && !split) p = round_stochastic(p, noise.bits[0] + at);
        if (state == BF16) a = round_stochastic(a, noise.bits[1] + at), b = round_stochastic(b, noise.bits[2] + at);
        if (split) {
            low_store((uint16_t *)master.data + i, n, p);
            b = (vf)((vu)b | rounded_up(p));
        }
        row_store_part(m.data, state, i, n, a);
        row_store_part(v.data, state, i, n, b);
        if (mastered) row_store_part(master.data, F32, i, n, p);
        row_store_part(w.data, tw, i, n, p);
    });
}

void cpu_adamw(Device *d, Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, AdamParams p) {
    int64_t n = tensor_numel(w);
    AdamStep s = adam_step(&p);
    bool split = master.dtype == U16;
    if (split && (w.dtype != BF16 || m.dtype != F32)) die("adamw: a split master of %s weights", dtype_name(w.dtype));
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t b = 0; b < n; b += BLOCK) {
        int64_t end = b + BLOCK < n ? b + BLOCK : n;
        if (w.dtype == F32 && m.dtype == F32 && dw.dtype == F32)
            adamw_block(w, F32, master, false, m, v, F32, dw, F32, &p, s, b, end);
        else if (split) adamw_block(w, BF16, master, true, m, v, F32, dw, dw.dtype, &p, s, b, end);
        else if (m.dtype == F32) adamw_block(w, w.dtype, master, false, m, v, F32, dw, dw.dtype, &p, s, b, end);
        else adamw_block(w, w.dtype, master, false, m, v, BF16, dw, dw.dtype, &p, s, b, end);
    }
}
