// The tensor cores' sums. What is known of real ones comes from measurements of single instructions: Fasi, Higham, Mikaitis
// and Pranesh (2021), "Numerical behavior of NVIDIA tensor cores", and those that repeat it on later generations: on sm_80 8
// products of f16 and the sum so far are aligned to the largest of the nine and cut off, with one bit more than f32 has; on
// sm_90 16 products, with two.
#include "units.h"
#include "ptx.h"
#include <cmath>
#include <cstring>

namespace ptx {

bool find_units(const std::string &name, Units *units) {
    static const char *const models[] = {"ascending", "groups8", "groups16", "unlike"};
    for (size_t k = 0; k < sizeof models / sizeof *models; k++)
        if (name == models[k]) {
            *units = (Units)k;
            return true;
        }
    return false;
}

Adds unit_of(Units model, bool wgmma, int bytes) {
    Units m = model == UNITS_UNLIKE ? wgmma ? UNITS_GROUPS_16 : UNITS_GROUPS_8 : model;
    if (m == UNITS_ASCENDING) return {};
    return m == UNITS_GROUPS_8 ? Adds{16 / bytes, 1} : Adds{32 / bytes, 2};
}

// Terms are exact doubles: products of at most 24 bits.
static float add_group(Adds adds, float sum, const float *a, const float *b, int stride, int n) {
    double term[64], most = std::fabs((double)sum);
    for (int k = 0; k < n; k++) {
        term[k] = (double)a[k] * (double)b[k * stride];
        most = std::fmax(most, std::fabs(term[k]));
        if (!std::isfinite(term[k])) most = INFINITY;
    }
    if (!std::isfinite(most) || !std::isfinite(sum) || most == 0) {
        double s = (double)sum;
        for (int k = 0; k < n; k++) s += term[k];
        return (float)s;
    }
    int e;
    std::frexp(most, &e);
    int last = e - 24 - adds.extra; // the weight of the last bit kept
    double scale = std::ldexp(1.0, -last);
    int64_t total = (int64_t)((double)sum * scale);
    for (int k = 0; k < n; k++) total += (int64_t)(term[k] * scale);
    // Cut off to f32.
    double exact = std::ldexp((double)total, last);
    float f = (float)exact;
    if (std::fabs((double)f) > std::fabs(exact)) f = std::nextafterf(f, 0.0f);
    return f;
}

typedef float Eight __attribute__((vector_size(32)));

void multiply(Adds adds, int M, int N, int K, const float *a, const float *b, float *c) {
    if (adds.group == 0) { // N is a multiple of 8, M of 4
        for (int n = 0; n < N; n += 8)
            for (int m = 0; m < M; m += 4) { // four chains of sums at once
                Eight sum[4], x;
                for (int r = 0; r < 4; r++) memcpy(&sum[r], c + (m + r) * N + n, sizeof x);
                for (int k = 0; k < K; k++) {
                    memcpy(&x, b + k * N + n, sizeof x);
                    for (int r = 0; r < 4; r++) sum[r] += a[(m + r) * K + k] * x;
                }
                for (int r = 0; r < 4; r++) memcpy(c + (m + r) * N + n, &sum[r], sizeof x);
            }
        return;
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++)
            for (int k = 0; k < K; k += adds.group)
                c[m * N + n] =
                    add_group(adds, c[m * N + n], a + m * K + k, b + k * N + n, N, std::min(adds.group, K - k));
}

} // namespace ptx
