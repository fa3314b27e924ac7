// Gumbel-max draws (draw.cuh), of which most logarithms are left out by an upper bound: the bound is one for every
// number of random bits that is looked at, and the draw is the one that all logarithms give, whatever the logits.
#include "draw.cuh"
#include "emu_fixture.h"
#include <math.h>

static __global__ void bound_kernel(float *noise, float *above, const uint32_t *bits, int n) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) noise[i] = gumbel(bits[i]), above[i] = gumbel_above(bits[i]);
}
// All small numbers, those around each power of two, the largest, and every 4,093rd.
static void bounds(void **) {
    std::vector<uint32_t> bits;
    for (uint32_t b = 0; b < 1 << 16; b++) bits.push_back(b), bits.push_back(~b);
    for (int e = 0; e < 32; e++)
        for (uint32_t b = 0; b < 512; b++) bits.push_back((1u << e) - 256 + b);
    for (uint64_t b = 0; b < 1ull << 32; b += 4093) bits.push_back((uint32_t)b);
    const int n = (int)bits.size();
    float *noise = device<float>(bits.size()), *above = device<float>(bits.size());
    assert_int_equal(start(bound_kernel, (unsigned)(n + 255) / 256, 256, 0, noise, above, device(bits), n),
                     cudaSuccess);
    for (int i = 0; i < n; i++) {
        assert_true(above[i] >= noise[i]);
        if (bits[i] < 1u << 27) assert_true(above[i] < noise[i] + 6e-4f);
    }
}

// The ids of QUADS quads lie below this; of every 16 the first QUADS are theirs.
template <int QUADS> constexpr int IDS = QUADS < 16 ? 64 : 4 * QUADS;

// What a draw is: every score, in the order of the ids.
template <int QUADS>
static __device__ Candidate naive(const Draw &draw, int64_t key, int32_t pos, int32_t first, const float *z) {
    Candidate best = {-INFINITY, z[0], 0};
    for (int id = 0; id < IDS<QUADS>; id++) {
        if (id % 16 >= QUADS) continue;
        uint32_t bits = philox_token(draw.seed, key, pos, (uint32_t)(first + id));
        float score = z[id] + (draw.greedy ? 0 : gumbel(bits));
        if (score > best.score) best = {score, z[id], id};
    }
    return best;
}
template <int QUADS>
static __global__ void draw_kernel(Candidate *got, Candidate *want, const float *z, const float *shape, Draw draw) {
    const int row = (int)(blockIdx.x * blockDim.x + threadIdx.x), n = IDS<QUADS>;
    const float scale = shape[2 * row], offset = shape[2 * row + 1];
    float mine[n];
    for (int i = 0; i < n; i++) mine[i] = z[row * n + i] * scale + offset;
    auto id_of = [](int k) { return k / 16 * 64 + k % 16; };
    const int64_t key = 7 + row;
    const int32_t pos = row % 5, first = row % 3 * 128;
    got[row] = draw_best<QUADS, 2>(draw, key, pos, first, id_of, [&](int k, int i) { return mine[id_of(k) + 16 * i]; });
    want[row] = naive<QUADS>(draw, key, pos, first, mine);
}
// Logits of which many are equal, or -inf, or NaN, or far apart, flat and steep ones.
template <int QUADS> static void check_draws(uint64_t seed, bool greedy) {
    const int rows = 512, n = IDS<QUADS>;
    std::vector<float> z, shape;
    uint32_t dice = (uint32_t)seed;
    auto below = [&](uint32_t most) { return (dice = dice * 1664525u + 1013904223u) / 65536 * most / 65536; };
    static const float scales[] = {0, 1, 1e-3f, 0.1f, 10, 1e4f, 1e30f}, offsets[] = {0, -50, 1e5f, 3e38f};
    for (int row = 0; row < rows; row++) {
        const int kind = (int)below(6);
        for (int i = 0; i < n; i++) {
            float x = (float)below(65536) / 32768 - 1;
            if (kind == 1) x = (float)below(3);
            if (kind == 2 && below(4)) x = -INFINITY;
            if (kind == 3 && below(8) == 0) x = NAN;
            if (kind == 4) x = i == (int)(dice % (uint32_t)n) ? 30 : x;
            if (kind == 5) x = below(20) ? -INFINITY : below(2) ? NAN : INFINITY;
            z.push_back(x);
        }
        shape.push_back(scales[below(7)]), shape.push_back(offsets[below(4)]);
    }
    for (int i = 0; i < n; i++) z[i] = -INFINITY, z[n + i] = NAN;
    shape[0] = shape[2] = 1;
    Candidate *got = device<Candidate>(rows), *want = device<Candidate>(rows);
    Draw draw = {nullptr, nullptr, seed, greedy};
    assert_int_equal(start(draw_kernel<QUADS>, rows / 64, 64, 0, got, want, device(z), device(shape), draw),
                     cudaSuccess);
    int drawn[4] = {}; // the quarter of the ids that won
    for (int row = 0; row < rows; row++) {
        assert_memory_equal(&got[row].score, &want[row].score, sizeof(float));
        assert_memory_equal(&got[row].z, &want[row].z, sizeof(float));
        assert_int_equal(got[row].id, want[row].id);
        drawn[got[row].id * 4 / n]++;
    }
    for (int i = 0; i < 4; i++) assert_true(drawn[i] > rows / 16);
}
static void draws(void **) {
    for (uint64_t seed = 1; seed <= 4; seed++) {
        check_draws<2>(seed, false);
        check_draws<16>(seed, false);
        check_draws<32>(seed << 40 | seed, false);
        check_draws<16>(seed, true);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(bounds, clean),
        cmocka_unit_test_teardown(draws, clean),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
