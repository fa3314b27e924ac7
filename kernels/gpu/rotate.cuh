// The angles of rotary position embedding, for the op rope and for decode, which rotates its own rows: the same bits.
#pragma once
#include "common.cuh"
#include <math.h>

// Sine and cosine by range reduction to within pi/4 of 0 and power series, in f64: both right to the last bit of f32 or
// so.
static __device__ __forceinline__ void sine_cosine(float x, float *sine, float *cosine) {
    double turns = rint((double)x * 0.63661977236758134308); // quarter turns
    double r = ((double)x - turns * 1.57079632679489655800) - turns * 6.12323399573676603587e-17, z = r * r;
    double s =
        r * (1 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800))))));
    double c =
        1 + z * (-0.5 +
                 z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600))))));
    int quarter = (int)turns & 3;
    double sn = quarter & 1 ? c : s, cs = quarter & 1 ? s : c;
    *sine = (float)(quarter & 2 ? -sn : sn);
    *cosine = (float)((quarter + 1) & 2 ? -cs : cs);
}

// The pair (x, y) rotated by an angle of that cosine and sine; by -sine it is rotated back.
static __device__ __forceinline__ float2 rope_rotate(float x, float y, float cosine, float sine) {
    return make_float2(x * cosine - y * sine, y * cosine + x * sine);
}

// (cosine, sine) of pair i at a position, times the table's scale. The angle is an f32 product, as in HF.
static __device__ __forceinline__ float2 rope_angle(const RopeTable &table, int32_t pos, int i) {
    float sine, cosine;
    sine_cosine((float)pos * table.inv_freq[i], &sine, &cosine);
    return make_float2(cosine * table.scale, sine * table.scale);
}
