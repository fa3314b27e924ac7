// Adds products as tensor cores do. What is known of real ones comes from measurements of single instructions: Fasi,
// Higham, Mikaitis and Pranesh (2021), "Numerical behavior of NVIDIA tensor cores", and those that repeat it on later
// generations: on sm_80 8 products of f16 and the sum so far are aligned to the largest of the nine and cut off, with
// one bit more than f32 has; on sm_90 16 products, with two.
#include "units.h"
#include "ptx.h"
#include <algorithm>
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

typedef float Eight __attribute__((vector_size(32)));
typedef double Wide __attribute__((vector_size(64)));
typedef int32_t Whole __attribute__((vector_size(32)));
typedef int64_t Bits __attribute__((vector_size(64)));

// Compiled for more than the plain architecture too; with -ffp-contract=off the bits are the same. The sanitizers know
// no such functions.
#if defined __x86_64__ && !defined __SANITIZE_ADDRESS__ && !defined __clang__
#define FOR_EACH_CPU __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define FOR_EACH_CPU
#endif

// Where a number is not finite, or a result below the normal f32: one sum by itself. Terms are exact doubles: products
// of at most 24 bits.
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

// The same for eight neighbours in n at once: scaled terms are below 2^27, so that 32 bits cut them off, and doubles
// hold the sum; exponents are taken from the bits.
FOR_EACH_CPU static void add_groups(Adds adds, int N, const float *a, const float *b, float *c, int n) {
    Eight x;
    memcpy(&x, c, sizeof x);
    Wide sum = __builtin_convertvector(x, Wide), term[32];
    const Bits magnitude = (Bits){} + INT64_MAX, exponent = (Bits){} + ((int64_t)0x7ff << 52);
    Bits most = (Bits)sum & magnitude, one;
    for (int k = 0; k < n; k++) {
        memcpy(&x, b + k * N, sizeof x);
        term[k] = __builtin_convertvector(x, Wide) * (double)a[k];
        one = (Bits)term[k] & magnitude;
        most = one > most ? one : most;
    }
    // most lies in [2^(e - 1), 2^e), e being its biased exponent - 1022.
    const Bits biased = (most & exponent) >> 52;
    Bits plain = (biased > 1023 - 100) & (biased < 1023 + 120); // far from what is no normal f32
    Wide scale = (Wide)((1022 + 1023 + 24 + adds.extra - biased) << 52),
         back = (Wide)((biased - 1022 + 1023 - 24 - adds.extra) << 52);
    Wide total = __builtin_convertvector(__builtin_convertvector(sum * scale, Whole), Wide);
    for (int k = 0; k < n; k++) total += __builtin_convertvector(__builtin_convertvector(term[k] * scale, Whole), Wide);
    total *= back;
    Bits cut = (Bits)total & ~(((int64_t)1 << 29) - 1); // to the 24 bits of an f32
    Eight result = __builtin_convertvector((Wide)cut, Eight);
    Bits small = ((cut & magnitude) >> 52 <= 1023 - 126) & (cut != 0);
    plain &= ~small;
    for (int l = 0; l < 8; l++) {
        if (plain[l]) continue;
        if (most[l] == 0) { // padding, often
            double zero = sum[l];
            for (int k = 0; k < n; k++) zero += term[k][l];
            result[l] = (float)zero;
        } else result[l] = add_group(adds, c[l], a, b + l, N, n);
    }
    memcpy(c, &result, sizeof result);
}

// N is a multiple of 8, M of 4.
FOR_EACH_CPU static void add_ascending(int M, int N, int K, const float *a, const float *b, float *c) {
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
}

void multiply(Adds adds, int M, int N, int K, const float *a, const float *b, float *c) {
    if (adds.group == 0) return add_ascending(M, N, K, a, b, c);
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n += 8)
            for (int k = 0; k < K; k += adds.group)
                add_groups(adds, N, a + m * K + k, b + k * N + n, c + m * N + n, std::min(adds.group, K - k));
}

} // namespace ptx
