// Runs a grid: loads programs and their variables, runs blocks in a shuffled order on the CPU's threads and their
// warps by lot, and says who waits for what in a deadlock.
#include "lanes.h"
#include "ptx.h"
#include <cstdarg>
#include <fstream>
#include <thread>

namespace ptx {

void fault(const Warp &w, const Instr &i, uint32_t lanes, const char *text, ...) {
    char room[1024];
    va_list args;
    va_start(args, text);
    vsnprintf(room, sizeof room, text, args);
    va_end(args);
    throw Fault{i.name + ": " + room, i.line, lanes, w.index};
}

constexpr size_t MOST_TEXT = 8 << 20;      // bytes of a file
constexpr uint64_t MOST_BLOCKS = 96 << 20; // bytes that the blocks of all threads take together
constexpr uint64_t BYTES_SET = 16;         // of a block that begins: they take as long as an instruction
constexpr uint64_t TURN = 1 << 16;         // instructions of warps before another block goes on

// ---- programs -------------------------------------------------------------------------------------------------------
std::unique_ptr<Program> load_text(const std::string &file, const std::string &text) {
    std::unique_ptr<Program> p(new Program());
    parse_module(p->module, file, text);
    uint64_t total = 0;
    for (Variable &v : p->module.variables) {
        if (v.space != GLOBAL && v.space != CONSTANT) continue;
        if ((total += v.size) > (uint64_t)1 << 31) fail(0, "more than 2 GB of global variables");
        size_t words = (v.size + v.align + 15) / 8;
        p->memory.emplace_back(new uint64_t[words]());
        uint64_t at = ((uint64_t)p->memory.back().get() + v.align - 1) / v.align * v.align;
        v.memory = (uint8_t *)at;
        std::copy(v.initial.begin(), v.initial.end(), v.memory);
        if (v.size) p->ranges.push_back({at, v.size, v.space == CONSTANT, nullptr});
    }
    for (Variable &v : p->module.variables)
        for (auto &a : v.address_of) {
            uint64_t at = (uint64_t)p->module.variables[(size_t)a.second].memory;
            memcpy(v.memory + a.first, &at, 8);
        }
    return p;
}
std::unique_ptr<Program> load_program(const std::string &file) {
    std::ifstream in(file, std::ios::binary);
    if (!in) throw Fault{"cannot be opened"};
    std::string text;
    for (char room[1 << 14]; text.size() <= MOST_TEXT && (in.read(room, sizeof room), in.gcount());)
        text.append(room, (size_t)in.gcount());
    if (in.bad()) throw Fault{"cannot be read"};
    if (text.size() > MOST_TEXT) throw Fault{format("more than %zu MB of PTX", MOST_TEXT >> 20)};
    return load_text(file, text);
}
const Kernel &find_kernel(Program &p, const std::string &name) {
    auto known = p.kernels.find(name);
    if (known != p.kernels.end()) return *known->second;
    std::string names;
    for (const Function &f : p.module.functions) {
        if (!f.entry || !f.has_body) continue;
        if (f.name == name) return *(p.kernels[name] = decode(p.module, f));
        if (names.size() < 400) names += format("%s%s (line %d)", names.empty() ? "" : ", ", f.name.c_str(), f.line);
    }
    fail(p.module.lines, "the end, and there is no kernel %s; there are: %s", name.c_str(),
         names.empty() ? "none" : names.c_str());
}
std::string describe(const std::string &file, const std::string &kernel, const Fault &f, const std::string &where) {
    std::string text = file;
    if (f.line) text += format(":%d", f.line);
    text += ": ";
    if (!kernel.empty() && !where.empty()) text += "kernel " + kernel + ", " + where;
    if (f.warp >= 0) text += format(", warp %d", f.warp);
    if (f.lanes) text += format(", lanes %#x", f.lanes);
    text += (kernel.empty() || where.empty() ? "" : ": ") + f.what;
    for (char &c : text) // one line, whatever the file holds
        if ((unsigned char)c < ' ' || c == 127) c = '?';
    return text;
}

namespace {

// ---- blocks ---------------------------------------------------------------------------------------------------------
void set_specials(Warp &w, const Grid &g) {
    const Launch &l = g.launch;
    const Block &b = *w.block;
    const uint32_t *cluster = l.cluster;
    auto part = [](const std::string &name) { return (size_t)(name.back() - 'x'); };
    for (auto &s : g.kernel->specials) {
        const std::string &name = s.first;
        std::string stem = name.substr(0, name.find('.'));
        size_t k = name.find('.') != std::string::npos ? part(name) : 0;
        if (stem == "%gridid" || stem.find("clock") != std::string::npos || stem.find("timer") != std::string::npos) {
            memset(w.at<uint8_t>(s.second), 0,
                   (stem == "%gridid" || stem == "%clock64" || stem == "%globaltimer" ? 8 : 4) * LANES);
            continue;
        }
        if (stem == "%is_explicit_cluster") {
            w.pred(s.second) = b.cluster->size > 1 ? ALL : 0;
            continue;
        }
        uint32_t *to = w.at<uint32_t>(s.second);
        for (uint32_t lane = 0; lane < LANES; lane++) {
            uint32_t thread = (uint32_t)w.index * LANES + lane, v = 0;
            uint32_t tid[3] = {thread % l.block[0], thread / l.block[0] % l.block[1], thread / l.block[0] / l.block[1]};
            if (stem == "%tid") v = tid[k];
            else if (stem == "%ntid") v = l.block[k];
            else if (stem == "%ctaid") v = b.id[k];
            else if (stem == "%nctaid") v = l.grid[k];
            else if (stem == "%laneid") v = lane;
            else if (stem == "%warpid") v = (uint32_t)w.index;
            else if (stem == "%nwarpid") v = (uint32_t)b.warps.size();
            else if (stem == "%smid") v = b.cluster->id % 132;
            else if (stem == "%nsmid") v = 132;
            else if (stem == "%lanemask_eq") v = 1u << lane;
            else if (stem == "%lanemask_lt") v = (1u << lane) - 1;
            else if (stem == "%lanemask_le") v = (2u << lane) - 1;
            else if (stem == "%lanemask_gt") v = ~((2u << lane) - 1);
            else if (stem == "%lanemask_ge") v = ~((1u << lane) - 1);
            else if (stem == "%cluster_ctaid") v = b.id[k] % cluster[k];
            else if (stem == "%cluster_nctaid") v = cluster[k];
            else if (stem == "%clusterid") v = b.id[k] / cluster[k];
            else if (stem == "%nclusterid") v = l.grid[k] / cluster[k];
            else if (stem == "%cluster_ctarank") v = b.rank;
            else if (stem == "%cluster_nctarank") v = b.cluster->size;
            else if (stem == "%total_smem_size" || stem == "%aggr_smem_size") v = b.shared_end;
            else if (stem == "%dynamic_smem_size") v = (uint32_t)l.shared;
            to[lane] = v;
        }
    }
}

// In the memory of a block that has ended, if there is one: all blocks of a launch take as much.
void open_block(Block &b, Cluster &c, const Grid &g, uint32_t rank, Block *ended) {
    const Launch &l = g.launch;
    const Kernel &k = *g.kernel;
    uint32_t threads = l.block[0] * l.block[1] * l.block[2], warps = (threads + LANES - 1) / LANES;
    if (ended) {
        b.arena = std::move(ended->arena), b.local = std::move(ended->local);
        b.shared = std::move(ended->shared), b.state = std::move(ended->state), b.tag = std::move(ended->tag);
    }
    b.cluster = &c;
    b.rank = rank;
    uint32_t first = (SHARED_BASE + k.shared_static + k.shared_align - 1) / k.shared_align * k.shared_align;
    b.shared_end = first + (uint32_t)l.shared;
    b.shared.assign(b.shared_end + 16, 0);
    b.state.assign(b.shared_end + 16, 0);
    if (k.has_async) b.tag.assign(b.shared_end / 4 + 1, 0);
    for (uint32_t &clock : b.clock) clock = 1;
    b.live_warps = warps;
    size_t arena = (k.arena_bytes + 63) / 64 * 64, local = (size_t)k.local_bytes * LANES;
    if (!b.arena) b.arena.reset(new uint8_t[arena * warps + 64]);
    memset(b.arena.get(), 0xff, arena * warps + 64); // NaN, as nobody has set them
    if (local) {
        if (!b.local) b.local.reset(new uint8_t[2 * local * warps]);
        memset(b.local.get(), 0, 2 * local * warps);
    }
    b.warps.resize(warps);
    uint8_t *room = (uint8_t *)(((uintptr_t)b.arena.get() + 63) / 64 * 64);
    for (uint32_t n = 0; n < warps; n++) {
        Warp &w = b.warps[n];
        w.block = &b;
        w.index = (int)n;
        w.base[0] = room + n * arena;
        w.base[1] = const_cast<uint8_t *>(k.constants.data());
        w.exists = w.live = threads - n * LANES >= LANES ? ALL : (1u << (threads - n * LANES)) - 1;
        if (local) w.local = b.local.get() + 2 * local * n, w.local_written = w.local + local;
        w.registers = l.registers;
        w.cluster_generation = ~(uint64_t)0;
        if (k.has_wgmma) w.in_group.resize(k.reg_bytes.size()), w.written_at.resize(k.reg_bytes.size());
        Path p;
        p.lanes = w.live;
        w.paths.push_back(p);
        set_specials(w, g);
    }
}
std::unique_ptr<Cluster> open_cluster(Grid &g, uint32_t id, std::unique_ptr<Cluster> ended) {
    std::unique_ptr<Cluster> c(new Cluster());
    const Launch &l = g.launch;
    const uint32_t *size = l.cluster;
    c->grid = &g;
    c->id = id;
    c->size = size[0] * size[1] * size[2];
    c->dice = (l.seed * 0x9E3779B97F4A7C15u + id * 0xD1B54A32D192ED03u) | 1;
    c->slow = draw(c->dice) % 2;
    c->blocks.resize(c->size);
    uint32_t nx = l.grid[0] / size[0], ny = l.grid[1] / size[1];
    uint32_t at[3] = {id % nx, id / nx % ny, id / nx / ny};
    for (uint32_t r = 0; r < c->size; r++) {
        Block &b = c->blocks[r];
        b.id[0] = at[0] * size[0] + r % size[0];
        b.id[1] = at[1] * size[1] + r / size[0] % size[1];
        b.id[2] = at[2] * size[2] + r / size[0] / size[1];
        open_block(b, *c, g, r, ended ? &ended->blocks[r] : nullptr);
        c->warps_live += b.live_warps;
    }
    return c;
}

std::string place(const Block &b) { return format("block (%u,%u,%u)", b.id[0], b.id[1], b.id[2]); }
// What a warp does next.
const Instr &next_of(const Warp &w) { return w.block->cluster->grid->kernel->code[w.paths[0].pc]; }

[[noreturn]] void deadlock(Cluster &c, std::string *where) {
    std::string text;
    const Warp *first = nullptr;
    for (Block &b : c.blocks) {
        std::string one = describe_waiting(b);
        if (one.empty()) continue;
        for (Warp &w : b.warps)
            if (!first && !w.paths.empty()) first = &w;
        text += (text.empty() ? "" : "; ") + (c.size > 1 ? format("block %u: ", b.rank) : "") + one;
    }
    *where = place(*first->block);
    throw Fault{"deadlock: " + text, next_of(*first).line, first->paths[0].lanes, first->index};
}

// It has run for longer than it may.
[[noreturn]] void spent_all(Cluster &c, std::string *where) {
    const Warp *last = nullptr;
    for (Block &b : c.blocks)
        for (Warp &w : b.warps)
            if (w.live && !w.paths.empty()) last = &w;
    std::string text = format("more than %llu instructions (limit=)", (unsigned long long)c.grid->launch.limit);
    *where = place(last ? *last->block : c.blocks[0]);
    if (last) fault(*last, next_of(*last), last->paths[0].lanes, "%s", text.c_str());
    throw Fault{text};
}

// Lets a cluster run for about `slice` instructions of warps; false: it has ended.
bool run_cluster(Cluster &c, uint64_t slice, std::string *where) {
    Grid &g = *c.grid;
    size_t n = c.blocks[0].warps.size(), all = n * c.size;
    uint64_t until = c.warp_instructions + slice, counted = c.instructions, events = c.events;
    while (c.warps_live) {
        size_t first = draw(c.dice) % all;
        int steps = draw(c.dice) % 4 ? 4000 : 1 + (int)(draw(c.dice) % 64);
        bool ran = false;
        for (size_t k = 0; k < all && !ran; k++) {
            size_t at = (first + k) % all;
            Block &b = c.blocks[at / n];
            Warp &w = b.warps[at % n];
            if (!w.live) continue;
            try {
                ran = run_warp(w, steps);
            } catch (Fault &f) {
                *where = place(b);
                throw;
            }
        }
        if (events != c.events) events = c.events, c.polls = 0;
        if (!ran || draw(c.dice) % (c.slow ? 512 : 8) == 0) {
            bool arrived = complete_some_bulk(c);
            if (!ran && !arrived) {
                bool any = false;
                if (c.polls++ < 16)
                    for (Block &b : c.blocks) any |= end_patience(b);
                if (!any) deadlock(c, where);
            }
        }
        uint64_t more = c.instructions - counted;
        counted = c.instructions;
        if ((g.spent += more) > g.launch.limit) spent_all(c, where);
        if (g.stop || c.warp_instructions > until) return c.warps_live > 0;
    }
    return false;
}

uint64_t greatest_divisor(uint64_t a, uint64_t b) { return b ? greatest_divisor(b, a % b) : a; }

// `beginning`: what beginning a block's cluster counts as, in instructions.
void work(Grid &g, uint64_t clusters, uint64_t beginning) {
    std::deque<std::unique_ptr<Cluster>> resident;
    std::unique_ptr<Cluster> ended; // the last one that has
    // Few blocks are begun at a time. Where all of them have had a turn and none has ended, they may be waiting for one
    // that has not begun: then twice as many are.
    size_t begun = std::min<size_t>(8, g.resident), turns = 0;
    uint64_t dice = g.launch.seed * 0x9E3779B97F4A7C15u | 1, step = draw(dice) % clusters | 1,
             start = draw(dice) % clusters;
    while (greatest_divisor(clusters, step) != 1) step += 2;
    std::string where;
    try {
        bool more = true;
        while (!g.stop) {
            if (more && resident.size() < begun) {
                uint64_t n = g.next++;
                if (n >= clusters) more = false;
                else {
                    uint32_t id = (uint32_t)(((unsigned __int128)n * step + start) % clusters);
                    resident.push_front(open_cluster(g, id, std::move(ended)));
                    if ((g.spent += beginning) > g.launch.limit) spent_all(*resident.front(), &where);
                }
            }
            if (resident.empty()) break;
            std::unique_ptr<Cluster> c = std::move(resident.front());
            resident.pop_front();
            // To its end, unless it has run for long: then another block gets its turn.
            if (run_cluster(*c, TURN, &where)) {
                resident.push_back(std::move(c));
                if (++turns >= resident.size()) begun = std::min(2 * begun, g.resident), turns = 0;
                continue;
            }
            turns = 0;
            while (complete_some_bulk(*c)) continue;
            std::lock_guard<std::mutex> hold(g.lock);
            g.counts.instructions += c->instructions;
            g.counts.warp_instructions += c->warp_instructions;
            g.counts.barriers += c->barriers;
            g.counts.flops += c->flops;
            for (Block &b : c->blocks) g.counts.warps += b.warps.size();
            ended = std::move(c);
        }
    } catch (Fault &f) {
        std::lock_guard<std::mutex> hold(g.lock);
        if (!g.failed) g.failed = true, g.fault = f, g.where = where;
        g.stop = true;
    } catch (std::exception &) {
        std::lock_guard<std::mutex> hold(g.lock);
        if (!g.failed) g.failed = true, g.fault = Fault{"out of memory"}, g.where = where.empty() ? "a block" : where;
        g.stop = true;
    }
}

void check_launch(const Kernel &k, Launch &l) {
    const Function &f = *k.function;
    uint64_t threads = (uint64_t)l.block[0] * l.block[1] * l.block[2];
    for (int n = 0; n < 3; n++) {
        if (!l.grid[n] || !l.block[n]) throw Fault{"an empty grid or block"};
        if (l.grid[n] > (n ? 65535u : 0x7fffffffu))
            throw Fault{format("a grid of (%u,%u,%u) blocks; 2147483647, 65535 and 65535 are the most", l.grid[0],
                               l.grid[1], l.grid[2])};
        if (l.block[n] > (n == 2 ? 64u : 1024u) || threads > 1024)
            throw Fault{format("a block of (%u,%u,%u) threads; 1024 are the most", l.block[0], l.block[1], l.block[2])};
        if (f.require_threads[0] && (uint32_t)f.require_threads[n] != l.block[n])
            throw Fault{format("a block of (%u,%u,%u) threads, where the kernel requires (%d,%d,%d)", l.block[0],
                               l.block[1], l.block[2], f.require_threads[0], f.require_threads[1],
                               f.require_threads[2])};
        if (!l.cluster[n]) l.cluster[n] = f.cluster[n] ? (uint32_t)f.cluster[n] : 1;
        if (l.grid[n] % l.cluster[n])
            throw Fault{
                format("a grid of (%u,%u,%u) blocks, which is not whole clusters", l.grid[0], l.grid[1], l.grid[2])};
    }
    if ((uint64_t)l.cluster[0] * l.cluster[1] * l.cluster[2] > 16) throw Fault{"a cluster of more than 16 blocks"};
    if (f.most_threads && threads > (uint64_t)f.most_threads)
        throw Fault{format("%llu threads, where .maxntid is %d", (unsigned long long)threads, f.most_threads)};
    if (k.shared_static > 48 << 10)
        throw Fault{format("%u bytes of static shared memory; 48 KB are the most", k.shared_static)};
    if (k.shared_static + l.shared > SHARED_MOST)
        throw Fault{format("%u bytes of static and %llu of dynamic shared memory; %u are the most", k.shared_static,
                           (unsigned long long)l.shared, SHARED_MOST)};
    if (l.params.size() != f.param_bytes)
        throw Fault{format("%zu bytes of arguments, where the kernel has %llu", l.params.size(),
                           (unsigned long long)f.param_bytes)};
    uint64_t warps = (threads + LANES - 1) / LANES, room = 65536 / (warps * LANES) / 8 * 8;
    if (!l.registers) l.registers = f.most_registers ? f.most_registers : (int)std::min<uint64_t>(room, 255);
    if ((uint64_t)l.registers > room || l.registers > 255)
        throw Fault{format("%d registers x %llu threads; a thread has 255 at most, a multiprocessor 65536", l.registers,
                           (unsigned long long)threads)};
}

// What a cluster takes on this side, in bytes: registers over 32 lanes, local and shared memory with their states.
uint64_t cluster_bytes(const Kernel &k, const Launch &l) {
    uint64_t threads = (uint64_t)l.block[0] * l.block[1] * l.block[2], warps = (threads + LANES - 1) / LANES;
    uint64_t shared = SHARED_BASE + k.shared_static + k.shared_align + l.shared;
    uint64_t warp = k.arena_bytes + 2 * (uint64_t)k.local_bytes * LANES + sizeof(Warp) + 4 * k.reg_bytes.size() +
                    (k.has_wgmma ? 16 * k.reg_bytes.size() : 0);
    return (uint64_t)l.cluster[0] * l.cluster[1] * l.cluster[2] * (warps * warp + 3 * shared + sizeof(Block));
}

Counts run_checked(Grid &g, std::string *where) {
    const Kernel &k = *g.kernel;
    check_launch(k, g.launch);
    const Launch &l = g.launch;
    uint64_t clusters = (uint64_t)l.grid[0] * l.grid[1] * l.grid[2] / (l.cluster[0] * l.cluster[1] * l.cluster[2]);
    if (clusters > UINT32_MAX) throw Fault{"too many blocks"};
    uint64_t each = cluster_bytes(k, l), fit = MOST_BLOCKS / each;
    if (!fit)
        throw Fault{format("%s of %llu MB (registers, local and shared memory on this machine); %llu MB are the most",
                           l.cluster[0] * l.cluster[1] * l.cluster[2] > 1 ? "a cluster" : "a block",
                           (unsigned long long)each >> 20, (unsigned long long)MOST_BLOCKS >> 20)};
    int workers = (int)std::min<uint64_t>((uint64_t)l.threads, fit);
    g.resident = (size_t)std::min<uint64_t>(4096, fit / (uint64_t)workers);
    std::vector<std::thread> threads;
    for (int n = 1; n < workers && (uint64_t)n < clusters; n++)
        threads.emplace_back(work, std::ref(g), clusters, each / BYTES_SET);
    work(g, clusters, each / BYTES_SET);
    for (std::thread &t : threads) t.join();
    if (g.failed) {
        *where = g.where;
        throw g.fault;
    }
    return g.counts;
}

} // namespace

Counts run_grid(const Kernel &k, const Launch &launch, const std::vector<Range> &ranges, std::string *where) {
    Grid g;
    g.kernel = &k;
    g.launch = launch;
    g.ranges = ranges;
    try {
        return run_checked(g, where);
    } catch (Fault &f) {
        if (!f.line) f.line = k.function->line; // a launch's, not an instruction's
        throw;
    }
}

} // namespace ptx
