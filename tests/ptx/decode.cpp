// Turns statements into instructions, and finds where diverged paths meet again.
#include "decode.h"
#include <cstdarg>
#include <cstring>

namespace ptx {

static const struct {
    const char *name;
    Type type;
    uint8_t bytes;
} types[] = {
    {"pred", PRED, 0},     {"b8", B8, 1},     {"b16", B16, 2},       {"b32", B32, 4},       {"b64", B64, 8},
    {"b128", B128, 16},    {"u8", U8, 1},     {"u16", U16, 2},       {"u32", U32, 4},       {"u64", U64, 8},
    {"s8", S8, 1},         {"s16", S16, 2},   {"s32", S32, 4},       {"s64", S64, 8},       {"f16", F16, 2},
    {"f16x2", F16X2, 4},   {"bf16", BF16, 2}, {"bf16x2", BF16X2, 4}, {"f32", F32, 4},       {"f64", F64, 8},
    {"tf32", TF32, 4},     {"e4m3", E4M3, 1}, {"e5m2", E5M2, 1},     {"e4m3x2", E4M3X2, 2}, {"e5m2x2", E5M2X2, 2},
    {"b1024", B1024, 128},
};
Type type_named(const std::string &text) {
    for (auto &t : types)
        if (text == t.name) return t.type;
    return NO_TYPE;
}
int bytes_of(Type t) {
    for (auto &x : types)
        if (x.type == t) return x.bytes;
    return -1;
}

// ---- modifiers ------------------------------------------------------------------------------------------------------
void Decoder::unknown() const { fail(s->line, "%s is not an instruction that this machine knows", s->op.c_str()); }
void Decoder::bad(const char *text, ...) const {
    char room[512];
    va_list args;
    va_start(args, text);
    vsnprintf(room, sizeof room, text, args);
    va_end(args);
    fail(s->line, "%s: %s", s->op.c_str(), room);
}
bool Decoder::take(const char *modifier) {
    for (size_t n = 0; n < mods.size(); n++)
        if (mods[n] == modifier) {
            mods.erase(mods.begin() + (long)n);
            return true;
        }
    return false;
}
int Decoder::take_one(std::initializer_list<const char *> modifiers) {
    int n = 0;
    for (const char *one : modifiers) {
        if (take(one)) return n;
        n++;
    }
    return -1;
}
Type Decoder::take_type() {
    for (size_t n = 0; n < mods.size(); n++)
        if (Type t = type_named(mods[n])) {
            mods.erase(mods.begin() + (long)n);
            return t;
        }
    return NO_TYPE;
}
Space Decoder::take_space(bool *cluster) {
    if (cluster) *cluster = false;
    if (take("global")) return GLOBAL;
    if (take("shared") || take("shared::cta")) return SHARED;
    if (take("shared::cluster")) {
        if (cluster) *cluster = true;
        return SHARED;
    }
    if (take("local")) return LOCAL;
    if (take("param") || take("param::entry") || take("param::func")) return PARAM;
    if (take("const")) return CONSTANT;
    return GENERIC;
}
void Decoder::take_hints() {
    for (size_t n = 0; n < mods.size();)
        if (mods[n].compare(0, 4, "L1::") == 0 || mods[n].compare(0, 4, "L2::") == 0)
            mods.erase(mods.begin() + (long)n);
        else n++;
    take_one({"ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc"});
    take("nc");
}

// ---- operands -------------------------------------------------------------------------------------------------------
const Operand &Decoder::arg(size_t n) const {
    if (n >= s->args.size()) bad("%zu operands are too few", s->args.size());
    return s->args[n];
}
void Decoder::need(size_t least, size_t most) const {
    if (args() < least || args() > (most ? most : least)) bad("%zu operands", args());
}
int Decoder::bytes(const Operand &o) const {
    return o.kind == Operand::REG && o.reg >= 0 ? k.reg_bytes[(size_t)o.reg] : -1;
}
int32_t Decoder::scratch(int n) {
    int32_t at = (int32_t)k.arena_bytes;
    k.arena_bytes += ((size_t)(n ? n : 4) * LANES + 63) / 64 * 64;
    return at;
}
int32_t Decoder::constant(uint64_t value, int n) {
    auto known = constants.find({n, value});
    if (known != constants.end()) return known->second;
    uint8_t one[16] = {};
    memcpy(one, &value, 8);
    size_t each = n ? (size_t)n : 4, at = k.constants.size();
    constants[{n, value}] = ~(int32_t)at;
    k.constants.resize(at + (each * LANES + 63) / 64 * 64);
    for (size_t l = 0; l < LANES; l++) memcpy(&k.constants[at + l * each], one, each);
    return ~(int32_t)at;
}
uint64_t Decoder::variable_address(const Operand &o) {
    if (o.variable == -2) return o.value; // a parameter's offset
    const Variable &v = m.variables[(size_t)o.variable];
    uint64_t at = o.value;
    if (v.space == GLOBAL || v.space == CONSTANT) {
        if (!v.memory) bad("%s has no memory", v.name.c_str());
        return at + (uint64_t)v.memory;
    }
    if (v.space == SHARED) {
        if (v.dynamic)
            return at + (SHARED_BASE + k.shared_static + k.shared_align - 1) / k.shared_align * k.shared_align;
        auto known = k.shared_at.find(o.variable);
        if (known != k.shared_at.end()) return at + known->second;
        uint64_t start = (SHARED_BASE + k.shared_static + v.align - 1) / v.align * v.align;
        k.shared_static = (uint32_t)(start - SHARED_BASE + v.size);
        if (k.shared_static > SHARED_MOST) bad("more static shared memory than %u bytes", SHARED_MOST);
        return at + (k.shared_at[o.variable] = start);
    }
    auto known = k.local_at.find(o.variable);
    if (known != k.local_at.end()) return at + known->second;
    uint64_t start = (k.local_bytes + v.align - 1) / v.align * v.align;
    if (start + v.size > 512 << 10) bad("more local memory than 512 KB");
    k.local_bytes = (uint32_t)(start + v.size);
    return at + (k.local_at[o.variable] = start);
}
int32_t Decoder::in(const Operand &o, int n) {
    if (n < 0 || n > 16) unknown();
    if (o.kind == Operand::REG && o.reg >= 0) {
        if (k.reg_bytes[(size_t)o.reg] != n || o.negated)
            bad("%s has %d bits, where %d are wanted", f.regs[(size_t)o.reg].name.c_str(),
                k.reg_bytes[(size_t)o.reg] * 8, n * 8);
        i.reads.push_back(o.reg);
        return k.reg_offset[(size_t)o.reg];
    }
    if (o.kind == Operand::IMM) {
        uint64_t v = o.value;
        if (o.real == 8 && n == 4) {
            double d;
            memcpy(&d, &v, 8);
            float x = (float)d;
            v = 0;
            memcpy(&v, &x, 4);
        }
        if (n < 8) v &= ((uint64_t)1 << (n * 8)) - 1;
        return constant(v, n);
    }
    if (o.kind == Operand::VARIABLE && (n == 4 || n == 8)) return constant(variable_address(o), n);
    if (o.kind == Operand::LABEL) bad("%s is not known here", o.name.c_str());
    bad("an operand of the wrong kind");
}
int32_t Decoder::in_pred(const Operand &o) {
    if (o.kind == Operand::IMM) return constant(o.value ? ALL : 0, 0);
    if (o.kind != Operand::REG || o.reg < 0 || k.reg_bytes[(size_t)o.reg] != 0) bad("an operand that is no predicate");
    i.reads.push_back(o.reg);
    return k.reg_offset[(size_t)o.reg];
}
int32_t Decoder::out(const Operand &o, int n) {
    if (n < 0 || n > 16) unknown();
    if (o.kind == Operand::SINK || (o.kind == Operand::REG && o.reg < 0)) return scratch(n);
    if (o.kind != Operand::REG) bad("a result that is no register");
    if (k.reg_bytes[(size_t)o.reg] != n)
        bad("%s has %d bits, where %d are wanted", f.regs[(size_t)o.reg].name.c_str(), k.reg_bytes[(size_t)o.reg] * 8,
            n * 8);
    if (f.regs[(size_t)o.reg].special) bad("%s cannot be written", f.regs[(size_t)o.reg].name.c_str());
    i.writes.push_back(o.reg);
    return k.reg_offset[(size_t)o.reg];
}
uint64_t Decoder::immediate(size_t n) const {
    if (arg(n).kind != Operand::IMM) bad("operand %zu is no constant", n + 1);
    return arg(n).value;
}
void Decoder::address(const Operand &o, Space space, int32_t *base, uint64_t *offset, bool *narrow) {
    if (o.kind != Operand::ADDRESS) bad("an operand that is no address");
    *narrow = false;
    *offset = o.value;
    if (o.reg >= 0) {
        int n = k.reg_bytes[(size_t)o.reg];
        if (n != 4 && n != 8) bad("an address of %d bits", n * 8);
        *narrow = n == 4;
        i.reads.push_back(o.reg);
        *base = k.reg_offset[(size_t)o.reg];
    } else if (o.variable != -1) {
        uint64_t at = variable_address(o);
        if (space == GENERIC && o.variable >= 0) {
            Space own = m.variables[(size_t)o.variable].space;
            at += own == SHARED ? SHARED_WINDOW : own == LOCAL ? LOCAL_WINDOW : 0;
        }
        *base = constant(at, 8);
        *offset = 0;
    } else {
        *base = constant(0, 8);
    }
}
void Decoder::address(size_t n, Space space) {
    bool narrow;
    address(arg(n), space, &i.a, &i.imm, &narrow);
    i.z |= narrow;
}
void Decoder::vector(const Operand &o, int n, std::vector<int32_t> *to, bool written) {
    if (o.kind == Operand::VECTOR)
        for (const Operand &one : o.list) to->push_back(written ? out(one, n) : in(one, n));
    else to->push_back(written ? out(o, n) : in(o, n));
}

// ---- where paths meet -----------------------------------------------------------------------------------------------
// The immediate post-dominators of the branches, over instructions grouped in blocks (Cooper, Harvey and Kennedy 2001,
// on the reversed graph).
static void find_meetings(std::vector<Instr> &code) {
    size_t n = code.size();
    std::vector<uint8_t> starts(n + 1);
    starts[0] = 1;
    for (size_t p = 0; p < n; p++) {
        if (code[p].flow != BRANCH && code[p].flow != TABLE && code[p].flow != EXIT) continue;
        starts[p + 1] = 1;
        if (code[p].flow == BRANCH) starts[code[p].imm] = 1;
        if (code[p].flow == TABLE)
            for (int32_t t : code[p].list) starts[(size_t)t] = 1;
    }
    std::vector<int> block(n), first;
    for (size_t p = 0; p < n; p++) {
        if (starts[p]) first.push_back((int)p);
        block[p] = (int)first.size() - 1;
    }
    int blocks = (int)first.size(), end = blocks;
    std::vector<std::vector<int>> to((size_t)blocks), from((size_t)blocks + 1);
    auto edge = [&](int a, int b) {
        to[(size_t)a].push_back(b);
        from[(size_t)b].push_back(a);
    };
    for (int b = 0; b < blocks; b++) {
        size_t last = b + 1 < blocks ? (size_t)first[(size_t)b + 1] - 1 : n - 1;
        const Instr &i = code[last];
        bool always = i.guard < 0;
        if (i.flow == BRANCH) edge(b, block[i.imm]);
        if (i.flow == TABLE)
            for (int32_t t : i.list) edge(b, block[(size_t)t]);
        if (i.flow == EXIT) edge(b, end);
        if ((i.flow != BRANCH && i.flow != TABLE && i.flow != EXIT) || !always) {
            if (last + 1 < n) edge(b, block[last + 1]);
            else edge(b, end);
        }
    }
    // Postorder of the reversed graph, from the end.
    std::vector<int> order, number((size_t)blocks + 1, -1), stack = {end};
    std::vector<size_t> next((size_t)blocks + 1);
    std::vector<uint8_t> seen((size_t)blocks + 1);
    seen[(size_t)end] = 1;
    while (!stack.empty()) {
        int b = stack.back();
        if (next[(size_t)b] < from[(size_t)b].size()) {
            int p = from[(size_t)b][next[(size_t)b]++];
            if (!seen[(size_t)p]) seen[(size_t)p] = 1, stack.push_back(p);
        } else {
            number[(size_t)b] = (int)order.size();
            order.push_back(b);
            stack.pop_back();
        }
    }
    std::vector<int> dominator((size_t)blocks + 1, -1);
    dominator[(size_t)end] = end;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t k = order.size(); k--;) {
            int b = order[k], now = -1;
            if (b == end) continue;
            for (int s : to[(size_t)b]) {
                if (number[(size_t)s] < 0 || dominator[(size_t)s] < 0) continue;
                int x = s, y = now;
                while (y >= 0 && x != y)
                    if (number[(size_t)x] < number[(size_t)y]) x = dominator[(size_t)x];
                    else y = dominator[(size_t)y];
                now = x;
            }
            if (now != dominator[(size_t)b]) dominator[(size_t)b] = now, changed = true;
        }
    }
    for (size_t p = 0; p < n; p++)
        if (code[p].flow == BRANCH || code[p].flow == TABLE) {
            int b = dominator[(size_t)block[p]];
            code[p].meets = b < 0 || b == end ? -1 : first[(size_t)b];
        }
}

// ---- a function -----------------------------------------------------------------------------------------------------
static const char *const specials[] = {"%tid.x",
                                       "%tid.y",
                                       "%tid.z",
                                       "%ntid.x",
                                       "%ntid.y",
                                       "%ntid.z",
                                       "%ctaid.x",
                                       "%ctaid.y",
                                       "%ctaid.z",
                                       "%nctaid.x",
                                       "%nctaid.y",
                                       "%nctaid.z",
                                       "%laneid",
                                       "%warpid",
                                       "%nwarpid",
                                       "%smid",
                                       "%nsmid",
                                       "%gridid",
                                       "%lanemask_eq",
                                       "%lanemask_lt",
                                       "%lanemask_le",
                                       "%lanemask_gt",
                                       "%lanemask_ge",
                                       "%cluster_ctaid.x",
                                       "%cluster_ctaid.y",
                                       "%cluster_ctaid.z",
                                       "%cluster_nctaid.x",
                                       "%cluster_nctaid.y",
                                       "%cluster_nctaid.z",
                                       "%clusterid.x",
                                       "%clusterid.y",
                                       "%clusterid.z",
                                       "%nclusterid.x",
                                       "%nclusterid.y",
                                       "%nclusterid.z",
                                       "%cluster_ctarank",
                                       "%cluster_nctarank",
                                       "%is_explicit_cluster",
                                       "%total_smem_size",
                                       "%dynamic_smem_size",
                                       "%aggr_smem_size",
                                       "%clock",
                                       "%clock64",
                                       "%clock_hi",
                                       "%globaltimer",
                                       "%globaltimer_lo",
                                       "%globaltimer_hi"};

static const Decode decoders[] = {decode_move,   decode_memory,     decode_integer, decode_logic,   decode_float,
                                  decode_half,   decode_compare,    decode_convert, decode_control, decode_collective,
                                  decode_matrix, decode_mma,        decode_wgmma,   decode_async,   decode_mbarrier,
                                  decode_bulk,   decode_tensor_map, decode_atomic};

static void lay_out_registers(Decoder &d) {
    for (const Register &r : d.f.regs) {
        d.k.reg_bytes.push_back(r.bytes);
        d.k.reg_offset.push_back(d.scratch(r.bytes));
        if (!r.special) continue;
        bool known = false;
        for (const char *name : specials) known |= r.name == name;
        if (!known) fail(r.special, "%s is no register that this machine knows", r.name.c_str());
        d.k.specials.push_back({r.name, d.k.reg_offset.back()});
    }
}

// Static shared memory first, then the dynamic one behind it.
static void lay_out_variables(Decoder &d) {
    std::vector<const Operand *> all;
    for (const Statement &s : d.f.body) {
        d.s = &s;
        for (const Operand &o : s.args) all.push_back(&o);
        while (!all.empty()) {
            const Operand *o = all.back();
            all.pop_back();
            for (const Operand &one : o->list) all.push_back(&one);
            if (o->variable < 0) continue;
            const Variable &v = d.m.variables[(size_t)o->variable];
            if (v.space == SHARED && v.dynamic) d.k.shared_align = std::max(d.k.shared_align, (uint32_t)v.align);
            else if (v.space == SHARED) d.variable_address(*o);
        }
    }
}

// Instructions that older targets lack, by how they begin or what is in them; ptxas refuses them there as well.
static void check_target(const Module &m, const Statement &s) {
    static const struct {
        const char *begins, *holds;
        int target;
        bool alone;
    } since[] = {
        {"wgmma.", "", 90, true},
        {"setmaxnreg.", "", 90, true},
        {"cp.async.bulk", "", 90, false},
        {"cp.reduce.async", "", 90, false},
        {"", "tensormap", 90, false},
        {"", "shared::cluster", 90, false},
        {"stmatrix.", "", 90, false},
        {"griddepcontrol.", "", 90, false},
        {"mapa.", "", 90, false},
        {"getctarank.", "", 90, false},
        {"barrier.cluster.", "", 90, false},
        {"elect.", "", 90, false},
        {"fence.proxy.async", "", 90, false},
        {"fence.mbarrier_init", "", 90, false},
        {"mbarrier.try_wait", "", 90, false},
        {"mbarrier.", "_tx", 90, false},
        {"mbarrier.", "", 80, false},
        {"cp.async", "", 80, false},
        {"redux.", "", 80, false},
        {"", "bf16", 80, false},
        {"", "tf32", 80, false},
        {"ldmatrix.", "", 75, false},
    };
    for (auto &n : since)
        if (s.op.compare(0, strlen(n.begins), n.begins) == 0 && s.op.find(n.holds) != std::string::npos &&
            (m.target < n.target || (n.alone && !m.target_alone)))
            fail(s.line, "%s needs .target sm_%d%s; the file's is sm_%d", s.op.c_str(), n.target, n.alone ? "a" : "",
                 m.target);
}

static void decode_statement(Decoder &d, const Statement &s) {
    check_target(d.m, s);
    d.s = &s;
    d.i = Instr();
    d.mods.clear();
    size_t dot = s.op.find('.');
    d.name = s.op.substr(0, dot);
    while (dot != std::string::npos) {
        size_t next = s.op.find('.', dot + 1);
        d.mods.push_back(s.op.substr(dot + 1, next == std::string::npos ? next : next - dot - 1));
        dot = next;
    }
    bool known = false;
    std::vector<std::string> all = d.mods;
    for (Decode decoder : decoders) {
        d.mods = all, d.i = Instr();
        if ((known = decoder(d))) break;
    }
    if (!known || !d.mods.empty()) d.unknown();
    if (s.guard >= 0) {
        d.i.guard = d.k.reg_offset[(size_t)s.guard];
        d.i.guard_negated = s.guard_negated;
        d.i.reads.push_back(s.guard);
    }
    d.i.line = s.line;
    if (d.i.name.empty()) d.i.name = s.op;
}

std::unique_ptr<Kernel> decode(const Module &m, const Function &entry) {
    std::unique_ptr<Kernel> k(new Kernel());
    k->own = without_calls(m, entry);
    const Function &f = k->own ? *k->own : entry;
    k->function = &f;
    k->module = &m;
    Decoder d{m, f, *k, nullptr, {}, {}, {}, {}};
    lay_out_registers(d);
    lay_out_variables(d);
    for (const Statement &s : f.body) {
        decode_statement(d, s);
        k->code.push_back(std::move(d.i));
        if (k->arena_bytes > 64 << 20 || k->constants.size() > 64 << 20) fail(s.line, "too many registers");
    }
    Instr end;
    end.flow = EXIT;
    end.name = "the end of the function";
    end.line = f.body.empty() ? f.line : f.body.back().line;
    k->code.push_back(end);
    find_meetings(k->code);
    return k;
}

} // namespace ptx
