// Runs conversions, cvt. Frequent pairs have loops of their own; any pair goes through an integer or a double, which
// hold every source exactly.
#include "lanes.h"
#include "numbers.h"

namespace ptx {
namespace {

enum : uint32_t { FTZ = 1, SAT = 2, RELU = 4, TO_INTEGER = 8 }; // TO_INTEGER: a float rounded to a whole number

uint64_t read(Warp &w, int32_t at, uint32_t bytes, int l) {
    switch (bytes) {
    case 1: return w.at<uint8_t>(at)[l];
    case 2: return w.at<uint16_t>(at)[l];
    case 4: return w.at<uint32_t>(at)[l];
    default: return w.at<uint64_t>(at)[l];
    }
}
void write(Warp &w, int32_t at, uint32_t bytes, int l, uint64_t v) {
    switch (bytes) {
    case 1: w.at<uint8_t>(at)[l] = (uint8_t)v; break;
    case 2: w.at<uint16_t>(at)[l] = (uint16_t)v; break;
    case 4: w.at<uint32_t>(at)[l] = (uint32_t)v; break;
    default: w.at<uint64_t>(at)[l] = v;
    }
}
double float_value(Type t, uint64_t v) {
    double d;
    switch (t) {
    case F16: return (double)f16_to_f32((uint16_t)v);
    case BF16: return (double)bf16_to_f32((uint16_t)v);
    case F32: return (double)f32_of((uint32_t)v);
    default: memcpy(&d, &v, 8); return d;
    }
}
__int128 integer_value(Type t, uint64_t v) {
    switch (t) {
    case S8: return (int8_t)v;
    case S16: return (int16_t)v;
    case S32: return (int32_t)v;
    case S64: return (int64_t)v;
    case U8: return (uint8_t)v;
    case U16: return (uint16_t)v;
    case U32: return (uint32_t)v;
    default: return v;
    }
}
uint64_t float_bits(Type t, double x, unsigned rounding) {
    uint64_t u = 0;
    if (t == F16) return f64_to_f16(x, (Rounding)rounding);
    if (t == BF16) return f64_to_bf16(x, (Rounding)rounding);
    if (t == F32) {
        volatile double v = x;
        RoundingScope scope(rounding);
        volatile float f = (float)v;
        return bits_of(f);
    }
    memcpy(&u, &x, 8);
    return u;
}
double to_whole(double x, unsigned rounding) {
    return rounding == 0   ? std::nearbyint(x)
           : rounding == 1 ? std::trunc(x)
           : rounding == 2 ? std::floor(x)
                           : std::ceil(x);
}
__int128 least(Type t) { return is_signed(t) ? -((__int128)1 << (bytes_of(t) * 8 - 1)) : 0; }
__int128 most(Type t) { return ((__int128)1 << (bytes_of(t) * 8 - is_signed(t))) - 1; }

// x: rounding; y: flags; z: destination type, source type, bytes of their registers.
void general(Warp &w, const Instr &i, uint32_t lanes) {
    Type to = (Type)(i.z & 255), from = (Type)(i.z >> 8 & 255);
    uint32_t to_bytes = i.z >> 16 & 255, from_bytes = i.z >> 24;
    each_lane(lanes, [&](int l) {
        uint64_t v = read(w, i.a, from_bytes, l), r;
        if (is_float(from)) {
            double x = float_value(from, v);
            if (i.y & FTZ && from == F32) x = (double)flush((float)x);
            if (is_float(to)) {
                if (i.y & TO_INTEGER) x = to_whole(x, i.x);
                if (i.y & SAT) x = x > 0 ? x < 1 ? x : 1 : 0;
                if (i.y & RELU) x = x > 0 || x != x ? x : 0;
                r = float_bits(to, x, i.y & TO_INTEGER ? 0 : i.x);
                if (i.y & FTZ && to == F32) r = bits_of(flush(f32_of((uint32_t)r)));
            } else {
                x = to_whole(x, i.x);
                if (x != x) r = from != F64 && bytes_of(to) < 8 ? 0 : (uint64_t)1 << (bytes_of(to) * 8 - 1);
                else if (x <= (double)least(to)) r = (uint64_t)least(to);
                else if (x >= (double)most(to)) r = (uint64_t)most(to);
                else r = (uint64_t)(__int128)x;
                if (is_signed(to) && bytes_of(to) < 8) r = (uint64_t)integer_value(to, r);
            }
        } else {
            __int128 x = integer_value(from, v);
            if (!is_float(to)) {
                if (i.y & SAT) x = x < least(to) ? least(to) : x > most(to) ? most(to) : x;
                r = (uint64_t)integer_value(to, (uint64_t)x);
            } else if (to == F32 || to == F64) {
                RoundingScope scope(i.x);
                volatile int64_t s = (int64_t)x;
                volatile uint64_t u = (uint64_t)x;
                if (to == F32) {
                    volatile float f = x < 0 ? (float)s : (float)u;
                    r = bits_of(i.y & SAT ? f > 1 ? 1 : f < 0 ? 0 : f : f);
                } else {
                    volatile double d = x < 0 ? (double)s : (double)u;
                    double keep = d;
                    memcpy(&r, &keep, 8);
                }
            } else { // 53 bits hold what matters to 11, but for a sticky bit
                double d = (double)(int64_t)(x >> 12);
                d = x > ((__int128)1 << 52) || x < -((__int128)1 << 52) ? d * 4096 : (double)(int64_t)x;
                r = float_bits(to, d, i.x);
            }
        }
        write(w, i.d, to_bytes, l, r);
    });
}

template <typename To, typename From> void cast(Warp &w, const Instr &i, uint32_t lanes) {
    To *d = w.at<To>(i.d);
    const From *a = w.at<From>(i.a);
    each_lane(lanes, [&](int l) { d[l] = (To)a[l]; });
}
void f32_from_bf16(Warp &w, const Instr &i, uint32_t lanes) {
    float *d = w.at<float>(i.d);
    const uint16_t *a = w.at<uint16_t>(i.a);
    each_lane(lanes, [&](int l) { d[l] = bf16_to_f32(a[l]); });
}
void f32_from_f16(Warp &w, const Instr &i, uint32_t lanes) {
    float *d = w.at<float>(i.d);
    const uint16_t *a = w.at<uint16_t>(i.a);
    each_lane(lanes, [&](int l) { d[l] = f16_to_f32(a[l]); });
}
void bf16_from_f32(Warp &w, const Instr &i, uint32_t lanes) {
    uint16_t *d = w.at<uint16_t>(i.d);
    const float *a = w.at<float>(i.a);
    each_lane(lanes, [&](int l) { d[l] = f32_to_bf16(a[l]); });
}

// Two at once: d = {a high, b low}.
void pack_bf16(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    const float *a = w.at<float>(i.a), *b = w.at<float>(i.b);
    each_lane(lanes, [&](int l) { d[l] = (uint32_t)f32_to_bf16(a[l]) << 16 | f32_to_bf16(b[l]); });
}
void pack(Warp &w, const Instr &i, uint32_t lanes) {
    const float *a = w.at<float>(i.a), *b = w.at<float>(i.b);
    Type to = (Type)i.z;
    each_lane(lanes, [&](int l) {
        uint32_t r[2];
        for (int h = 0; h < 2; h++) {
            float x = h ? a[l] : b[l];
            if (i.y & RELU) x = x > 0 || x != x ? x : 0;
            if (i.y & SAT && to == F16X2) x = x > 65504 ? 65504 : x < -65504 ? -65504 : x;
            r[h] = to == F16X2    ? f32_to_f16(x, (Rounding)i.x)
                   : to == BF16X2 ? f64_to_bf16((double)x, (Rounding)i.x)
                   : to == E4M3X2 ? f32_to_e4m3(x)
                                  : f32_to_e5m2(x);
        }
        if (to == F16X2 || to == BF16X2) w.at<uint32_t>(i.d)[l] = r[1] << 16 | r[0];
        else w.at<uint16_t>(i.d)[l] = (uint16_t)(r[1] << 8 | r[0]);
    });
}
void unpack(Warp &w, const Instr &i, uint32_t lanes) { // z: e4m3x2 or e5m2x2 to f16x2
    uint32_t *d = w.at<uint32_t>(i.d);
    const uint16_t *a = w.at<uint16_t>(i.a);
    each_lane(lanes, [&](int l) {
        uint8_t low = (uint8_t)a[l], high = (uint8_t)(a[l] >> 8);
        bool e4 = i.z == E4M3X2;
        d[l] = (uint32_t)f32_to_f16(e4 ? e4m3_to_f32(high) : e5m2_to_f32(high)) << 16 |
               f32_to_f16(e4 ? e4m3_to_f32(low) : e5m2_to_f32(low));
    });
}
void halves_to_small(Warp &w, const Instr &i, uint32_t lanes) { // f16x2 to e4m3x2 or e5m2x2
    uint16_t *d = w.at<uint16_t>(i.d);
    const uint32_t *a = w.at<uint32_t>(i.a);
    each_lane(lanes, [&](int l) {
        float low = f16_to_f32((uint16_t)a[l]), high = f16_to_f32((uint16_t)(a[l] >> 16));
        d[l] = i.z == E4M3X2 ? (uint16_t)(f32_to_e4m3(high) << 8 | f32_to_e4m3(low))
                             : (uint16_t)(f32_to_e5m2(high) << 8 | f32_to_e5m2(low));
    });
}
void to_tf32(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    const float *a = w.at<float>(i.a);
    each_lane(lanes, [&](int l) {
        float x = i.y & RELU && !(a[l] > 0) && a[l] == a[l] ? 0 : a[l];
        d[l] = i.x == 1 ? bits_of(x) & 0xffffe000u : f32_to_tf32(x, i.x == AWAY);
    });
}

Run fast(Type to, Type from, int to_bytes, int from_bytes) {
    if (from_bytes != bytes_of(from) || to_bytes != bytes_of(to)) return nullptr;
    if (to == U64 || to == S64)
        return from == U32 ? cast<uint64_t, uint32_t> : from == S32 ? cast<int64_t, int32_t> : nullptr;
    if (to == U32 || to == S32)
        return from == U64 || from == S64 ? cast<uint32_t, uint64_t>
               : from == U16              ? cast<uint32_t, uint16_t>
               : from == S16              ? cast<int32_t, int16_t>
                                          : nullptr;
    if (to == U16 || to == S16) return from == U32 || from == S32 ? cast<uint16_t, uint32_t> : nullptr;
    return nullptr;
}

} // namespace

bool decode_convert(Decoder &d) {
    if (d.name != "cvt") return false;
    Instr &i = d.i;
    int real = d.take_one({"rn", "rz", "rm", "rp", "rna"}), whole = d.take_one({"rni", "rzi", "rmi", "rpi"});
    i.x = (uint32_t)(real >= 0 ? real : whole >= 0 ? whole : 0);
    bool satfinite = d.take("satfinite");
    i.y = (d.take("ftz") ? FTZ : 0u) | (d.take("sat") ? SAT : 0u) | (d.take("relu") ? RELU : 0u) |
          (whole >= 0 ? TO_INTEGER : 0u);
    Type to = d.take_type(), from = d.take_type();
    if (!to || !from) d.unknown();
    bool pair = to == F16X2 || to == BF16X2 || to == E4M3X2 || to == E5M2X2;
    if (pair && from == F32) {
        if (satfinite && to == F16X2) i.y |= SAT;
        d.need(3);
        i.d = d.out(0, bytes_of(to)), i.a = d.in(1, 4), i.b = d.in(2, 4), i.z = to;
        i.run = to == BF16X2 && !i.x && !i.y ? pack_bf16 : pack;
        return true;
    }
    if (to == F16X2 && (from == E4M3X2 || from == E5M2X2)) {
        if (i.y) d.unknown();
        d.need(2);
        i.d = d.out(0, 4), i.a = d.in(1, 2), i.z = from, i.run = unpack;
        return true;
    }
    if ((to == E4M3X2 || to == E5M2X2) && from == F16X2) {
        if (i.y) d.unknown();
        d.need(2);
        i.d = d.out(0, 2), i.a = d.in(1, 4), i.z = to, i.run = halves_to_small;
        return true;
    }
    if (to == TF32 && from == F32) {
        d.need(2);
        i.d = d.out(0, 4), i.a = d.in(1, 4), i.run = to_tf32;
        return true;
    }
    auto usual = [](Type t) { return (t >= U8 && t <= S64) || t == F16 || t == BF16 || t == F32 || t == F64; };
    if (!usual(to) || !usual(from) || satfinite) d.unknown();
    if (is_float(from) && is_float(to) && whole < 0 && real < 0 && bytes_of(to) < bytes_of(from)) d.unknown();
    d.need(2);
    int from_bytes = d.bytes(d.arg(1)), to_bytes = d.bytes(d.arg(0));
    if (from_bytes < 0) from_bytes = bytes_of(from);
    if (from_bytes < bytes_of(from) || to_bytes < bytes_of(to)) d.bad("a register of too few bits");
    i.d = d.out(0, to_bytes), i.a = d.in(1, from_bytes);
    i.z = (uint32_t)to | (uint32_t)from << 8 | (uint32_t)to_bytes << 16 | (uint32_t)from_bytes << 24;
    i.run = general;
    if (!i.y && !i.x && from_bytes == bytes_of(from) && to_bytes == bytes_of(to)) {
        if (to == F32 && from == BF16) i.run = f32_from_bf16;
        if (to == F32 && from == F16) i.run = f32_from_f16;
        if (to == BF16 && from == F32) i.run = bf16_from_f32;
        if (to == F32 && from == S32) i.run = cast<float, int32_t>;
        if (to == F32 && from == U32) i.run = cast<float, uint32_t>;
        if (to == F64 && from == F32) i.run = cast<double, float>;
        if (to == F32 && from == F64) i.run = cast<float, double>;
        if (Run run = fast(to, from, to_bytes, from_bytes)) i.run = run;
    }
    return true;
}

} // namespace ptx
