// Runs atom and red. Blocks run on several threads of the CPU, so in global memory every change is a compare and swap.
#include "memory.h"
#include "numbers.h"

namespace ptx {
namespace {

enum Operation : uint8_t { ADD, MIN, MAX, AND, OR, XOR, EXCH, CAS, INC, DEC };

template <typename X> X whole(Operation op, X old, X b, X c) {
    typedef std::make_unsigned_t<X> U;
    switch (op) {
    case ADD: return (X)((U)old + (U)b);
    case MIN: return old < b ? old : b;
    case MAX: return old > b ? old : b;
    case AND: return old & b;
    case OR: return old | b;
    case XOR: return old ^ b;
    case EXCH: return b;
    case CAS: return old == b ? c : old;
    case INC: return (U)old >= (U)b ? 0 : (X)(old + 1);
    case DEC: return old == 0 || (U)old > (U)b ? b : (X)(old - 1);
    }
    return old;
}
uint64_t real(Operation op, Type t, uint64_t old, uint64_t b) {
    auto choose = [&](double x, double y) { return op == ADD ? x + y : op == MIN ? std::fmin(x, y) : std::fmax(x, y); };
    if (t == F32) {
        float x = f32_of((uint32_t)old), y = f32_of((uint32_t)b);
        return bits_of(op == ADD ? x + y : (float)choose((double)x, (double)y));
    }
    if (t == F64) {
        double x, y;
        memcpy(&x, &old, 8), memcpy(&y, &b, 8);
        x = choose(x, y);
        memcpy(&old, &x, 8);
        return old;
    }
    uint64_t r = 0;
    bool bf = t == BF16 || t == BF16X2;
    for (int h = 0; h < (t == F16X2 || t == BF16X2 ? 2 : 1); h++) {
        uint16_t p = (uint16_t)(old >> 16 * h), q = (uint16_t)(b >> 16 * h);
        double x = bf ? (double)bf16_to_f32(p) : (double)f16_to_f32(p),
               y = bf ? (double)bf16_to_f32(q) : (double)f16_to_f32(q);
        r |= (uint64_t)(bf ? f64_to_bf16(choose(x, y)) : f64_to_f16(choose(x, y))) << 16 * h;
    }
    return r;
}
template <typename X> X change(Operation op, Type t, X old, X b, X c) {
    if (is_float(t) && op != EXCH && op != CAS) return (X)real(op, t, old, b);
    if (is_signed(t))
        return (X)whole<std::make_signed_t<X>>(op, (std::make_signed_t<X>)old, (std::make_signed_t<X>)b,
                                               (std::make_signed_t<X>)c);
    return whole<X>(op, old, b, c);
}

// x: space | operation << 8 | type << 16; y: it has a result.
template <typename X> void atomic(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    Operation op = (Operation)(i.x >> 8 & 255);
    Type t = (Type)(i.x >> 16);
    uint32_t bytes = (uint32_t)sizeof(X) * i.count;
    for (; lanes; lanes &= lanes - 1) {
        int l = __builtin_ctz(lanes);
        uint8_t *p = locate(w, i, l, (Space)(i.x & 255), at[l], bytes, false);
        locate(w, i, l, (Space)(i.x & 255), at[l], bytes, true);
        for (uint32_t k = 0; k < i.count; k++) {
            X *x = (X *)p + k, b = w.at<X>(i.list[k])[l], c = w.at<X>(i.c)[l];
            X old = __atomic_load_n(x, __ATOMIC_RELAXED), now;
            do now = change<X>(op, t, old, b, c);
            while (!__atomic_compare_exchange_n(x, &old, now, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
            if (i.y) w.at<X>(i.list2[k])[l] = old;
        }
    }
    w.block->cluster->events++;
}

template <typename X> void reduce(Operation op, Type t, uint8_t *to, const uint8_t *with) {
    X *x = (X *)to, old = __atomic_load_n(x, __ATOMIC_RELAXED), now, b;
    memcpy(&b, with, sizeof b);
    do now = change<X>(op, t, old, b, 0);
    while (!__atomic_compare_exchange_n(x, &old, now, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
}

} // namespace

void reduce_element(uint8_t op, uint8_t type, uint8_t *to, const uint8_t *with) {
    int n = bytes_of((Type)type);
    if (n == 2) reduce<uint16_t>((Operation)op, (Type)type, to, with);
    else if (n == 4) reduce<uint32_t>((Operation)op, (Type)type, to, with);
    else reduce<uint64_t>((Operation)op, (Type)type, to, with);
}

bool decode_atomic(Decoder &d) {
    if (d.name != "atom" && d.name != "red") return false;
    Instr &i = d.i;
    i.y = d.name == "atom";
    if (d.name == "red" && d.take("async")) return false;
    d.take_one({"relaxed", "acquire", "release", "acq_rel"}), d.take_one({"cta", "cluster", "gpu", "sys"});
    d.take("noftz");
    Space s = d.take_space();
    d.take_hints();
    int op = d.take_one({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"}),
        vector = d.take_one({"v2", "v4", "v8"});
    Type t = d.take_type();
    int n = bytes_of(t);
    if (op < 0 || n < 2 || (is_float(t) && op > MAX)) d.unknown();
    i.count = (uint8_t)(vector < 0 ? 1 : 2 << vector);
    i.x = (uint32_t)s | (uint32_t)op << 8 | (uint32_t)t << 16;
    size_t first = i.y;
    d.need(first + (op == CAS ? 3 : 2), first + (op == CAS ? 4 : 3));
    if (i.y) d.vector(d.arg(0), n, &i.list2, true);
    d.address(first, s);
    d.vector(d.arg(first + 1), n, &i.list, false);
    i.c = op == CAS ? d.in(first + 2, n) : i.list.empty() ? 0 : i.list[0];
    if (i.list.size() != i.count || (i.y && i.list2.size() != i.count) || n * i.count > 16)
        d.bad("a vector of %zu", i.list.size());
    i.run = n == 2 ? atomic<uint16_t> : n == 4 ? atomic<uint32_t> : n == 8 ? atomic<uint64_t> : nullptr;
    if (!i.run) d.unknown();
    return true;
}

} // namespace ptx
