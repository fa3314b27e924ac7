// Runs wgmma: a warp computes its 16 of the 64 rows. The sums are made at once, but their registers are nobody else's
// before the group is waited for, and what it read of shared memory must be the same until then.
#include "memory.h"
#include "numbers.h"
#include "units.h"
#include <algorithm>

namespace ptx {

void watch_registers(Warp &w, const Instr &i, uint32_t lanes) {
    w.steps++;
    if (i.tracked || !lanes) return;
    uint64_t from_flight = 0; // the group
    for (int32_t r : i.reads) {
        if (w.in_group[(size_t)r] <= w.wgmma_done) continue;
        if (!i.copies)
            fault(w, i, lanes, "%s belongs to a wgmma that has not been waited for",
                  w.block->cluster->grid->kernel->function->regs[(size_t)r].name.c_str());
        from_flight = std::max(from_flight, w.in_group[(size_t)r]);
    }
    for (int32_t r : i.writes) {
        if (w.in_group[(size_t)r] > w.wgmma_done)
            fault(w, i, lanes, "%s belongs to a wgmma that has not been waited for",
                  w.block->cluster->grid->kernel->function->regs[(size_t)r].name.c_str());
        w.written_at[(size_t)r] = w.steps;
        if (from_flight) w.in_group[(size_t)r] = from_flight; // another name of the same
    }
}

namespace {

struct Descriptor {
    uint32_t start, leading, stride, span; // bytes; span: of the swizzle, 16 for none
};
Descriptor describe(Warp &w, const Instr &i, uint64_t d) {
    static const uint32_t spans[] = {16, 128, 64, 32};
    if (d >> 49 & 7) fault(w, i, ALL, "a descriptor with a base offset, which is not known");
    return {(uint32_t)(d & 0x3fff) << 4, (uint32_t)(d >> 16 & 0x3fff) << 4, (uint32_t)(d >> 32 & 0x3fff) << 4,
            spans[d >> 62]};
}
uint32_t swizzled(uint32_t at, uint32_t span) { return span == 16 ? at : at ^ ((at >> 3) & (span - 16)); }

// Calls f(address of 16 bytes, m or n, k): they hold neighbours in k, or (transposed) in m or n.
template <typename F>
void each_chunk(const Descriptor &d, bool transposed, int first, int rows, int K, int in_chunk, F f) {
    if (!transposed) {
        for (int r = first; r < first + rows; r++)
            for (int k = 0; k < K; k += in_chunk) {
                uint32_t row = (uint32_t)r % 8, group = (uint32_t)r / 8, chunk = (uint32_t)(k / in_chunk);
                uint32_t at = d.start + group * d.stride +
                              (d.span == 16 ? row * 16 + chunk * d.leading : row * d.span + chunk * 16);
                f(swizzled(at, d.span), r - first, k);
            }
        return;
    }
    uint32_t width = d.span / 16; // chunks of neighbours in a line of the swizzle
    for (int k = 0; k < K; k++)
        for (int r = first; r < first + rows; r += in_chunk) {
            uint32_t chunk = (uint32_t)(r / in_chunk), line = (uint32_t)k % 8, group = (uint32_t)k / 8;
            uint32_t at = d.start + (d.span == 16 ? chunk * d.stride + group * d.leading + line * 16
                                                  : chunk % width * 16 + chunk / width * d.leading + line * d.span +
                                                        group * d.stride);
            f(swizzled(at, d.span), r - first, k);
        }
}

float element(Type t, const uint8_t *p) {
    uint16_t h;
    float f;
    switch (t) {
    case BF16: memcpy(&h, p, 2); return bf16_to_f32(h);
    case F16: memcpy(&h, p, 2); return f16_to_f32(h);
    case TF32: memcpy(&f, p, 4); return tf32_of(f);
    case E4M3: return e4m3_to_f32(*p);
    case E5M2: return e5m2_to_f32(*p);
    case S8: return (float)(int8_t)*p;
    default: return (float)*p;
    }
}
// Reads a tile of shared memory to to[row * row_step + k * k_step], checked; its hash. to NULL: hashed only.
uint64_t read_tile(Warp &w, const Instr &i, uint64_t descriptor, bool transposed, int first, int rows, int K, Type t,
                   float *to, int row_step, int k_step) {
    Descriptor d = describe(w, i, descriptor);
    int bytes = t == TF32 ? 4 : bytes_of(t), each = 16 / bytes;
    uint64_t h = 0xcbf29ce484222325u;
    Block &b = *w.block;
    each_chunk(d, transposed, first, rows, K, each, [&](uint32_t at, int r, int k) {
        if (at < SHARED_BASE || at + 16 > b.shared_end)
            fault(w, i, ALL, "a descriptor that leads to shared memory at %#x; the block has %u bytes from %#x on", at,
                  b.shared_end - SHARED_BASE, SHARED_BASE);
        const uint8_t *p = &b.shared[at];
        if (to) {
            shared_async_read(w, i, 0, b, at, 16);
            for (int j = 0; j < each; j++)
                to[transposed ? (r + j) * row_step + k * k_step : r * row_step + (k + j) * k_step] =
                    element(t, p + j * bytes);
        }
        uint64_t word[2];
        memcpy(word, p, 16);
        h = ((h ^ word[0]) * 0x100000001b3u ^ word[1]) * 0x100000001b3u;
    });
    return h;
}

// How an Instr holds a wgmma. imm: N | K << 16; x: types of a, b, d; y: bits: 0 a's sign, 1 b's, 2 trans-a, 3 trans-b,
// 4 A in registers, 5 scale-d given by a predicate (c), which 6 negates; list: d; list2: a's registers; a, b:
// descriptors.
struct Shape {
    int N, K;
    Type a, b, d;
    bool trans_a, trans_b, in_registers;
};
Shape shape_of(const Instr &i) {
    return {(int)(i.imm & 0xffff),   (int)(i.imm >> 16),  (Type)(i.x & 255),   (Type)(i.x >> 8 & 255),
            (Type)(i.x >> 16 & 255), (i.y >> 2 & 1) != 0, (i.y >> 3 & 1) != 0, (i.y >> 4 & 1) != 0};
}
void own_registers(Warp &w, const Instr &i) {
    const Kernel &k = *w.block->cluster->grid->kernel;
    if (!w.fence) fault(w, i, ALL, "no wgmma.fence before it");
    for (int32_t r : i.writes)
        if (w.written_at[(size_t)r] > w.fence)
            fault(w, i, ALL, "%s was written after the last wgmma.fence", k.function->regs[(size_t)r].name.c_str());
    // The first two reads are descriptors or a predicate: they are taken as it begins. A's registers are not.
    if (shape_of(i).in_registers)
        for (int32_t r : i.reads)
            if (k.reg_bytes[(size_t)r] == 4) {
                if (w.written_at[(size_t)r] > w.fence)
                    fault(w, i, ALL, "%s was written after the last wgmma.fence",
                          k.function->regs[(size_t)r].name.c_str());
                w.in_group[(size_t)r] = w.wgmma_group;
            }
    for (int32_t r : i.reads)
        if (k.reg_bytes[(size_t)r] != 4 && w.in_group[(size_t)r] > w.wgmma_done)
            fault(w, i, ALL, "%s belongs to a wgmma that has not been waited for",
                  k.function->regs[(size_t)r].name.c_str());
    for (int32_t r : i.writes) w.in_group[(size_t)r] = w.wgmma_group;
}
void mma_async(Warp &w, const Instr &i, uint32_t lanes) {
    Shape s = shape_of(i);
    if (lanes != ALL) fault(w, i, lanes, "a warp of 32 lanes is needed");
    w.block->cluster->flops += (uint64_t)(2 * 16 * s.N * s.K);
    own_registers(w, i);
    int bytes = s.a == TF32 ? 4 : bytes_of(s.a), quarter = w.index % 4 * 16, each = 4 / bytes;
    float a[16 * 32], b[32 * 256], c[16 * 256];
    WgmmaRead reads{w.wgmma_group, 0, 0, 0, i.line, &i};
    if (s.in_registers) {
        for (int r = 0; r < 4; r++) {
            const uint8_t *p = w.at<uint8_t>(i.list2[(size_t)r]);
            for (int l = 0; l < LANES; l++)
                for (int j = 0; j < each; j++)
                    a[(l / 4 + 8 * (r % 2)) * s.K + each * (l % 4) + 4 * each * (r / 2) + j] =
                        element(s.a, p + l * 4 + j * bytes);
        }
    } else {
        reads.a = w.at<uint64_t>(i.a)[0];
        reads.hash = read_tile(w, i, reads.a, s.trans_a, quarter, 16, s.K, s.a, a, s.K, 1);
    }
    reads.b = w.at<uint64_t>(i.b)[0];
    reads.hash ^= read_tile(w, i, reads.b, s.trans_b, 0, s.N, s.K, s.b, b, 1, s.N) * 31;
    if (w.reading.size() >= MOST_UNDER_WAY) fault(w, i, ALL, "%zu wgmma under way", w.reading.size());
    w.reading.push_back(reads);
    if (i.y & 1)
        for (int n = 0; n < 16 * s.K; n++) a[n] = -a[n];
    if (i.y & 2)
        for (int n = 0; n < s.K * s.N; n++) b[n] = -b[n];
    bool adds = w.pred(i.c) & 1;
    if (i.y & 64) adds = !adds;
    int32_t whole[16 * 256];
    bool integer = s.d == S32;
    for (int l = 0; l < LANES; l++)
        for (int n = 0; n < s.N / 2; n++) {
            int at = (l / 4 + 8 * (n / 2 % 2)) * s.N + n / 4 * 8 + l % 4 * 2 + n % 2;
            if (integer) whole[at] = adds ? w.at<int32_t>(i.list[(size_t)n])[l] : 0;
            else if (!adds) c[at] = 0;
            else if (s.d == F32) c[at] = w.at<float>(i.list[(size_t)n])[l];
            else c[at] = f16_to_f32((uint16_t)(w.at<uint32_t>(i.list[(size_t)n / 2])[l] >> 16 * (n % 2)));
        }
    if (integer)
        for (int m = 0; m < 16; m++)
            for (int k = 0; k < s.K; k++)
                for (int n = 0; n < s.N; n++)
                    whole[m * s.N + n] = (int32_t)((uint32_t)whole[m * s.N + n] +
                                                   (uint32_t)((int32_t)a[m * s.K + k] * (int32_t)b[k * s.N + n]));
    else multiply(unit_of(w.block->cluster->grid->launch.units, true, bytes), 16, s.N, s.K, a, b, c);
    for (int l = 0; l < LANES; l++)
        for (int n = 0; n < s.N / 2; n++) {
            int at = (l / 4 + 8 * (n / 2 % 2)) * s.N + n / 4 * 8 + l % 4 * 2 + n % 2;
            if (integer) w.at<int32_t>(i.list[(size_t)n])[l] = whole[at];
            else if (s.d == F32) w.at<float>(i.list[(size_t)n])[l] = c[at];
            else if (n % 2 == 0)
                w.at<uint32_t>(i.list[(size_t)n / 2])[l] = f32_to_f16(c[at]) | (uint32_t)f32_to_f16(c[at + 1]) << 16;
        }
}
void fence(Warp &w, const Instr &, uint32_t) { w.fence = w.steps; }
void commit(Warp &w, const Instr &, uint32_t) { w.wgmma_group++; }
void wait_group(Warp &w, const Instr &i, uint32_t) {
    uint64_t done = w.wgmma_group - 1 > i.imm ? w.wgmma_group - 1 - i.imm : 0;
    if (done > w.wgmma_done) w.wgmma_done = done;
    size_t left = 0;
    for (WgmmaRead &r : w.reading) {
        if (r.group > w.wgmma_done) {
            w.reading[left++] = r;
            continue;
        }
        const Instr &of = *r.instr;
        Shape s = shape_of(of);
        uint64_t h =
            s.in_registers ? 0 : read_tile(w, of, r.a, s.trans_a, w.index % 4 * 16, 16, s.K, s.a, nullptr, 0, 0);
        h ^= read_tile(w, of, r.b, s.trans_b, 0, s.N, s.K, s.b, nullptr, 0, 0) * 31;
        if (h != r.hash)
            fault(w, i, ALL, "shared memory that the wgmma of line %d reads was overwritten before it was waited for",
                  r.line);
    }
    w.reading.resize(left);
}

void decode_mma_async(Decoder &d) {
    Instr &i = d.i;
    int N = 0, K = 0;
    for (size_t n = 0; n < d.mods.size(); n++)
        if (sscanf(d.mods[n].c_str(), "m64n%dk%d", &N, &K) == 2) {
            d.mods.erase(d.mods.begin() + (long)n);
            break;
        }
    d.take("satfinite");
    Type td = d.take_type(), ta = d.take_type(), tb = d.take_type();
    int bytes = ta == TF32 ? 4 : bytes_of(ta);
    bool half = ta == F16 || ta == BF16, small = ta == E4M3 || ta == E5M2, whole = ta == S8 || ta == U8;
    if (!(half || small || whole || ta == TF32) || (half || ta == TF32 ? tb != ta
                                                    : small            ? tb != E4M3 && tb != E5M2
                                                                       : tb != S8 && tb != U8))
        d.unknown();
    if (whole ? td != S32 : td != F32 && !(td == F16 && (ta == F16 || small))) d.unknown();
    if (K * bytes != 32 || N < 8 || N > 256 || N % 8) d.unknown();
    i.imm = (uint64_t)N | (uint64_t)K << 16;
    i.x = (uint32_t)ta | (uint32_t)tb << 8 | (uint32_t)td << 16;
    d.vector(d.arg(0), 4, &i.list, true);
    if (i.list.size() != (size_t)(td == F16 ? N / 4 : N / 2)) d.bad("%zu registers of the sum", i.list.size());
    if (d.arg(1).kind == Operand::VECTOR) {
        d.vector(d.arg(1), 4, &i.list2, false);
        if (i.list2.size() != 4) d.bad("%zu registers of A", i.list2.size());
        i.y |= 16;
    } else i.a = d.in(1, 8);
    i.b = d.in(2, 8);
    i.c = d.in_pred(3);
    if (d.flip(3)) i.y |= 64;
    size_t at = 4;
    if (!whole) {
        for (uint32_t k = 0; k < 2; k++) {
            uint64_t sign = d.immediate(at++);
            if (sign != 1 && sign != (uint64_t)-1) d.bad("a scale that is neither 1 nor -1");
            if (sign != 1) i.y |= 1u << k;
        }
        if (half) {
            if (!(i.y & 16)) i.y |= d.immediate(at++) ? 4u : 0u;
            i.y |= d.immediate(at++) ? 8u : 0u;
        }
    }
    d.need(at);
    i.run = mma_async;
    i.tracked = true;
}

} // namespace

bool decode_wgmma(Decoder &d) {
    Instr &i = d.i;
    if (d.name != "wgmma") return false;
    d.k.has_async = d.k.has_wgmma = true;
    int what = d.take_one({"fence", "commit_group", "wait_group", "mma_async"});
    if (what < 0 || !d.take("sync") || !d.take("aligned")) d.unknown();
    i.flow = TOGETHER;
    if (what == 0) i.run = fence;
    else if (what == 1) i.run = commit;
    else if (what == 2) d.need(1), i.imm = d.immediate(0), i.run = wait_group;
    else decode_mma_async(d);
    return true;
}

} // namespace ptx
