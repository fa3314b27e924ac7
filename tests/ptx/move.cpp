// Runs mov (also of pairs and special registers), cvta, isspacep, mapa.
#include "lanes.h"
#include <chrono>

namespace ptx {
namespace {

template <typename X> void move(Warp &w, const Instr &i, uint32_t lanes) {
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a);
    each_lane(lanes, [&](int l) { d[l] = a[l]; });
}
struct Wide {
    uint64_t low, high;
};
void move_pred(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t a = w.pred(i.a) ^ (i.x ? ALL : 0), &d = w.pred(i.d);
    d = (d & ~lanes) | (a & lanes);
}
// {a, b, ...} of x bytes each into one register, and back; the first is the lowest.
void join(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t each = i.x, all = each * (uint32_t)i.list.size();
    each_lane(lanes, [&](int l) {
        uint8_t *d = w.at<uint8_t>(i.d) + (uint32_t)l * all;
        for (size_t k = 0; k < i.list.size(); k++)
            memcpy(d + k * each, w.at<uint8_t>(i.list[k]) + (uint32_t)l * each, each);
    });
}
void split(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t each = i.x, all = each * (uint32_t)i.list.size();
    each_lane(lanes, [&](int l) {
        uint8_t a[16];
        memcpy(a, w.at<uint8_t>(i.a) + (uint32_t)l * all, all);
        for (size_t k = 0; k < i.list.size(); k++)
            memcpy(w.at<uint8_t>(i.list[k]) + (uint32_t)l * each, a + k * each, each);
    });
}
// The clocks: x 0 the warp's instructions, 1 nanoseconds; y: the upper half.
template <typename X> void clock(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t now = i.x ? (uint64_t)std::chrono::steady_clock::now().time_since_epoch().count()
                       : w.block->cluster->warp_instructions;
    X *d = w.at<X>(i.d);
    each_lane(lanes, [&](int l) { d[l] = (X)(i.y ? now >> 32 : now); });
}

// Between a space and generic addresses: imm is added (to generic) or taken away.
template <typename To, typename From> void cvta(Warp &w, const Instr &i, uint32_t lanes) {
    To *d = w.at<To>(i.d);
    const From *a = w.at<From>(i.a);
    each_lane(lanes, [&](int l) { d[l] = (To)(a[l] + i.imm); });
}
void isspacep(Warp &w, const Instr &i, uint32_t lanes) {
    const uint64_t *a = w.at<uint64_t>(i.a);
    uint32_t r = 0, &d = w.pred(i.d);
    for (int l = 0; l < LANES; l++) {
        Space s = a[l] >> 60 == 1 ? SHARED : a[l] >> 60 == 2 ? LOCAL : a[l] >> 60 == 3 ? PARAM : GLOBAL;
        r |= (uint32_t)(s == i.x) << l;
    }
    d = (d & ~lanes) | (r & lanes);
}
// The address of the same variable in another block of the cluster; z: an address of 64 bits, y: a generic one.
void mapa(Warp &w, const Instr &i, uint32_t lanes) {
    const uint32_t *rank = w.at<uint32_t>(i.b);
    each_lane(lanes, [&](int l) {
        if (rank[l] >= w.block->cluster->size) fault(w, i, 1u << l, "there is no block %u in the cluster", rank[l]);
        uint64_t a = i.x == 8 ? w.at<uint64_t>(i.a)[l] : w.at<uint32_t>(i.a)[l];
        uint64_t to = (a & ~(uint64_t)0xff000000) | (uint64_t)(rank[l] + 1) << RANK_SHIFT;
        if (i.x == 8) w.at<uint64_t>(i.d)[l] = to;
        else w.at<uint32_t>(i.d)[l] = (uint32_t)to;
    });
}
void getctarank(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    each_lane(lanes, [&](int l) {
        uint64_t a = i.x == 8 ? w.at<uint64_t>(i.a)[l] : w.at<uint32_t>(i.a)[l];
        uint32_t rank = (uint32_t)a >> RANK_SHIFT;
        d[l] = rank ? rank - 1 : w.block->rank;
    });
}

Run mover(int n) {
    return n == 1    ? move<uint8_t>
           : n == 2  ? move<uint16_t>
           : n == 4  ? move<uint32_t>
           : n == 8  ? move<uint64_t>
           : n == 16 ? move<Wide>
                     : nullptr;
}

void decode_mov(Decoder &d) {
    Instr &i = d.i;
    Type t = d.take_type();
    int n = bytes_of(t);
    d.need(2);
    const Operand &to = d.arg(0), &from = d.arg(1);
    if (t == PRED) {
        i.d = d.out(to, 0), i.a = d.in_pred(from), i.x = from.negated, i.run = move_pred;
        return;
    }
    if (to.kind == Operand::VECTOR || from.kind == Operand::VECTOR) {
        bool joins = from.kind == Operand::VECTOR;
        const Operand &many = joins ? from : to;
        size_t count = many.list.size();
        if (count < 2 || count > 4 || n % (int)count) d.bad("a vector of %zu", count);
        i.x = (uint32_t)n / (uint32_t)count;
        d.vector(many, (int)i.x, &i.list, !joins);
        if (joins) i.d = d.out(to, n), i.run = join;
        else i.a = d.in(from, n), i.run = split;
        i.copies = true;
        return;
    }
    i.d = d.out(to, n);
    if (from.kind == Operand::REG && from.reg >= 0 && d.f.regs[(size_t)from.reg].special) {
        const std::string &name = d.f.regs[(size_t)from.reg].name;
        if (name.find("clock") != std::string::npos || name.find("timer") != std::string::npos) {
            i.x = name[1] == 'g', i.y = name.find("_hi") != std::string::npos;
            i.run = n == 4 ? clock<uint32_t> : clock<uint64_t>;
            return;
        }
        if (n == 8 && d.bytes(from) == 4) { // %gridid and such may be read wider
            i.a = d.in(from, 4), i.imm = 0, i.run = cvta<uint64_t, uint32_t>;
            return;
        }
    }
    i.a = d.in(from, n);
    i.run = mover(n);
    i.copies = from.kind == Operand::REG;
    if (!i.run) d.unknown();
}

} // namespace

bool decode_move(Decoder &d) {
    Instr &i = d.i;
    if (d.name == "mov") {
        decode_mov(d);
    } else if (d.name == "cvta") {
        bool back = d.take("to");
        Space s = d.take_space();
        int n = bytes_of(d.take_type());
        if (s == GENERIC || (n != 8 && n != 4)) d.unknown();
        uint64_t window = s == SHARED ? SHARED_WINDOW : s == LOCAL ? LOCAL_WINDOW : s == PARAM ? PARAM_WINDOW : 0;
        d.need(2);
        i.imm = back ? -window : window;
        const Operand &from = d.arg(1);
        if (from.kind == Operand::VARIABLE && from.variable >= 0) {
            Space own = d.m.variables[(size_t)from.variable].space;
            if (own != s && !(own == CONSTANT && s == GLOBAL)) d.bad("a variable of another space");
        }
        int from_bytes = d.bytes(from) == 4 ? 4 : 8, to_bytes = d.bytes(d.arg(0)) == 4 ? 4 : 8;
        i.d = d.out(0, to_bytes), i.a = d.in(1, from_bytes);
        i.run = to_bytes == 8     ? from_bytes == 8 ? cvta<uint64_t, uint64_t> : cvta<uint64_t, uint32_t>
                    : from_bytes == 8 ? cvta<uint32_t, uint64_t>
                                  : cvta<uint32_t, uint32_t>;
    } else if (d.name == "isspacep") {
        i.x = d.take_space();
        d.need(2);
        i.d = d.out(0, 0), i.a = d.in(1, 8), i.run = isspacep;
    } else if (d.name == "mapa" || d.name == "getctarank") {
        d.take_space();
        i.x = (uint32_t)bytes_of(d.take_type());
        if (i.x != 4 && i.x != 8) d.unknown();
        if (d.name == "mapa")
            d.need(3), i.d = d.out(0, (int)i.x), i.a = d.in(1, (int)i.x), i.b = d.in(2, 4), i.run = mapa;
        else d.need(2), i.d = d.out(0, 4), i.a = d.in(1, (int)i.x), i.run = getctarank;
    } else return false;
    return true;
}

} // namespace ptx
