// Runs ldmatrix, stmatrix, movmatrix and mma.sync of shapes m16n8k*.
#include "memory.h"
#include "numbers.h"
#include "units.h"

namespace ptx {
namespace {

// x: transposed; y: shared memory is meant (else generic).
void ldmatrix(Warp &w, const Instr &i, uint32_t) {
    uint64_t at[LANES];
    addresses(w, i, at);
    uint16_t tile[4][8][8];
    uint32_t unwritten[4] = {}; // lanes that get some of a row that nobody has written
    for (uint32_t k = 0; k < i.count; k++)
        for (int r = 0; r < 8; r++) {
            int l = (int)k * 8 + r;
            w.unwritten = 0;
            memcpy(tile[k][r], locate(w, i, l, i.y ? SHARED : GENERIC, at[l], 16, false), 16);
            if (w.unwritten) unwritten[k] |= i.x ? 0x11111111u << r / 2 : 0xfu << 4 * r;
        }
    for (uint32_t k = 0; k < i.count; k++)
        if (unwritten[k] && i.writes.size() == i.count) mark_undefined(w, i.writes[k], unwritten[k]);
    for (uint32_t k = 0; k < i.count; k++) {
        uint32_t *d = w.at<uint32_t>(i.list[k]);
        for (int l = 0; l < LANES; l++) {
            int g = l / 4, q = l % 4 * 2;
            d[l] = i.x ? tile[k][q][g] | (uint32_t)tile[k][q + 1][g] << 16
                       : tile[k][g][q] | (uint32_t)tile[k][g][q + 1] << 16;
        }
    }
}
void stmatrix(Warp &w, const Instr &i, uint32_t) {
    uint64_t at[LANES];
    addresses(w, i, at);
    for (uint32_t k = 0; k < i.count; k++) {
        uint16_t tile[8][8];
        const uint32_t *s = w.at<uint32_t>(i.list[k]);
        for (int l = 0; l < LANES; l++) {
            int g = l / 4, q = l % 4 * 2;
            (i.x ? tile[q][g] : tile[g][q]) = (uint16_t)s[l];
            (i.x ? tile[q + 1][g] : tile[g][q + 1]) = (uint16_t)(s[l] >> 16);
        }
        for (int r = 0; r < 8; r++) {
            int l = (int)k * 8 + r;
            memcpy(locate(w, i, l, i.y ? SHARED : GENERIC, at[l], 16, true), tile[r], 16);
        }
    }
}
void movmatrix(Warp &w, const Instr &i, uint32_t) {
    uint16_t tile[8][8];
    const uint32_t *a = w.at<uint32_t>(i.a);
    uint32_t *d = w.at<uint32_t>(i.d);
    for (int l = 0; l < LANES; l++)
        tile[l / 4][l % 4 * 2] = (uint16_t)a[l], tile[l / 4][l % 4 * 2 + 1] = (uint16_t)(a[l] >> 16);
    for (int l = 0; l < LANES; l++) d[l] = tile[l % 4 * 2][l / 4] | (uint32_t)tile[l % 4 * 2 + 1][l / 4] << 16;
}

float element(Type t, uint32_t reg, int j) {
    switch (t) {
    case BF16: return bf16_to_f32((uint16_t)(reg >> 16 * j));
    case F16: return f16_to_f32((uint16_t)(reg >> 16 * j));
    case TF32: return tf32_of(f32_of(reg));
    case E4M3: return e4m3_to_f32((uint8_t)(reg >> 8 * j));
    case E5M2: return e5m2_to_f32((uint8_t)(reg >> 8 * j));
    case S8: return (float)(int8_t)(reg >> 8 * j);
    default: return (float)(uint8_t)(reg >> 8 * j);
    }
}

// The elements of a fragment's register, to where put(lane, which) says.
template <typename Put> void spread(Type t, const uint32_t *s, int each, Put put) {
    if (t == BF16) {
        for (int l = 0; l < LANES; l++) put(l, 0) = f32_of(s[l] << 16), put(l, 1) = f32_of(s[l] & 0xffff0000u);
        return;
    }
    for (int l = 0; l < LANES; l++)
        for (int j = 0; j < each; j++) put(l, j) = element(t, s[l], j);
}

// Fragments: a register holds E = 4 / bytes neighbours in k. Lane l, g = l / 4, q = l % 4; register r of A: row g + 8
// (r % 2), columns E q + 4 E (r / 2) on; of B: rows E q + 4 E r on, column g; of C: row g + 8 (r / 2), column 2 q + r
// % 2. x: types of a, b, c, d, a byte each; y: K. list: d, then a, b, c as count says.
void mma(Warp &w, const Instr &i, uint32_t lanes) {
    if (lanes != ALL) fault(w, i, lanes, "a warp of 32 lanes is needed");
    w.block->cluster->flops += 2 * 16 * 8 * i.y;
    Type ta = (Type)(i.x & 255), tb = (Type)(i.x >> 8 & 255), tc = (Type)(i.x >> 16 & 255), td = (Type)(i.x >> 24);
    int bytes = ta == TF32 ? 4 : bytes_of(ta), each = 4 / bytes, K = (int)i.y, registers = K / (4 * each);
    float a[16 * 32], b[32 * 8], c[16 * 8];
    int32_t whole[16 * 8];
    bool integer = tc == S32;
    const int32_t *list = i.list.data();
    int nd = td == F16 ? 2 : 4;
    for (int r = 0; r < 2 * registers; r++) {
        float *at = a + 8 * (r % 2) * K + 4 * each * (r / 2);
        spread(ta, w.at<uint32_t>(list[nd + r]), each,
               [&](int l, int j) -> float & { return at[l / 4 * K + each * (l % 4) + j]; });
    }
    for (int r = 0; r < registers; r++) {
        float *at = b + 4 * each * r * 8;
        spread(tb, w.at<uint32_t>(list[nd + 2 * registers + r]), each,
               [&](int l, int j) -> float & { return at[(each * (l % 4) + j) * 8 + l / 4]; });
    }
    const int32_t *lc = list + nd + 3 * registers;
    for (int r = 0; r < 4; r++)
        for (int l = 0; l < LANES; l++) {
            int at = (l / 4 + 8 * (r / 2)) * 8 + l % 4 * 2 + r % 2;
            if (integer) whole[at] = w.at<int32_t>(lc[r])[l];
            else if (tc == F16) c[at] = f16_to_f32((uint16_t)(w.at<uint32_t>(lc[r / 2])[l] >> 16 * (r % 2)));
            else c[at] = w.at<float>(lc[r])[l];
        }
    if (integer)
        for (int m = 0; m < 16; m++)
            for (int n = 0; n < 8; n++)
                for (int k = 0; k < K; k++)
                    whole[m * 8 + n] = (int32_t)((uint32_t)whole[m * 8 + n] +
                                                 (uint32_t)((int32_t)a[m * K + k] * (int32_t)b[k * 8 + n]));
    else multiply(unit_of(w.block->cluster->grid->launch.units, false, bytes), 16, 8, K, a, b, c);
    for (int l = 0; l < LANES; l++)
        for (int r = 0; r < 4; r++) {
            int at = (l / 4 + 8 * (r / 2)) * 8 + l % 4 * 2 + r % 2;
            if (integer) w.at<int32_t>(list[r])[l] = whole[at];
            else if (td == F32) w.at<float>(list[r])[l] = c[at];
            else if (r % 2 == 0)
                w.at<uint32_t>(list[r / 2])[l] = f32_to_f16(c[at]) | (uint32_t)f32_to_f16(c[at + 1]) << 16;
        }
}

void decode_mma_sync(Decoder &d) {
    Instr &i = d.i;
    int K = 0;
    for (size_t n = 0; n < d.mods.size(); n++)
        if (sscanf(d.mods[n].c_str(), "m16n8k%d", &K) == 1) {
            d.mods.erase(d.mods.begin() + (long)n);
            break;
        }
    if (!K || !d.take("row") || !d.take("col")) d.unknown();
    d.take("satfinite");
    Type td = d.take_type(), ta = d.take_type(), tb = d.take_type(), tc = d.take_type();
    int bytes = ta == TF32 ? 4 : bytes_of(ta);
    bool real =
        (ta == BF16 || ta == F16 || ta == TF32) ? tb == ta : (ta == E4M3 || ta == E5M2) && (tb == E4M3 || tb == E5M2);
    bool integer = (ta == S8 || ta == U8) && (tb == S8 || tb == U8) && tc == S32 && td == S32;
    if (!integer && (!real || (tc != F32 && tc != F16) || td != tc)) d.unknown();
    if (tc == F16 && ta != F16 && bytes != 1) d.unknown();
    if (K * bytes != 16 && K * bytes != 32) d.unknown();
    d.need(4);
    i.x = (uint32_t)ta | (uint32_t)tb << 8 | (uint32_t)tc << 16 | (uint32_t)td << 24;
    i.y = (uint32_t)K;
    size_t n = (size_t)(K * bytes / 16), c = tc == F16 ? 2 : 4;
    for (size_t k = 0; k < 4; k++) {
        size_t before = i.list.size();
        d.vector(d.arg(k), 4, &i.list, k == 0);
        if (i.list.size() - before != (k == 0 || k == 3 ? c : k == 1 ? 2 * n : n))
            d.bad("operand %zu has %zu registers", k + 1, i.list.size() - before);
    }
    i.run = mma;
}

} // namespace

bool decode_matrix(Decoder &d) {
    Instr &i = d.i;
    if (d.name == "ldmatrix" || d.name == "stmatrix") {
        if (!d.take("sync") || !d.take("aligned") || !d.take("m8n8")) d.unknown();
        int count = d.take_one({"x1", "x2", "x4"});
        if (count < 0) d.unknown();
        i.x = d.take("trans");
        bool cluster;
        Space s = d.take_space(&cluster);
        if (d.take_type() != B16 || cluster || (s != SHARED && s != GENERIC)) d.unknown();
        bool loads = d.name == "ldmatrix";
        d.need(2);
        i.y = s == SHARED;
        i.count = (uint8_t)(1 << count);
        d.vector(d.arg(loads ? 0 : 1), 4, &i.list, loads);
        if (i.list.size() != i.count) d.bad("%zu registers", i.list.size());
        d.address(loads ? 1 : 0, s);
        i.flow = TOGETHER, i.loads = loads, i.run = loads ? ldmatrix : stmatrix;
        return true;
    }
    if (d.name == "movmatrix") {
        if (!d.take("sync") || !d.take("aligned") || !d.take("m8n8") || !d.take("trans") || d.take_type() != B16)
            d.unknown();
        d.need(2);
        i.d = d.out(0, 4), i.a = d.in(1, 4), i.flow = TOGETHER, i.run = movmatrix;
        return true;
    }
    return false;
}
bool decode_mma(Decoder &d) {
    if (d.name != "mma") return false;
    if (!d.take("sync") || !d.take("aligned")) d.unknown();
    decode_mma_sync(d);
    d.i.flow = TOGETHER;
    return true;
}

} // namespace ptx
