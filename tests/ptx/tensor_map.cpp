// Makes tensor maps on the device field by field, makes them known by proxy fences, and runs the copies of boxes that
// go by them.
#include "bulk.h"
#include "ptx.h"

namespace ptx {
namespace {

enum Field : int { ADDRESS, RANK, BOX, DIM, STRIDE, STEP, TYPE, INTERLEAVE, SWIZZLE, FILL };

TensorMap *map_bytes(Warp &w, const Instr &i, int lane, uint64_t address, Space space, bool write) {
    if (address % 64)
        fault(w, i, 1u << lane, "a tensor map at %#llx, which is no multiple of 64", (unsigned long long)address);
    uint8_t *p = nullptr;
    for (uint64_t k = 0; k < sizeof(TensorMap); k += 16) {
        uint8_t *q = locate(w, i, lane, space, address + k, 16, write);
        if (!k) p = q;
    }
    return (TensorMap *)p;
}
bool is_shared(Space space, uint64_t address) { return space == SHARED || (space == GENERIC && address >> 60 == 1); }
void changed(Warp &w, uint64_t address) {
    Grid &g = *w.block->cluster->grid;
    std::lock_guard<std::mutex> hold(g.lock);
    g.map_versions[address]++;
}

// x: field; y: which of the dimensions; b: the value (c: of 64 bits); imm of the address; list[0]: the space.
void replace(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    Space space = (Space)i.list[0];
    each_lane(lanes, [&](int l) {
        TensorMap *m = map_bytes(w, i, l, at[l], space, true);
        bool wide = (int)i.x == ADDRESS || (int)i.x == STRIDE;
        uint64_t v = wide ? w.at<uint64_t>(i.b)[l] : w.at<uint32_t>(i.b)[l];
        switch ((Field)i.x) {
        case ADDRESS: m->address = v; break;
        case RANK: m->rank = (uint32_t)v + 1; break;
        case BOX: m->box[i.y] = (uint32_t)v; break;
        case DIM: m->dim[i.y] = (uint32_t)v; break;
        case STRIDE: m->stride[i.y] = v; break;
        case STEP: m->step[i.y] = (uint32_t)v; break;
        case TYPE: m->type = (uint8_t)v; break;
        case INTERLEAVE: m->interleave = (uint8_t)v; break;
        case SWIZZLE: m->swizzle = (uint8_t)v; break;
        case FILL: m->fill = (uint8_t)v; break;
        }
        if (!is_shared(space, at[l])) changed(w, at[l]);
    });
}
// a: to (global), b: from (shared; z & 2: 32 bits). All lanes name the same.
void copy_fence(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t to[LANES];
    addresses(w, i, to);
    int l = __builtin_ctz(lanes);
    uint64_t from = (i.z & 2 ? w.at<uint32_t>(i.b)[l] : w.at<uint64_t>(i.b)[l]) + (uint64_t)(int64_t)i.list[0];
    TensorMap *source = map_bytes(w, i, l, from, SHARED, false);
    if (to[l] % 128)
        fault(w, i, lanes, "a tensor map at %#llx, which is no multiple of 128", (unsigned long long)to[l]);
    memcpy(map_bytes(w, i, l, to[l], GLOBAL, true), source, sizeof *source);
    changed(w, to[l]);
}
void acquire(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    Grid &g = *w.block->cluster->grid;
    std::lock_guard<std::mutex> hold(g.lock);
    each_lane(lanes, [&](int l) {
        auto known = g.map_versions.find(at[l]);
        if (known != g.map_versions.end()) w.block->maps_acquired[at[l]] = known->second;
    });
}

uint32_t element_bytes(uint8_t type) {
    static const uint8_t bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 4, 8, 2, 4, 4};
    return type < sizeof bytes ? bytes[type] : 0;
}
uint32_t swizzled(uint32_t address, uint8_t mode) {
    return mode == 0 ? address : address ^ ((address >> 3) & (mode == 3 ? 0x70u : mode == 2 ? 0x30u : 0x10u));
}

// The map at a generic address, checked; its box at the coordinates, in pieces of shared memory from `to` on.
void box(Warp &w, const Instr &i, int lane, uint64_t address, const int32_t *at, uint32_t rank, uint32_t to, Bulk *b) {
    Grid &g = *w.block->cluster->grid;
    const TensorMap m = *map_bytes(w, i, lane, address, GENERIC, false);
    {
        std::lock_guard<std::mutex> hold(g.lock);
        auto made = g.map_versions.find(address);
        if (made != g.map_versions.end()) {
            auto known = w.block->maps_acquired.find(address);
            if (known == w.block->maps_acquired.end() || known->second != made->second)
                fault(w, i, 1u << lane,
                      "a tensor map that the device has changed, without fence.proxy.tensormap::generic.acquire after "
                      "it");
        }
    }
    uint32_t size = element_bytes(m.type);
    uint64_t inner = (uint64_t)m.box[0] * size, rows = 1;
    if (m.rank != rank) fault(w, i, 1u << lane, "a tensor map of %u dimensions, where %u are meant", m.rank, rank);
    if (!size || m.swizzle > 3 || m.interleave || m.fill > 1)
        fault(w, i, 1u << lane, "a tensor map of type %u, swizzle %u, interleave %u, fill %u", m.type, m.swizzle,
              m.interleave, m.fill);
    for (uint32_t k = 0; k < rank; k++) {
        if (m.box[k] < 1 || m.box[k] > 256)
            fault(w, i, 1u << lane, "a box of %u in dimension %u; 1 to 256 there are", m.box[k], k);
        if (m.step[k] != 1) fault(w, i, 1u << lane, "a tensor map with an element stride of %u", m.step[k]);
        if (k && m.stride[k - 1] % 16)
            fault(w, i, 1u << lane, "a tensor map with a stride of %llu bytes, which is no multiple of 16",
                  (unsigned long long)m.stride[k - 1]);
        if (k) rows *= m.box[k];
    }
    if (inner % 16)
        fault(w, i, 1u << lane, "a box whose rows have %llu bytes, which is no multiple of 16",
              (unsigned long long)inner);
    if (m.swizzle && inner > 16u << m.swizzle)
        fault(w, i, 1u << lane, "a box whose rows have %llu bytes, more than a swizzle of %u",
              (unsigned long long)inner, 16u << m.swizzle);
    if (m.address % 16)
        fault(w, i, 1u << lane, "a tensor at %#llx, which is no multiple of 16", (unsigned long long)m.address);
    if (to % 128) fault(w, i, 1u << lane, "shared memory at %#x, which is no multiple of 128", to);
    if (rows * inner > SHARED_MOST) fault(w, i, 1u << lane, "a box of %llu bytes", (unsigned long long)(rows * inner));
    b->fill = m.fill ? 0xff : 0;
    for (uint64_t row = 0; row < rows; row++) {
        uint64_t rest = row, start = m.address;
        bool in = true;
        for (uint32_t k = 1; k < rank; k++) {
            int64_t c = (int64_t)at[k] + (int64_t)(rest % m.box[k]);
            rest /= m.box[k];
            in &= c >= 0 && c < (int64_t)m.dim[k];
            start += (uint64_t)c * m.stride[k - 1];
        }
        for (uint32_t chunk = 0; chunk < inner; chunk += 16) {
            uint32_t shared = swizzled(to + (uint32_t)(row * inner) + chunk, m.swizzle);
            // Elements of these 16 bytes that lie in the tensor.
            int64_t first = at[0] + (int64_t)(chunk / size), n = 16 / size;
            int64_t low = in ? std::min(std::max<int64_t>(0, -first), n) : n,
                    high = in ? std::max(low, std::min(n, (int64_t)m.dim[0] - first)) : n;
            if (low > 0) b->pieces.push_back({shared, 0, (uint32_t)(low * size)});
            if (high > low)
                b->pieces.push_back({shared + (uint32_t)(low * size), start + (uint64_t)((first + low) * size),
                                     (uint32_t)((high - low) * size)});
            if (high < n) b->pieces.push_back({shared + (uint32_t)(high * size), 0, (uint32_t)((n - high) * size)});
        }
    }
}
// a: to (z & 1: 32 bits); b: the map; e: mbarrier (z & 2), list: offsets of b and e, then the coordinates; d: ranks, x:
// multicast.
void tensor_load(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t to[LANES];
    addresses(w, i, to);
    each_lane(lanes, [&](int l) {
        int32_t at[5];
        for (uint32_t k = 0; k < i.count; k++) at[k] = w.at<int32_t>(i.list[2 + k])[l];
        uint64_t mbarrier = (i.z & 2 ? w.at<uint32_t>(i.e)[l] : w.at<uint64_t>(i.e)[l]) + (uint64_t)(int64_t)i.list[1];
        Bulk b;
        uint32_t offset;
        b.block = shared_block(w, i, l, to[l], 1, &offset);
        box(w, i, l, w.at<uint64_t>(i.b)[l] + (uint64_t)(int64_t)i.list[0], at, i.count, offset, &b);
        begin_load(w, i, l, std::move(b), mbarrier, i.x, i.x ? w.at<uint16_t>(i.d)[l] : 0);
    });
}
// a: from; b: the map; list as above, without a mbarrier (list[1] unused); x: 1 + operation.
void tensor_store(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t from[LANES];
    addresses(w, i, from);
    each_lane(lanes, [&](int l) {
        int32_t at[5];
        for (uint32_t k = 0; k < i.count; k++) at[k] = w.at<int32_t>(i.list[2 + k])[l];
        Bulk b;
        uint32_t offset;
        b.block = shared_block(w, i, l, from[l], 1, &offset);
        uint64_t map = w.at<uint64_t>(i.b)[l] + (uint64_t)(int64_t)i.list[0];
        box(w, i, l, map, at, i.count, offset, &b);
        if (i.x) {
            static const Type types[] = {U8, U16, U32, S32, U64, S64, F16, F32, F32, F64, BF16, F32, F32};
            b.reduce = (uint8_t)i.x, b.type = types[map_bytes(w, i, l, map, GENERIC, false)->type];
        }
        begin_bulk(w, i, l, std::move(b));
    });
}
void nothing(Warp &, const Instr &, uint32_t) {}

void decode_tensor_copy(Decoder &d, bool reduces) {
    Instr &i = d.i;
    int rank = d.take_one({"1d", "2d", "3d", "4d", "5d"}) + 1;
    if (!rank) d.unknown();
    i.count = (uint8_t)rank;
    d.take("tile");
    if (d.take("prefetch")) {
        d.mods.clear();
        i.run = nothing;
        return;
    }
    bool tells = d.take("mbarrier::complete_tx::bytes"), grouped = d.take("bulk_group"),
         multicast = d.take("multicast::cluster");
    d.take_hints();
    std::vector<std::string> order;
    for (const std::string &mod : d.mods)
        if (mod == "global" || mod.compare(0, 6, "shared") == 0) order.push_back(mod);
    if (tells == grouped || order.size() != 2 || (order[0] == "global") != grouped || (order[1] == "global") != tells)
        d.unknown();
    d.take("global");
    while (d.take("shared::cta") || d.take("shared::cluster")) continue;
    if (reduces) {
        int op = d.take_one({"add", "min", "max", "and", "or", "xor", "inc", "dec"});
        if (op < 0 || op > 5 || tells) d.unknown();
        i.x = (uint32_t)op + 1;
    }
    d.need(tells ? 3 : 2, tells ? 5 : 3);
    bool narrow;
    uint64_t offset;
    const Operand &map = d.arg(tells ? 1 : 0);
    d.address(map, GENERIC, &i.b, &offset, &narrow);
    if (narrow) d.bad("a tensor map's address of 32 bits");
    i.list = {(int32_t)offset, 0};
    d.address(tells ? 0 : 1, SHARED);
    if (tells) {
        d.address(d.arg(2), SHARED, &i.e, &offset, &narrow);
        i.list[1] = (int32_t)offset;
        if (narrow) i.z |= 2;
        i.x = multicast;
        if (multicast) i.d = d.in(3, 2);
    }
    if (map.list.size() != 1 || map.list[0].kind != Operand::VECTOR || map.list[0].list.size() != (size_t)rank)
        d.bad("the coordinates are not %d", rank);
    for (const Operand &o : map.list[0].list) i.list.push_back(d.in(o, 4));
    i.run = tells ? tensor_load : tensor_store;
}

} // namespace

bool decode_tensor_map(Decoder &d) {
    Instr &i = d.i;
    if (d.name == "cp") {
        bool reduces = d.take("reduce");
        if (!d.take("async") || !d.take("bulk") || !d.take("tensor")) return false;
        d.k.has_async = true;
        decode_tensor_copy(d, reduces);
        return true;
    }
    if (d.name == "fence") {
        if (!d.take("proxy") || !d.take("tensormap::generic")) return false;
        bool acquires = d.take_one({"release", "acquire"}) == 1;
        d.take_one({"cta", "cluster", "gpu", "sys"});
        d.need(acquires ? 1 : 0, 2);
        if (acquires) d.address(0, GENERIC);
        i.run = acquires ? acquire : nothing;
        return true;
    }
    if (d.name != "tensormap") return false;
    if (d.take("cp_fenceproxy")) {
        if (!d.take("global") || !d.take("shared::cta") || !d.take("tensormap::generic") || !d.take("release") ||
            !d.take("sync") || !d.take("aligned"))
            d.unknown();
        d.take_one({"cta", "cluster", "gpu", "sys"});
        d.need(3);
        bool narrow;
        uint64_t offset;
        d.address(0, GLOBAL);
        d.address(d.arg(1), SHARED, &i.b, &offset, &narrow);
        if (narrow) i.z |= 2;
        i.list.push_back((int32_t)offset);
        if (d.immediate(2) != sizeof(TensorMap)) d.bad("a tensor map has 128 bytes");
        i.flow = TOGETHER, i.run = copy_fence;
        return true;
    }
    if (!d.take("replace") || !d.take("tile")) d.unknown();
    int field = d.take_one({"global_address", "rank", "box_dim", "global_dim", "global_stride", "element_stride",
                            "elemtype", "interleave_layout", "swizzle_mode", "fill_mode"});
    Space s = d.take_space();
    if (field < 0 || d.take_type() != B1024) d.unknown();
    Type t = d.take_type();
    bool ordinal = field >= BOX && field <= STEP, wide = field == ADDRESS || field == STRIDE;
    if (bytes_of(t) != (wide ? 8 : 4)) d.unknown();
    d.need(ordinal ? 3 : 2);
    d.address(0, s);
    if (ordinal && d.immediate(1) > (field == STRIDE ? 3u : 4u))
        d.bad("dimension %llu", (unsigned long long)d.immediate(1));
    i.y = ordinal ? (uint32_t)d.immediate(1) : 0;
    i.x = (uint32_t)field;
    i.b = d.in(d.args() - 1, wide ? 8 : 4);
    i.list.push_back(s);
    i.run = replace;
    return true;
}

} // namespace ptx
