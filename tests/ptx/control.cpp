// Runs branches, barriers, ends, and what concerns a thread's life: setmaxnreg, griddepcontrol, barrier.cluster,
// nanosleep.
#include "lanes.h"

namespace ptx {
namespace {

void nothing(Warp &, const Instr &, uint32_t) {}
void wait_for_earlier(Warp &w, const Instr &, uint32_t lanes) { w.waited |= lanes; }
void trap(Warp &w, const Instr &i, uint32_t lanes) { fault(w, i, lanes, "trap"); }
// What calls.cpp has left: a function that the file declares only (vprintf, __assertfail).
void call_outside(Warp &w, const Instr &i, uint32_t lanes) {
    fault(w, i, lanes, "the file does not hold that function");
}

// x: 1 inc, 0 dec; imm: registers. More of them are there once others have given theirs back.
void setmaxnreg(Warp &w, const Instr &i, uint32_t lanes) {
    int want = (int)i.imm, more = (want - w.registers) * LANES;
    if (i.x ? more < 0 : more > 0)
        fault(w, i, lanes, "setmaxnreg.%s to %d, where the warp has %d registers", i.x ? "inc" : "dec", want,
              w.registers);
    if (more > w.block->free_registers) {
        w.waits = true;
        w.wants = format("for %d registers, of which %d are free", more, w.block->free_registers);
        return;
    }
    w.block->free_registers -= more;
    w.registers = want;
    w.block->cluster->events++;
}

void cluster_arrive(Warp &w, const Instr &i, uint32_t lanes) {
    Cluster &c = *w.block->cluster;
    if (w.cluster_generation != ~(uint64_t)0) fault(w, i, lanes, "barrier.cluster.arrive twice without a wait");
    w.cluster_generation = c.generation;
    if (++c.arrived < c.warps_live) return;
    c.arrived = 0;
    c.generation++;
    c.events++;
    for (Block &b : c.blocks) meet_at_barrier(b, ALL);
}
void cluster_wait(Warp &w, const Instr &i, uint32_t lanes) {
    Cluster &c = *w.block->cluster;
    if (w.cluster_generation == ~(uint64_t)0) fault(w, i, lanes, "barrier.cluster.wait without an arrive");
    if (w.cluster_generation == c.generation) {
        w.waits = true;
        w.wants = format("at barrier.cluster, where %u of %u warps are", c.arrived, c.warps_live);
        return;
    }
    w.cluster_generation = ~(uint64_t)0;
}

int32_t target(Decoder &d, const std::string &label, int scope) {
    for (int s = scope; s >= 0; s = d.f.label_scopes[(size_t)s]) {
        auto at = d.f.labels.find({s, label});
        if (at != d.f.labels.end()) return at->second;
    }
    d.bad("there is no label %s", label.c_str());
}

void decode_bar(Decoder &d) {
    Instr &i = d.i;
    bool aligned = d.take("aligned") || d.name == "bar"; // bar is barrier.aligned
    d.take("cta");
    int what = d.take_one({"sync", "arrive", "red"});
    if (what < 0) d.unknown();
    i.flow = BARRIER;
    i.x = (uint32_t)what;
    i.y = aligned ? 2 : 0;
    size_t first = 0, vote = 0;
    if (what == 2) {
        int op = d.take_one({"popc", "and", "or"});
        Type t = d.take_type();
        if (op < 0 || t != (op == 0 ? U32 : PRED)) d.unknown();
        i.imm = (uint64_t)op;
        i.d = d.out(0, op == 0 ? 4 : 0);
        first = 1, vote = 1;
    }
    d.need(first + 1 + vote, first + 2 + vote);
    i.a = d.in(first, 4);
    if (d.args() > first + 1 + vote) i.b = d.in(first + 1, 4), i.y |= 1;
    if (what == 1 && !(i.y & 1)) d.bad("the number of threads is missing");
    if (vote) i.c = d.in_pred(d.args() - 1), i.z = d.flip(d.args() - 1);
}

} // namespace

bool decode_control(Decoder &d) {
    Instr &i = d.i;
    if (d.name == "bra") {
        d.take("uni");
        d.need(1);
        if (d.arg(0).kind != Operand::LABEL) d.bad("an operand that is no label");
        i.flow = BRANCH;
        i.imm = (uint64_t)target(d, d.arg(0).name, d.arg(0).scope);
    } else if (d.name == "brx") {
        d.take("idx"), d.take("uni");
        d.need(2);
        auto list = d.f.targets.find(d.arg(1).name);
        if (list == d.f.targets.end()) d.bad("there is no list of labels %s", d.arg(1).name.c_str());
        i.flow = TABLE;
        i.a = d.in(0, 4);
        for (const std::string &label : list->second) i.list.push_back(target(d, label, d.arg(1).scope));
    } else if (d.name == "ret" || d.name == "exit") {
        d.take("uni");
        i.flow = EXIT;
    } else if (d.name == "call") {
        d.take("uni");
        for (const Operand &o : d.s->args)
            if (o.kind == Operand::LABEL) i.name = "call of " + o.name;
        i.run = call_outside;
    } else if (d.name == "trap" || d.name == "brkpt") {
        i.run = trap;
    } else if (d.name == "bar" || d.name == "barrier") {
        if (d.name == "bar" && d.take("warp")) {
            if (!d.take("sync")) d.unknown();
            d.need(1);
            i.flow = TOGETHER, i.together = true, i.e = d.in(0, 4), i.run = nothing;
        } else if (d.take("cluster")) {
            bool wait = d.take_one({"arrive", "wait"}) == 1;
            d.take_one({"release", "relaxed", "acquire"});
            i.flow = wait ? WAITS : TOGETHER;
            d.take("aligned");
            i.run = wait ? cluster_wait : cluster_arrive;
        } else decode_bar(d);
    } else if (d.name == "setmaxnreg") {
        int which = d.take_one({"dec", "inc"});
        if (which < 0 || !d.take("sync") || !d.take("aligned") || d.take_type() != U32) d.unknown();
        d.need(1);
        i.imm = d.immediate(0);
        if (i.imm < 24 || i.imm > 256 || i.imm % 8)
            d.bad("%llu registers; they are 24 to 256, in eights", (unsigned long long)i.imm);
        i.x = (uint32_t)which, i.flow = WAITS, i.run = setmaxnreg;
    } else if (d.name == "griddepcontrol") {
        int which = d.take_one({"wait", "launch_dependents"});
        if (which < 0) d.unknown();
        i.run = which ? nothing : wait_for_earlier;
    } else if (d.name == "nanosleep") {
        d.take_type();
        d.need(1);
        d.in(0, 4);
        i.run = nothing;
    } else if (d.name == "pmevent") {
        d.take("mask");
        i.run = nothing;
    } else return false;
    return true;
}

} // namespace ptx
