// Runs one operation on the lanes of a warp that take part.
#pragma once
#include "decode.h"
#include <cfenv>
#include <cmath>
#include <cstring>

namespace ptx {

template <typename F> static inline void each_lane(uint32_t lanes, F f) {
    if (lanes == ALL) {
        for (int l = 0; l < LANES; l++) f(l);
    } else {
        for (; lanes; lanes &= lanes - 1) f(__builtin_ctz(lanes));
    }
}

// Op: struct with a type T (operands), optionally D (result), and static f(...).
template <typename Op> struct Result {
    template <typename O> static typename O::D of(typename O::D *);
    template <typename O> static typename O::T of(...);
    typedef decltype(of<Op>(nullptr)) type;
};
template <typename Op> void run1(Warp &w, const Instr &i, uint32_t lanes) {
    auto *d = w.at<typename Result<Op>::type>(i.d);
    const auto *a = w.at<typename Op::T>(i.a);
    each_lane(lanes, [&](int l) { d[l] = Op::f(a[l]); });
}
template <typename Op> void run2(Warp &w, const Instr &i, uint32_t lanes) {
    auto *d = w.at<typename Result<Op>::type>(i.d);
    const auto *a = w.at<typename Op::T>(i.a), *b = w.at<typename Op::T>(i.b);
    each_lane(lanes, [&](int l) { d[l] = Op::f(a[l], b[l]); });
}
template <typename Op> void run3(Warp &w, const Instr &i, uint32_t lanes) {
    auto *d = w.at<typename Result<Op>::type>(i.d);
    const auto *a = w.at<typename Op::T>(i.a), *b = w.at<typename Op::T>(i.b), *c = w.at<typename Op::T>(i.c);
    each_lane(lanes, [&](int l) { d[l] = Op::f(a[l], b[l], c[l]); });
}

// The addresses of an instruction's lanes: base + offset, in 32 bits where the base has 32.
static inline void addresses(Warp &w, const Instr &i, uint64_t to[LANES]) {
    if (i.z & 1) {
        const uint32_t *base = w.at<uint32_t>(i.a);
        uint32_t offset = (uint32_t)i.imm;
        for (int l = 0; l < LANES; l++) to[l] = base[l] + offset;
    } else {
        const uint64_t *base = w.at<uint64_t>(i.a);
        for (int l = 0; l < LANES; l++) to[l] = base[l] + i.imm;
    }
}

} // namespace ptx
