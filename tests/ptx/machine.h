// The machine: instructions in the form they run in, warps, blocks, memory.
//
// A register is an array over the 32 lanes of its warp; a predicate is a mask. Constants lie in the same form in an
// arena of their own, so that an instruction need not know which operand is which: an offset below 0 is a constant's.
#pragma once
#include "program.h"
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>

namespace ptx {

constexpr int LANES = 32;
constexpr uint32_t ALL = 0xffffffffu;
constexpr uint64_t SHARED_WINDOW = (uint64_t)1 << 60, LOCAL_WINDOW = (uint64_t)2 << 60,
                   PARAM_WINDOW = (uint64_t)3 << 60;
constexpr uint32_t SHARED_BASE =
    1024; // what the system keeps of a block's shared memory on sm_90; address 0 is invalid
constexpr uint32_t SHARED_MOST = 227 << 10;
constexpr int RANK_SHIFT = 24; // a block's rank in its cluster, + 1, in shared::cluster addresses

constexpr size_t MOST_UNDER_WAY = 1 << 16; // copies, wgmma and so on that nobody waits for

struct Warp;
struct Instr;
struct Block;
struct Cluster;
typedef void (*Run)(Warp &w, const Instr &i, uint32_t lanes);

// How an instruction moves its path on.
enum Flow : uint8_t {
    PLAIN,    // to the next one
    BRANCH,   // bra
    TABLE,    // brx.idx
    EXIT,     // ret, exit
    TOGETHER, // plain, once all lanes are here: of the warp, or those its mask names (Instr::together)
    BARRIER,  // bar, barrier: run by paths.cpp
    WAITS,    // may say (Warp::waits) that it cannot go on yet; it is asked again
};

struct Instr {
    Run run = nullptr;
    int32_t guard = -1; // offset of a predicate, or -1
    bool guard_negated = false;
    Flow flow = PLAIN;
    bool tracked = false;                      // a wgmma: it looks after its registers itself
    bool copies = false;                       // a mov from registers to registers
    bool selects = false;                      // selp: a or b, as predicate c (x: negated) says
    bool loads = false;                        // it may read what nobody has written, as long as nobody uses that
    uint8_t count = 0;                         // of a vector
    int32_t d = 0, a = 0, b = 0, c = 0, e = 0; // offsets of operands
    uint32_t x = 0, y = 0, z = 0;              // modifiers
    uint64_t imm = 0;                          // of an address; a branch's target
    bool together = false;                     // TOGETHER: the mask in `e`, else the whole warp
    int32_t meets = -1;                        // BRANCH: where its paths meet again (-1: at the end)
    std::vector<int32_t> list, list2;          // vectors' offsets
    std::vector<int32_t> reads, writes;        // registers (numbers), for what looks after them
    int line = 0;
    std::string name;
};

struct Kernel {
    const Function *function = nullptr;
    std::unique_ptr<Function> own; // that function, where it calls others: with their bodies in it
    const Module *module = nullptr;
    std::vector<Instr> code;
    std::vector<int32_t> reg_offset; // of each register in a warp's arena
    std::vector<uint8_t> reg_bytes;
    std::vector<uint8_t> constants;                        // the arena of constants
    std::vector<std::pair<std::string, int32_t>> specials; // special registers and where they lie
    size_t arena_bytes = 0;
    uint32_t shared_static = 0, shared_align = 16; // bytes; the dynamic part lies behind
    std::map<int, uint64_t> shared_at, local_at;   // variables' offsets
    uint32_t local_bytes = 0;
    bool has_async = false; // it uses the asynchronous proxy: shared memory is watched
    bool has_wgmma = false;
};

// ---- global memory --------------------------------------------------------------------------------------------------
struct Range {
    uint64_t start, bytes;
    bool read_only;
    uint8_t *written = nullptr; // [bytes] 1 where somebody wrote; NULL: all of it counts as written
};

// ---- a block's shared memory ----------------------------------------------------------------------------------------
// A byte's state.
enum : uint8_t { WRITTEN = 1, COPYING = 2, A_BARRIER = 4 };
constexpr uint32_t TAG_COPY = 0x80000000u; // a word's tag: of which copy it is; else its writer << 26 | clock
// An mbarrier's state is kept here, not in the memory it stands in.
struct Mbarrier {
    uint64_t phase = 0; // phases that are complete
    uint64_t lot = 0;   // drawn: which phases test_wait and try_wait give up on
    uint32_t expected = 0;
    int64_t pending = 0, bytes = 0;
    int line = 0;
    // What whoever has waited for a phase may read: copies, and each warp's writes; and that of the phase under way.
    std::vector<uint32_t> copies, next_copies;
    uint32_t known[LANES] = {}, next_known[LANES] = {};
    struct Waited {
        int64_t phase = -2, asked = -2; // asked: the last one that this warp has been told of that it was not complete
        uint32_t lanes = 0;
    } waited[LANES];
};
// A bulk copy on its way: into shared memory, until its mbarrier has been told; or out of it, until it has been read
// (its group's wait_group.read) and written.
struct Bulk {
    const Instr *instr = nullptr;
    Warp *warp = nullptr;
    int lane = 0;
    bool load = false, sourced = false;
    Block *block = nullptr; // whose shared memory it writes or reads
    uint32_t copy = 0;      // load: its number there
    uint32_t mbarrier = 0;
    uint64_t group = 0; // store: of its thread
    // Contiguous pieces: shared address, global address (0: what lies outside a tensor), bytes.
    struct Piece {
        uint32_t shared;
        uint64_t global;
        uint32_t bytes;
    };
    std::vector<Piece> pieces;
    uint8_t fill = 0;   // a byte of what lies outside
    uint8_t reduce = 0; // store: 1 + an operation on elements of `type`
    uint8_t type = 0;
    uint64_t hash = 0; // of the source when it began
    std::vector<uint8_t> data;
};

struct NamedBarrier {
    uint32_t expected = 0, arrived = 0; // threads; expected 0: all of the block
    uint32_t warps = 0;                 // that arrived
    int line = 0;
    uint32_t yes = 0, no = 0; // votes of bar.red
    uint64_t generation = 0;
    uint32_t last_yes = 0, last_no = 0; // of the generation before
};

// ---- warps ----------------------------------------------------------------------------------------------------------
enum State : uint8_t { READY, AT_BARRIER, GATHERING, WAITING };
// Lanes that go the same way.
struct Path {
    uint32_t pc = 0, lanes = 0;
    int32_t meeting = -1; // index in Warp::meetings
    State state = READY;
    uint32_t need = 0;   // GATHERING: the lanes that must come
    uint32_t here = 0;   // and those of this path that are there
    uint8_t barrier = 0; // AT_BARRIER: which, and its generation
    uint64_t generation = 0;
    uint64_t since = 0;         // WAITING: the number of events it has seen
    std::string wants;          // WAITING: for what
    bool patience_ends = false; // an instruction that may give up shall do so
};
// Where the paths of a branch come together.
struct Meeting {
    int32_t at, outer; // pc; the next meeting
    uint32_t expected, arrived;
    bool used;
};
struct AsyncCopy { // cp.async
    uint32_t lane, to;
    const uint8_t *from;
    uint8_t bytes, valid;
    uint64_t group;
};
struct WgmmaRead { // what a wgmma in flight reads of shared memory
    uint64_t group, hash;
    uint64_t a, b;
    int line;
    const Instr *instr;
};

struct Warp {
    uint8_t *base[2] = {}; // registers, constants: Warp::at()
    Block *block = nullptr;
    int index = 0;
    uint32_t exists = 0, live = 0;
    std::vector<Path> paths;
    std::vector<Meeting> meetings;
    size_t current = 0; // path
    size_t last_range = 0;
    uint8_t *local = nullptr, *local_written = nullptr;
    uint32_t carry = 0;  // of addc
    uint32_t waited = 0; // lanes that have been at griddepcontrol.wait
    // Lanes whose load has read what nobody has written; by register, those that hold such values (empty: none do).
    uint32_t unwritten = 0;
    std::vector<uint32_t> undefined;

    std::vector<AsyncCopy> copies;
    uint64_t async_group[LANES] = {};
    uint64_t bulk_group[LANES] = {};
    bool waits = false; // set by a WAITS instruction, with what it waits for
    std::string wants;
    bool patience_ends = false;
    int registers = 0;               // a thread: setmaxnreg
    uint64_t cluster_generation = 0; // of the barrier.cluster it has arrived at; ~0: of none

    // wgmma
    uint64_t wgmma_group = 1, wgmma_done = 0, fence = 0, steps = 0;
    std::vector<uint64_t> in_group, written_at; // by register
    std::vector<WgmmaRead> reading;

    template <typename T> T *at(int32_t offset) { return (T *)(base[offset < 0] + (offset < 0 ? ~offset : offset)); }
    uint32_t &pred(int32_t offset) { return *at<uint32_t>(offset); }
};

struct Block {
    Cluster *cluster = nullptr;
    uint32_t rank = 0, id[3] = {};
    std::vector<Warp> warps;
    std::unique_ptr<uint8_t[]> arena, local;
    std::vector<uint8_t> shared, state; // [end of shared memory], from address 0
    uint32_t shared_end = 0;
    NamedBarrier barriers[16];
    uint32_t live_warps = 0;
    int free_registers = 0; // of the threads' sum: setmaxnreg

    // The asynchronous proxy (only where Kernel::has_async): a tag a word, what each warp knows of each other's writes,
    // and which of those are behind a proxy fence.
    std::vector<uint32_t> tag;
    uint32_t clock[LANES] = {}, know[LANES][LANES] = {}, fenced[LANES] = {};
    std::vector<uint32_t> copy_seen; // [copy] warps that may read it
    std::vector<uint32_t> copies_live;
    std::map<uint32_t, Mbarrier> mbarriers;
    std::map<uint64_t, uint64_t> maps_acquired; // versions of tensor maps that a proxy fence has made known
};

struct Grid;
struct Cluster {
    Grid *grid = nullptr;
    uint32_t id = 0, size = 1;
    std::vector<Block> blocks;
    std::deque<Bulk> bulk;
    uint64_t events = 0; // whatever may let somebody go on
    uint64_t dice = 1;
    bool slow = false;                    // copies arrive late
    uint32_t arrived = 0, warps_live = 0; // barrier.cluster: warps
    uint64_t generation = 0;
    uint64_t instructions = 0, warp_instructions = 0, barriers = 0, flops = 0; // flops: of tensor cores
    int polls = 0;
};

uint64_t draw(uint64_t &dice);

// ---- a launch -------------------------------------------------------------------------------------------------------
enum Units : uint8_t { UNITS_ASCENDING, UNITS_GROUPS_8, UNITS_GROUPS_16, UNITS_UNLIKE };
struct Launch {
    uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1}, cluster[3] = {0, 0, 0};
    uint64_t shared = 0, seed = 1, limit = (uint64_t)20 * 1000 * 1000 * 1000;
    int threads = 2, registers = 0; // of the CPU; of a thread (0: not checked)
    Units units = UNITS_ASCENDING;
    bool early = false; // it starts while the kernel before it may still run (programmatic dependent launch)
    std::vector<uint8_t> params;
};
struct Counts {
    uint64_t instructions = 0, warp_instructions = 0, warps = 0, barriers = 0, flops = 0;
};

struct Grid {
    const Kernel *kernel = nullptr;
    Launch launch;
    std::vector<Range> ranges; // sorted
    size_t resident = 1;       // blocks a thread holds at once: one that waits long for others gives way
    std::atomic<uint64_t> next{0}, spent{0};
    std::atomic<bool> stop{false};
    std::mutex lock;                           // of what follows
    std::map<uint64_t, uint64_t> map_versions; // tensor maps that the device made
    Counts counts;
    bool failed = false;
    Fault fault;
    std::string where;
};

// What is wrong with a running instruction.
[[noreturn]] void fault(const Warp &w, const Instr &i, uint32_t lanes, const char *text, ...)
    __attribute__((format(printf, 4, 5)));

// paths.cpp: lets one warp run for some instructions; false where none of its paths can go on.
bool run_warp(Warp &w, int steps);
// Lets every path that waits and may give up do so; false where there is none.
bool end_patience(Block &b);
std::string describe_waiting(Block &b);

// async.cpp: warps that meet at a barrier know of each other's writes and copies from then on.
void meet_at_barrier(Block &b, uint32_t warps);
// atomic.cpp: an element in memory is combined with another (add, min, max ... as atom counts them).
void reduce_element(uint8_t op, uint8_t type, uint8_t *to, const uint8_t *with);
// memory.cpp: values that nobody has written must not be used; after a load, which of its registers hold such.
void watch_undefined(Warp &w, const Instr &i, uint32_t lanes);
void mark_undefined(Warp &w, int32_t reg, uint32_t lanes);
// wgmma.cpp: registers that a wgmma in flight owns must not be touched.
void watch_registers(Warp &w, const Instr &i, uint32_t lanes);
// bulk.cpp: one of the copies on their way arrives; false where there is none. A block must not end before its copies
// have.
bool complete_some_bulk(Cluster &c);
void check_bulk_at_end(Warp &w, const Instr &i);

// decode.cpp: a kernel's function in the form it runs in. Throws Fault.
std::unique_ptr<Kernel> decode(const Module &m, const Function &f);
// grid.cpp: runs a grid; ranges is the global memory there is, sorted by address. Throws Fault; *where is block and
// warp.
Counts run_grid(const Kernel &k, const Launch &l, const std::vector<Range> &ranges, std::string *where);

} // namespace ptx
