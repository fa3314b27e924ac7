// Comparisons that a NaN cannot pass (cmocka's assert_float_equal takes a NaN for equal to anything).
#pragma once
#include <math.h>
#include <stdint.h>

#define assert_near(got, want, eps)                                                                                    \
    do {                                                                                                               \
        double got_ = (double)(got), want_ = (double)(want);                                                           \
        if (!(fabs(got_ - want_) <= (double)(eps))) fail_msg("%s gives %g, not %g", #got, got_, want_);                \
    } while (0)

// The larger of two errors; unlike fmax it keeps a NaN.
static inline double worse(double a, double b) { return isnan(a) || a > b ? a : b; }

// ||a - b|| / ||b||, of n numbers that are not all 0.
static inline double distance_of(const float *a, const float *b, int64_t n) {
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(diff / norm);
}
