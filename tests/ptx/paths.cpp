// Runs warps: paths of lanes that diverge at branches, meet again at post-dominators, gather for what a warp does
// together, and wait at barriers. Lanes of one warp may wait for each other, as since Volta they may: every path goes
// on by itself.
#include "lanes.h"

namespace ptx {

uint64_t draw(uint64_t &dice) { // xorshift64* (Vigna 2016)
    dice ^= dice >> 12;
    dice ^= dice << 25;
    dice ^= dice >> 27;
    return dice * 0x2545F4914F6CDD1Du;
}

namespace {

int open_meeting(Warp &w, int32_t at, int32_t outer, uint32_t lanes) {
    for (size_t k = 0; k < w.meetings.size(); k++)
        if (!w.meetings[k].used) {
            w.meetings[k] = {at, outer, lanes, 0, true};
            return (int)k;
        }
    w.meetings.push_back({at, outer, lanes, 0, true});
    return (int)w.meetings.size() - 1;
}
void drop_path(Warp &w, size_t index) {
    w.paths[index] = std::move(w.paths.back());
    w.paths.pop_back();
}
// Meetings whose lanes are all there (or have ended) are over.
void settle(Warp &w) {
    for (bool again = true; again;) {
        again = false;
        for (size_t k = 0; k < w.meetings.size(); k++) {
            Meeting m = w.meetings[k];
            if (!m.used || (m.expected && m.arrived != m.expected)) continue;
            w.meetings[k].used = false;
            again = true;
            if (!m.expected) continue;
            if (m.outer >= 0 && w.meetings[(size_t)m.outer].at == m.at) { // the next one is at the same place
                w.meetings[(size_t)m.outer].arrived |= m.expected;
            } else {
                Path p;
                p.pc = (uint32_t)m.at, p.lanes = m.expected, p.meeting = m.outer;
                w.paths.push_back(p);
            }
        }
    }
}

uint32_t absent(const Warp &w) { return (uint32_t)__builtin_popcount(~w.exists); }
void release(Block &b, NamedBarrier &n) {
    n.generation++;
    n.last_yes = n.yes, n.last_no = n.no;
    meet_at_barrier(b, n.warps);
    n.arrived = n.warps = n.yes = n.no = 0;
    b.cluster->barriers++;
    b.cluster->events++;
}
void release_if_all(Block &b, NamedBarrier &n) {
    if (!n.warps) return;
    uint32_t all = 0;
    for (Warp &w : b.warps)
        if (w.live) all += (uint32_t)__builtin_popcount(w.live) + absent(w);
    if (n.arrived >= (n.expected ? n.expected : all)) release(b, n);
}

// A warp's lanes arrive. i.x: 0 sync, 1 arrive, 2 red; i.y bit 0: a count is given (i.b), bit 1: aligned; i.c: red's
// vote.
uint32_t arrive(Warp &w, const Instr &i, uint32_t lanes, uint64_t *generation) {
    Block &b = *w.block;
    int first = __builtin_ctz(lanes);
    uint32_t which = w.at<uint32_t>(i.a)[first], count = i.y & 1 ? w.at<uint32_t>(i.b)[first] : 0;
    if (which > 15) fault(w, i, lanes, "barrier %u; there are 16", which);
    if (i.y & 1 && (count == 0 || count % LANES))
        fault(w, i, lanes, "a barrier for %u threads, which is no multiple of 32", count);
    NamedBarrier &n = b.barriers[which];
    if (!n.warps) n.expected = count, n.line = i.line;
    else if (n.expected != count)
        fault(w, i, lanes, "barrier %u for %u threads, where others wait at it for %u (line %d)", which, count,
              n.expected, n.line);
    if (i.y & 2 && n.warps >> w.index & 1)
        fault(w, i, lanes, "warp %d is at barrier %u twice before it is complete", w.index, which);
    n.warps |= 1u << w.index;
    n.arrived += (uint32_t)__builtin_popcount(lanes) + (lanes == w.live ? absent(w) : 0);
    if (n.expected && i.y & 2) n.arrived += (uint32_t)__builtin_popcount(w.exists & ~lanes);
    if (i.x == 2) {
        uint32_t votes = (w.pred(i.c) ^ (i.z ? ALL : 0)) & lanes;
        n.yes += (uint32_t)__builtin_popcount(votes);
        n.no += (uint32_t)__builtin_popcount(lanes & ~votes);
    }
    *generation = n.generation;
    release_if_all(b, n);
    return which;
}
void barrier_result(Warp &w, const Instr &i, const Path &p) {
    if (i.x != 2) return;
    const NamedBarrier &n = w.block->barriers[p.barrier];
    if (i.imm == 0) { // popc
        uint32_t *d = w.at<uint32_t>(i.d);
        each_lane(p.here, [&](int l) { d[l] = n.last_yes; });
    } else {
        uint32_t &d = w.pred(i.d), r = (i.imm == 1 ? n.last_no == 0 : n.last_yes > 0) ? ALL : 0;
        d = (d & ~p.here) | (r & p.here);
    }
}

bool ready(Warp &w, Path &p, const std::vector<Instr> &code) {
    switch (p.state) {
    case READY: return true;
    case GATHERING: return false;
    case AT_BARRIER:
        if (w.block->barriers[p.barrier].generation == p.generation) return false;
        barrier_result(w, code[p.pc], p);
        p.pc++;
        p.state = READY;
        return true;
    case WAITING:
        if (p.since == w.block->cluster->events && !p.patience_ends) return false;
        p.state = READY;
        return true;
    }
    return false;
}

// Lanes end.
void finish(Warp &w, size_t index, uint32_t lanes, const Instr &i) {
    for (int32_t m = w.paths[index].meeting; m >= 0; m = w.meetings[(size_t)m].outer)
        w.meetings[(size_t)m].expected &= ~lanes;
    w.paths[index].lanes &= ~lanes;
    w.live &= ~lanes;
    if (!w.paths[index].lanes) drop_path(w, index);
    settle(w);
    Block &b = *w.block;
    if (w.live) return;
    if (b.live_warps == 1) check_bulk_at_end(w, i);
    b.live_warps--;
    b.cluster->warps_live--;
    b.cluster->events++;
    b.free_registers += w.registers * LANES;
    for (NamedBarrier &n : b.barriers) release_if_all(b, n);
}

// The lanes of a path have come to something their warp (or their mask) does together. True: all are here, and `lanes`
// says who; the paths that waited have gone on with it (to the next instruction, or to the barrier).
bool gather(Warp &w, size_t index, uint32_t need, uint32_t *lanes) {
    Path &p = w.paths[index];
    p.state = GATHERING, p.need = need, p.here = *lanes;
    uint32_t together = 0;
    for (const Path &q : w.paths)
        if (q.state == GATHERING && q.pc == p.pc && q.need == need) together |= q.here;
    if (together != need) return false;
    *lanes = together;
    return true;
}
template <typename F> void each_gathered(Warp &w, uint32_t pc, uint32_t need, F f) {
    for (Path &q : w.paths)
        if (q.state == GATHERING && q.pc == pc && q.need == need) f(q);
}

// Lanes give different masks: each mask's lanes must be here.
void run_groups(Warp &w, const Instr &i, uint32_t lanes) {
    const uint32_t *mask = w.at<uint32_t>(i.e);
    while (lanes) {
        uint32_t group = mask[__builtin_ctz(lanes)] & w.exists;
        if (group & ~lanes || !(group >> __builtin_ctz(lanes) & 1))
            fault(w, i, lanes, "a mask of %#x that not all its lanes give", group);
        each_lane(group, [&](int l) {
            if ((mask[l] & w.exists) != group) fault(w, i, group, "a mask of %#x that not all its lanes give", group);
        });
        i.run(w, i, group);
        lanes &= ~group;
    }
}

// One path goes on until it waits, ends, meets others, or has had its steps.
void run_path(Warp &w, size_t index, int steps) {
    const std::vector<Instr> &code = w.block->cluster->grid->kernel->code;
    bool watched = w.block->cluster->grid->kernel->has_wgmma;
    Cluster &c = *w.block->cluster;
    uint64_t ran = 0;
    struct Count {
        Cluster &c;
        uint64_t &ran;
        ~Count() { c.instructions += ran; }
    } count{c, ran};
    for (; steps > 0; steps--) {
        Path &p = w.paths[index];
        if (p.meeting >= 0 && (int32_t)p.pc == w.meetings[(size_t)p.meeting].at) {
            w.meetings[(size_t)p.meeting].arrived |= p.lanes;
            drop_path(w, index);
            settle(w);
            return;
        }
        const Instr &i = code[p.pc];
        uint32_t lanes = p.lanes;
        if (i.guard >= 0) lanes &= w.pred(i.guard) ^ (i.guard_negated ? ALL : 0);
        ran += (uint64_t)__builtin_popcount(lanes);
        c.warp_instructions++;
        if (watched) watch_registers(w, i, lanes);
        if (!w.undefined.empty()) watch_undefined(w, i, lanes);
        if (i.flow == PLAIN) {
            if (lanes) i.run(w, i, lanes);
            p.pc++;
            continue;
        }
        if (!lanes) {
            p.pc++;
            continue;
        }
        switch (i.flow) {
        case PLAIN: break;
        case BRANCH: {
            uint32_t others = p.lanes & ~lanes;
            uint32_t next = p.pc + 1;
            p.pc = (uint32_t)i.imm;
            if (!others) break;
            if (i.meets >= 0 && !(p.meeting >= 0 && w.meetings[(size_t)p.meeting].at == i.meets))
                p.meeting = open_meeting(w, i.meets, p.meeting, p.lanes);
            p.lanes = lanes;
            Path q;
            q.pc = next, q.lanes = others, q.meeting = p.meeting;
            w.paths.push_back(q);
            break;
        }
        case TABLE: {
            const uint32_t *which = w.at<uint32_t>(i.a);
            uint32_t left = lanes, first = which[__builtin_ctz(lanes)];
            if (lanes != p.lanes) fault(w, i, lanes, "a guarded brx.idx that lanes disagree on");
            int32_t outer = p.meeting;
            if (i.meets >= 0 && !(outer >= 0 && w.meetings[(size_t)outer].at == i.meets))
                outer = open_meeting(w, i.meets, outer, p.lanes);
            std::vector<Path> more;
            while (left) {
                uint32_t value = which[__builtin_ctz(left)], same = 0;
                each_lane(left, [&](int l) { same |= (uint32_t)(which[l] == value) << l; });
                if (value >= i.list.size())
                    fault(w, i, same, "entry %u of a table of %zu labels", value, i.list.size());
                Path q;
                q.pc = (uint32_t)i.list[value], q.lanes = same, q.meeting = outer;
                if (value == first) p = q;
                else more.push_back(q);
                left &= ~same;
            }
            w.paths.insert(w.paths.end(), more.begin(), more.end());
            break;
        }
        case EXIT: {
            bool all = lanes == p.lanes;
            if (!all) p.pc++;
            finish(w, index, lanes, i);
            if (all) return;
            break;
        }
        case TOGETHER: {
            uint32_t need = w.live;
            if (i.together) {
                const uint32_t *mask = w.at<uint32_t>(i.e);
                need = mask[__builtin_ctz(lanes)] & w.exists;
                bool same = true;
                each_lane(lanes, [&](int l) { same &= (mask[l] & w.exists) == need; });
                if (!same) {
                    run_groups(w, i, lanes);
                    p.pc++;
                    break;
                }
                if (lanes & ~need) fault(w, i, lanes & ~need, "lanes that are not in the mask they give, %#x", need);
                if (need & ~w.live)
                    fault(w, i, lanes, "the mask %#x names lanes that have ended (%#x)", need, need & ~w.live);
            }
            if (need == lanes) {
                i.run(w, i, lanes);
                p.pc++;
                break;
            }
            if (!gather(w, index, need, &lanes)) return;
            i.run(w, i, lanes);
            each_gathered(w, p.pc, need, [&](Path &q) {
                if (&q != &p) q.pc++, q.state = READY;
            });
            p.pc++, p.state = READY;
            break;
        }
        case BARRIER: {
            uint32_t need = i.y & 2 ? w.live : lanes;
            if (need != lanes && !gather(w, index, need, &lanes)) return;
            if (need == p.lanes) p.state = GATHERING, p.need = need, p.here = lanes;
            else if (p.state != GATHERING) p.state = GATHERING, p.need = need, p.here = lanes;
            uint64_t generation;
            uint32_t which = arrive(w, i, lanes, &generation), pc = p.pc;
            each_gathered(w, pc, need, [&](Path &q) {
                if (i.x == 1) q.state = READY, q.pc++;
                else q.state = AT_BARRIER, q.barrier = (uint8_t)which, q.generation = generation;
            });
            if (i.x == 1) break;
            if (!ready(w, p, code)) return;
            break;
        }
        case WAITS:
            w.waits = false;
            w.patience_ends = p.patience_ends;
            p.patience_ends = false;
            i.run(w, i, lanes);
            if (w.waits) {
                p.state = WAITING, p.since = c.events, p.wants = w.wants;
                return;
            }
            p.pc++;
            break;
        }
    }
}

} // namespace

bool run_warp(Warp &w, int steps) {
    const std::vector<Instr> &code = w.block->cluster->grid->kernel->code;
    size_t n = w.paths.size(), first = n > 1 ? draw(w.block->cluster->dice) % n : 0;
    for (size_t k = 0; k < n; k++) {
        size_t index = (first + k) % n;
        if (!ready(w, w.paths[index], code)) continue;
        run_path(w, index, steps);
        return true;
    }
    return false;
}

bool end_patience(Block &b) {
    bool any = false;
    for (Warp &w : b.warps)
        for (Path &p : w.paths)
            if (p.state == WAITING) any = p.patience_ends = true;
    return any;
}

std::string describe_waiting(Block &b) {
    std::map<std::string, uint32_t> groups; // what they wait for -> warps
    const std::vector<Instr> &code = b.cluster->grid->kernel->code;
    for (Warp &w : b.warps)
        for (Path &p : w.paths) {
            const Instr &i = code[p.pc];
            std::string what;
            if (p.state == AT_BARRIER) {
                const NamedBarrier &n = b.barriers[p.barrier];
                what = format("at barrier %u (line %d; %u threads are there", p.barrier, i.line, n.arrived) +
                       (n.expected ? format(" of %u)", n.expected) : ")");
            } else if (p.state == GATHERING)
                what = format("at %s (line %d) for lanes %#x of the warp", i.name.c_str(), i.line, p.need & ~p.here);
            else what = format("%s (line %d)", p.wants.c_str(), i.line);
            groups[what] |= 1u << w.index;
        }
    std::string text;
    for (auto &g : groups) {
        text += text.empty() ? "warps" : "; warps";
        for (int k = 0; k < LANES; k++)
            if (g.second >> k & 1) text += format(" %d", k);
        text += " wait " + g.first;
    }
    return text;
}

} // namespace ptx
