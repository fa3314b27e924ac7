// The ops in f64, as plainly as they can be written: what the cases in cases.h are held against.
#pragma once
#include "case.h"

// y[T,D] = x * rstd * w, rstd[T]? = 1 / sqrt(mean(x^2) + eps)
static inline void oracle_rmsnorm(double *y, double *rstd, const double *x, const double *w, int64_t T, int64_t D,
                                  double eps) {
    for (int64_t t = 0; t < T; t++) {
        double ss = 0;
        for (int64_t i = 0; i < D; i++) ss += x[t * D + i] * x[t * D + i];
        double r = 1 / sqrt(ss / (double)D + eps);
        for (int64_t i = 0; i < D; i++) y[t * D + i] = x[t * D + i] * r * w[i];
        if (rstd) rstd[t] = r;
    }
}

// y[T, H+2K, d] = x + bias, the first `rotated` heads turned by pos. The angle is rounded to f32 on the way, as in HF.
static inline void oracle_rope(double *y, const double *x, const double *bias, const double *pos, double theta,
                               int64_t T, int64_t heads, int64_t rotated, int64_t d) {
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < d / 2; i++) {
                int64_t lo = (t * heads + h) * d + i, hi = lo + d / 2;
                double a = x[lo] + (bias ? bias[h * d + i] : 0), b = x[hi] + (bias ? bias[h * d + i + d / 2] : 0);
                float inv_freq = 1 / (float)pow(theta, (double)((float)(2 * i) / (float)d));
                double angle = h < rotated ? (double)((float)pos[t] * inv_freq) : 0;
                y[lo] = a * cos(angle) - b * sin(angle);
                y[hi] = b * cos(angle) + a * sin(angle);
            }
}

// One query q[d] over n keys and values, `step` elements apart: y[d], and its logsumexp.
static inline double oracle_attend(double *y, const double *q, const double *k, const double *v, int64_t n,
                                   int64_t step, int64_t d) {
    double *s = xmalloc((size_t)n * sizeof *s + 1), max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        s[j] = 0;
        for (int64_t i = 0; i < d; i++) s[j] += q[i] * k[j * step + i];
        s[j] /= sqrt((double)d);
        max = fmax(max, s[j]);
    }
    for (int64_t i = 0; i < d; i++) y[i] = 0;
    for (int64_t j = 0; j < n; j++) sum += s[j] = exp(s[j] - max);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < d; i++) y[i] += s[j] / sum * v[j * step + i];
    free(s);
    return max + log(sum);
}

// y[T,H,d], lse[T,H]? over packed sequences seq[B+1], each after the whole of sequence prefix[B]? (< 0: after nothing)
static inline void oracle_attention(double *y, double *lse, const double *qkv, const double *seq, const double *prefix,
                                    int64_t B, int64_t H, int64_t K, int64_t d) {
    int64_t step = (H + 2 * K) * d;
    for (int64_t b = 0; b < B; b++) {
        int64_t start = (int64_t)seq[b], n = (int64_t)seq[b + 1] - start, p = prefix ? (int64_t)prefix[b] : -1;
        int64_t from = p < 0 ? 0 : (int64_t)seq[p], before = p < 0 ? 0 : (int64_t)seq[p + 1] - from;
        double *all = xcalloc((size_t)((before + n) * step) + 1, sizeof *all); // the tokens in order
        memcpy(all, qkv + from * step, (size_t)(before * step) * sizeof *all);
        memcpy(all + before * step, qkv + start * step, (size_t)(n * step) * sizeof *all);
        for (int64_t t = 0; t < n; t++)
            for (int64_t h = 0; h < H; h++) {
                const double *k = all + (H + h / (H / K)) * d, *q = all + (before + t) * step + h * d;
                double l = oracle_attend(y + ((start + t) * H + h) * d, q, k, k + K * d, before + t + 1, step, d);
                if (lse) lse[(start + t) * H + h] = l;
            }
        free(all);
    }
}

// h[T,F] = silu(gu[T,:F]) * gu[T,F:]
static inline void oracle_swiglu(double *h, const double *gu, int64_t T, int64_t F) {
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < F; i++) {
            double g = gu[t * 2 * F + i], u = gu[t * 2 * F + F + i];
            h[t * F + i] = g / (1 + exp(-g)) * u;
        }
}

static inline double oracle_dot(const double *a, const double *b, int64_t n) {
    long double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (long double)a[i] * b[i];
    return (double)sum;
}
