// Runs ld, st and what only hints, with the checks of each memory space.
#include "memory.h"

namespace ptx {

static uint64_t pattern(uint32_t bytes) {
    return bytes >= 8 ? 0x0101010101010101u : ((uint64_t)1 << (8 * bytes)) / 255;
}
static_assert(WRITTEN == 1, "pattern() is made of it");

// A load may read it, where nothing uses it then.
static void unwritten(Warp &w, const Instr &i, int lane, const char *space, uint64_t at) {
    if (!i.loads)
        fault(w, i, 1u << lane, "a read of %s memory at %#llx that nobody has written", space, (unsigned long long)at);
    w.unwritten |= 1u << lane;
}
void mark_undefined(Warp &w, int32_t reg, uint32_t lanes) {
    if (w.undefined.empty()) w.undefined.resize(w.block->cluster->grid->kernel->reg_bytes.size());
    w.undefined[(size_t)reg] |= lanes;
}
void watch_undefined(Warp &w, const Instr &i, uint32_t lanes) {
    const Kernel &k = *w.block->cluster->grid->kernel;
    uint32_t copied = 0;
    for (int32_t r : i.reads) {
        uint32_t bad = w.undefined[(size_t)r] & lanes;
        if (!bad) continue;
        bool chosen = false;
        if (i.selects && k.reg_bytes[(size_t)r]) {
            uint32_t p = w.pred(i.c) ^ (i.x ? ALL : 0);
            chosen = true;
            bad &= (k.reg_offset[(size_t)r] == i.a ? p : 0) | (k.reg_offset[(size_t)r] == i.b ? ~p : 0);
        }
        if (!i.copies && !chosen)
            fault(w, i, bad, "%s was read from memory that nobody has written",
                  k.function->regs[(size_t)r].name.c_str());
        copied |= bad;
    }
    for (int32_t r : i.writes) w.undefined[(size_t)r] = (w.undefined[(size_t)r] & ~lanes) | copied;
}

uint8_t *global_bytes(Warp &w, const Instr &i, int lane, uint64_t address, uint64_t bytes, bool write) {
    const std::vector<Range> &ranges = w.block->cluster->grid->ranges;
    size_t at = w.last_range;
    if (at >= ranges.size() || address - ranges[at].start >= ranges[at].bytes) {
        size_t low = 0, high = ranges.size();
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (ranges[middle].start <= address) low = middle + 1;
            else high = middle;
        }
        at = low - 1; // of none below: the greatest number
        if (low == 0 || address - ranges[at].start >= ranges[at].bytes) {
            if (address >> 60 == 1)
                fault(w, i, 1u << lane, "the generic address of shared memory, where global memory is meant");
            if (low && address >= ranges[at].start)
                fault(w, i, 1u << lane,
                      "%llu bytes of global memory at %#llx, %llu behind the end of a buffer of %llu bytes",
                      (unsigned long long)bytes, (unsigned long long)address,
                      (unsigned long long)(address - ranges[at].start - ranges[at].bytes),
                      (unsigned long long)ranges[at].bytes);
            fault(w, i, 1u << lane, "%llu bytes of global memory at %#llx, where no buffer is",
                  (unsigned long long)bytes, (unsigned long long)address);
        }
        w.last_range = at;
    }
    const Range &r = ranges[at];
    if (r.bytes - (address - r.start) < bytes)
        fault(w, i, 1u << lane, "%llu bytes of global memory, %llu before the end of a buffer of %llu bytes",
              (unsigned long long)bytes, (unsigned long long)(r.bytes - (address - r.start)),
              (unsigned long long)r.bytes);
    if (write && r.read_only) fault(w, i, 1u << lane, "a write to constant memory");
    if (w.block->cluster->grid->launch.early && !(w.waited >> lane & 1) && !r.read_only)
        fault(w, i, 1u << lane, "global memory before griddepcontrol.wait, while the kernel before may still write it");
    if (r.written) {
        uint8_t *state = r.written + (address - r.start);
        if (write) memset(state, 1, bytes);
        else if (memchr(state, 0, bytes)) unwritten(w, i, lane, "global", address - r.start);
    }
    return (uint8_t *)address;
}

Block *shared_block(Warp &w, const Instr &i, int lane, uint64_t address, uint64_t bytes, uint32_t *offset) {
    Block *b = w.block;
    uint32_t rank = (uint32_t)(address >> RANK_SHIFT), at = (uint32_t)address & ((1u << RANK_SHIFT) - 1);
    if (address >> 32 == SHARED_WINDOW >> 32) address &= 0xffffffff; // a generic one, whose window is known
    if (address >> 32 || rank > b->cluster->size)
        fault(w, i, 1u << lane, "a shared address of %#llx", (unsigned long long)address);
    if (rank) b = &b->cluster->blocks[rank - 1];
    if (at < SHARED_BASE || at + bytes > b->shared_end)
        fault(w, i, 1u << lane, "%llu bytes of shared memory at %#x; the block has %u bytes from %#x on",
              (unsigned long long)bytes, at, b->shared_end - SHARED_BASE, SHARED_BASE);
    *offset = at;
    return b;
}

static void say_state(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes, const char *what) {
    for (uint32_t k = 0; k < bytes; k++) {
        uint8_t s = b.state[at + k];
        if (s & COPYING)
            fault(w, i, 1u << lane, "%s of shared memory at %#x, whose copy has not been waited for", what, at + k);
        if (s & A_BARRIER) fault(w, i, 1u << lane, "%s of shared memory at %#x, where an mbarrier is", what, at + k);
        if (what[2] == 'r' && !(s & WRITTEN)) return unwritten(w, i, lane, "shared", at + k);
    }
}
static void check_copies(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes) {
    for (uint32_t k = at / 4; k <= (at + bytes - 1) / 4; k++)
        if (b.tag[k] & TAG_COPY && &b == w.block && !(b.copy_seen[b.tag[k] & ~TAG_COPY] >> w.index & 1))
            fault(w, i, 1u << lane, "a read of shared memory at %#x, whose copy has not been waited for by warp %d",
                  k * 4, w.index);
}
void shared_read(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes) {
    uint64_t state = 0;
    for (uint32_t k = 0; k < bytes; k += 8) {
        uint32_t n = bytes - k < 8 ? bytes - k : 8;
        memcpy(&state, &b.state[at + k], n);
        if (n < 8) state &= ((uint64_t)1 << 8 * n) - 1;
        if (state != pattern(n)) say_state(w, i, lane, b, at, bytes, "a read");
    }
    if (!b.tag.empty()) check_copies(w, i, lane, b, at, bytes);
}
void shared_write(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes) {
    uint64_t state = 0;
    for (uint32_t k = 0; k < bytes; k += 8) {
        uint32_t n = bytes - k < 8 ? bytes - k : 8;
        memcpy(&state, &b.state[at + k], n);
        if (state & ~pattern(8)) say_state(w, i, lane, b, at, bytes, "a write");
        state = pattern(n);
        memcpy(&b.state[at + k], &state, n);
        state = 0;
    }
    if (!b.tag.empty() && &b == w.block)
        for (uint32_t k = at / 4; k <= (at + bytes - 1) / 4; k++) b.tag[k] = (uint32_t)w.index << 26 | b.clock[w.index];
}
static void check_fenced(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes, const char *what) {
    for (uint32_t k = at / 4; k <= (at + bytes - 1) / 4; k++) {
        uint32_t tag = b.tag[k], writer = tag >> 26;
        if (!tag || tag & TAG_COPY || (tag & 0x3ffffff) <= b.fenced[writer]) continue;
        fault(w, i, 1u << lane,
              "%s of shared memory at %#x by the asynchronous proxy; warp %u wrote there, and no proxy fence stands "
              "between",
              what, k * 4, writer);
    }
}
void shared_async_read(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes) {
    shared_read(w, i, lane, b, at, bytes);
    check_fenced(w, i, lane, b, at, bytes, "a read");
}
void shared_async_write(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes) {
    for (uint32_t k = 0; k < bytes; k++)
        if (b.state[at + k] & (COPYING | A_BARRIER)) say_state(w, i, lane, b, at, bytes, "a write");
    check_fenced(w, i, lane, b, at, bytes, "a write");
}

uint8_t *locate(Warp &w, const Instr &i, int lane, Space space, uint64_t address, uint32_t bytes, bool write) {
    if (space == GENERIC) {
        switch (address >> 60) {
        case 1: space = SHARED, address -= SHARED_WINDOW; break;
        case 2: space = LOCAL, address -= LOCAL_WINDOW; break;
        case 3: space = PARAM, address -= PARAM_WINDOW; break;
        default: space = GLOBAL;
        }
    }
    if (address & (bytes - 1))
        fault(w, i, 1u << lane, "%u bytes at %#llx, which is no multiple of that", bytes, (unsigned long long)address);
    if (space == GLOBAL || space == CONSTANT) return global_bytes(w, i, lane, address, bytes, write);
    if (space == SHARED) {
        uint32_t at;
        Block *b = shared_block(w, i, lane, address, bytes, &at);
        if (write) shared_write(w, i, lane, *b, at, bytes);
        else shared_read(w, i, lane, *b, at, bytes);
        return &b->shared[at];
    }
    if (space == PARAM) {
        std::vector<uint8_t> &p = w.block->cluster->grid->launch.params;
        if (address > p.size() || p.size() - address < bytes)
            fault(w, i, 1u << lane, "%u bytes of the parameters at %llu, of %zu", bytes, (unsigned long long)address,
                  p.size());
        if (write) fault(w, i, 1u << lane, "a write to the kernel's parameters");
        return &p[address];
    }
    uint32_t each = w.block->cluster->grid->kernel->local_bytes;
    if (address > each || each - address < bytes)
        fault(w, i, 1u << lane, "%u bytes of local memory at %llu, of %u", bytes, (unsigned long long)address, each);
    size_t at = (size_t)lane * each + address;
    if (write) memset(w.local_written + at, 1, bytes);
    else if (memchr(w.local_written + at, 0, bytes)) unwritten(w, i, lane, "local", address);
    return w.local + at;
}

namespace {

// x: the space. An element of T goes to (or comes from) a register of R.
template <typename T, typename R> void load(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    uint32_t count = i.count, bytes = (uint32_t)sizeof(T) * count;
    R *d[8];
    for (uint32_t k = 0; k < count; k++) d[k] = w.at<R>(i.list[k]);
    w.unwritten = 0;
    each_lane(lanes, [&](int l) {
        const uint8_t *p = locate(w, i, l, (Space)i.x, at[l], bytes, false);
        for (uint32_t k = 0; k < count; k++) {
            T v;
            memcpy(&v, p + k * sizeof(T), sizeof(T));
            d[k][l] = (R)v;
        }
    });
    if (w.unwritten)
        for (int32_t r : i.writes) mark_undefined(w, r, w.unwritten);
}
template <typename T, typename R> void store(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    uint32_t count = i.count, bytes = (uint32_t)sizeof(T) * count;
    const R *s[8];
    for (uint32_t k = 0; k < count; k++) s[k] = w.at<R>(i.list[k]);
    each_lane(lanes, [&](int l) {
        uint8_t *p = locate(w, i, l, (Space)i.x, at[l], bytes, true);
        for (uint32_t k = 0; k < count; k++) {
            T v = (T)s[k][l];
            memcpy(p + k * sizeof(T), &v, sizeof(T));
        }
    });
}
// A parameter at a constant address is the same for all lanes.
template <typename T, typename R> void load_param(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    int first = __builtin_ctz(lanes);
    const uint8_t *p = locate(w, i, first, PARAM, at[first], (uint32_t)sizeof(T) * i.count, false);
    for (uint32_t k = 0; k < i.count; k++) {
        T v;
        memcpy(&v, p + k * sizeof(T), sizeof(T));
        R *d = w.at<R>(i.list[k]);
        each_lane(lanes, [&](int l) { d[l] = (R)v; });
    }
}

template <typename T, typename R> Run pick_op(int op) {
    return op == 0 ? load<T, R> : op == 1 ? store<T, R> : load_param<T, R>;
}
template <typename T> Run pick(int op, int reg) { // op: 0 load, 1 store, 2 parameter
    typedef std::conditional_t<std::is_signed_v<T>, int16_t, uint16_t> R2;
    typedef std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t> R4;
    typedef std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t> R8;
    if (reg < (int)sizeof(T)) return nullptr;
    return reg == 1   ? pick_op<T, uint8_t>(op)
           : reg == 2 ? pick_op<T, R2>(op)
           : reg == 4 ? pick_op<T, R4>(op)
           : reg == 8 ? pick_op<T, R8>(op)
                      : nullptr;
}
typedef unsigned __int128 Quad;
Run pick_type(Type t, int op, int reg) {
    switch (t) {
    case B8:
    case U8: return pick<uint8_t>(op, reg);
    case S8: return pick<int8_t>(op, reg);
    case B16:
    case U16:
    case F16:
    case BF16: return pick<uint16_t>(op, reg);
    case S16: return pick<int16_t>(op, reg);
    case B32:
    case U32:
    case F32:
    case F16X2:
    case BF16X2: return pick<uint32_t>(op, reg);
    case S32: return pick<int32_t>(op, reg);
    case B64:
    case U64:
    case F64:
    case S64: return pick<uint64_t>(op, reg);
    case B128:
        return reg != 16 ? nullptr : op == 0 ? load<Quad, Quad> : op == 1 ? store<Quad, Quad> : load_param<Quad, Quad>;
    default: return nullptr;
    }
}

void nothing(Warp &, const Instr &, uint32_t) {}
// A prefetch of memory that is not there does no harm on a GPU; createpolicy makes a number nobody reads.
void zero64(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t *d = w.at<uint64_t>(i.d);
    each_lane(lanes, [&](int l) { d[l] = 0; });
}

void fence_proxy(Warp &w, const Instr &, uint32_t) {
    Block &b = *w.block;
    if (b.tag.empty()) return;
    for (int v = 0; v < LANES; v++) {
        uint32_t known = v == w.index ? b.clock[v] : b.know[w.index][v];
        if (known > b.fenced[v]) b.fenced[v] = known;
    }
    b.clock[w.index]++; // what is written from now on is not behind it
}

} // namespace

bool decode_memory(Decoder &d) {
    Instr &i = d.i;
    if (d.name == "ld" || d.name == "ldu" || d.name == "st") {
        bool writes = d.name == "st";
        d.take_one({"weak", "volatile", "relaxed", "acquire", "release", "mmio"});
        d.take_one({"cta", "cluster", "gpu", "sys"});
        d.take("unified");
        for (const std::string &mod : d.mods)
            if (mod == "async" || mod == "bulk") return false;
        i.x = d.take_space();
        d.take_hints();
        int vector = d.take_one({"v2", "v4", "v8"});
        Type t = d.take_type();
        i.count = (uint8_t)(vector < 0 ? 1 : 2 << vector);
        d.need(2, 3); // a cache policy may follow
        size_t value = writes ? 1 : 0, where = writes ? 0 : 1;
        d.address(where, (Space)i.x);
        if (i.x == PARAM && d.arg(where).variable >= 0) i.x = LOCAL; // of a call
        const Operand &o = d.arg(value);
        std::vector<Operand> one = o.kind == Operand::VECTOR ? o.list : std::vector<Operand>{o};
        if (one.size() != i.count || bytes_of(t) * i.count > 32 || bytes_of(t) < 1)
            d.bad("a vector of %zu", one.size());
        int reg = -1;
        for (const Operand &x : one)
            if (d.bytes(x) >= 0) reg = d.bytes(x);
        if (reg < 0) reg = bytes_of(t);
        for (const Operand &x : one) i.list.push_back(writes ? d.in(x, reg) : d.out(x, reg));
        if (d.args() > 2) d.in(2, 8);
        i.loads = !writes;
        i.run = pick_type(t, writes ? 1 : i.x == PARAM && i.a < 0 ? 2 : 0, reg);
        if (i.x == CONSTANT) i.x = GLOBAL;
        if (!i.run || (writes && (i.x == PARAM || i.x == CONSTANT))) d.unknown();
        return true;
    }
    if (d.name == "prefetch" || d.name == "prefetchu" || d.name == "applypriority" || d.name == "discard") {
        d.take_space(), d.take_one({"L1", "L2"}), d.take_hints(), d.take("tensormap");
        if (d.args() && d.arg(0).kind == Operand::ADDRESS) d.address(0, GENERIC);
        i.run = nothing;
        return true;
    }
    if (d.name == "createpolicy") {
        d.mods.clear();
        i.d = d.out(0, 8), i.run = zero64;
        return true;
    }
    if (d.name == "membar") {
        d.take_one({"cta", "gl", "sys", "gpu"});
        i.run = nothing;
        return true;
    }
    if (d.name == "fence") {
        if (d.take("proxy")) {
            if (d.take("tensormap::generic")) return false; // decode_tensor_map
            bool async = d.take("async") || d.take("async::generic");
            d.take("alias"), d.take_one({"acquire", "release"}), d.take("sync_restrict::shared::cta"),
                d.take("sync_restrict::shared::cluster");
            d.take_space(), d.take_one({"cta", "cluster", "gpu", "sys"});
            i.run = async ? fence_proxy : nothing;
            return true;
        }
        if (d.take("mbarrier_init")) {
            d.take("release"), d.take("cluster");
            i.run = nothing;
            return true;
        }
        d.take_one({"sc", "acq_rel", "acquire", "release"}), d.take_one({"cta", "cluster", "gpu", "sys"});
        d.take("sync_restrict::shared::cta"), d.take("sync_restrict::shared::cluster");
        i.run = nothing;
        return true;
    }
    return false;
}

} // namespace ptx
