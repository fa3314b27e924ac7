// Runs a block of threads. Compiled without AddressSanitizer, for speed: what touches the kernels' memory in their name
// does so in the headers, or looks first.
//
// One block at a time: each thread is a fiber that runs until it meets a barrier or a collective, and which runs next
// is drawn from the seed. Barriers count the block's arrivals, collectives the warp's; where nobody can go on, it is
// said why.
#include "emu_internal.h"
#include <boost/context/detail/fcontext.hpp>
#include <mutex>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <vector>

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

namespace {

constexpr size_t STACK = 256 * 1024, GUARD = 4096, SHARED_FIXED_MOST = 48 * 1024, SHARED_MOST = 227 * 1024;

struct Copy { // by cp_async_16
    void *to;
    const void *from; // NULL: zeros
    long group;
};

enum State { READY, AT_BARRIER, IN_COLLECTIVE, FINISHED };
struct Fiber {
    uint3 thread;
    fcontext_t context;
    const void *stack; // its lowest address
    size_t stack_size;
    void *fake_stack;
    unsigned index; // in the block
    State state;
    EmuSite site; // where it waits
    const char *in;
    long group; // copies not committed yet belong to this one
    std::vector<Copy> copies;
};

struct Collective {
    const char *name;
    EmuResolve resolve;
    EmuSite site;
    unsigned mask, arrived;
    void *room[32];
};

struct Span {
    const char *p;
    size_t bytes;
};

std::recursive_mutex grid_lock; // one grid runs at a time, whichever host thread asks
Fiber host;
// (These are never destroyed: whoever still runs when the program ends may use them.)
std::vector<Fiber *> &fibers = *new std::vector<Fiber *>();
Fiber *self = &host;
const EmuLaunch *running;
// Who can run: a bit a lane for each warp, and a bit a warp. While `loyal`, a warp goes on as far as it can before
// another is drawn, so that warps are far apart; else a warp is drawn for every step.
unsigned ready_lanes[32], ready_warps, last_warp;
bool loyal;
unsigned threads, finished;
uint64_t dice;

struct {
    unsigned arrived;
    int what, any, all, count, result;
    EmuSite site;
} barrier;
struct {
    int arrived, threads;
    unsigned turn;
} named[16];                                                           // group_sync's
std::vector<Collective> &collectives = *new std::vector<Collective>(); // [warps][32], by the lowest lane of the mask

char *dynamic;
size_t dynamic_size;
std::vector<Span> &fixed = *new std::vector<Span>(); // of this block
size_t fixed_size;

// xorshift64* (Vigna 2016)
uint64_t draw() {
    dice ^= dice >> 12;
    dice ^= dice << 25;
    dice ^= dice >> 27;
    return dice * 0x2545F4914F6CDD1Du;
}
unsigned draw_below(size_t n) { return (unsigned)((unsigned __int128)draw() * n >> 64); }

void arrived_from(transfer_t t) {
    Fiber *from = (Fiber *)t.data;
    from->context = t.fctx;
    const void *stack;
    size_t size;
    __sanitizer_finish_switch_fiber(self->fake_stack, &stack, &size);
    if (from == &host) host.stack = stack, host.stack_size = size;
}
void switch_to(Fiber *to) {
    Fiber *from = self;
    self = to;
    threadIdx = to->thread;
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_size);
    arrived_from(jump_fcontext(to->context, from));
}
// Draws one of the bits that are set, not quite evenly.
unsigned draw_bit(unsigned bits) {
    unsigned by = draw_below(32), turned = bits >> by | bits << (-by & 31);
    return ((unsigned)__builtin_ctz(turned) + by) % 32;
}
// Leaves the running fiber, which has said what it waits for.
void run_another() {
    if (!ready_warps) return switch_to(&host);
    unsigned warp = last_warp;
    if (!loyal || !(ready_warps >> warp & 1) || draw_below(64) == 0) warp = draw_bit(ready_warps);
    unsigned lane = draw_bit(ready_lanes[warp]);
    last_warp = warp;
    ready_lanes[warp] &= ~(1u << lane);
    if (!ready_lanes[warp]) ready_warps &= ~(1u << warp);
    Fiber *next = fibers[warp * 32 + lane];
    if (next != self) switch_to(next);
}
void wake(Fiber *f) {
    f->state = READY;
    ready_lanes[f->index / 32] |= 1u << f->index % 32;
    ready_warps |= 1u << f->index / 32;
}

void live(transfer_t t) {
    arrived_from(t);
    for (;;) {
        running->body();
        self->state = FINISHED;
        self->copies.clear();
        finished++;
        run_another();
    }
}

Fiber *new_fiber() {
    Fiber *f = new Fiber();
    char *p = (char *)mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (p == MAP_FAILED) emu_fail("no memory for the stack of a thread");
    mprotect(p, GUARD, PROT_NONE);
    madvise(p + GUARD, STACK, MADV_NOHUGEPAGE);
    f->stack = p + GUARD;
    f->stack_size = STACK;
    f->context = make_fcontext(p + GUARD + STACK, STACK, live);
    return f;
}

void start_block(uint3 block) {
    emu_block_number++;
    fixed.clear();
    fixed_size = 0;
    if (dynamic_size) memset(dynamic, 0xff, dynamic_size);
    barrier.arrived = 0;
    memset(named, 0, sizeof named);
    finished = 0;
    ready_warps = 0;
    memset(ready_lanes, 0, sizeof ready_lanes);
    loyal = draw_below(2);
    dim3 b = running->block;
    blockIdx = block;
    for (unsigned i = 0; i < threads; i++) {
        Fiber *f = fibers[i];
        f->thread = {i % b.x, i / b.x % b.y, i / b.x / b.y};
        f->group = 0;
        wake(f);
    }
}

std::string waiting() {
    std::string text;
    unsigned seen = 0;
    for (unsigned i = 0; i < threads && seen < 4; i++) {
        const Fiber *f = fibers[i];
        if (f->state == FINISHED) continue;
        bool first = true; // of those that wait at this place
        unsigned same = 0;
        for (unsigned k = 0; k < threads; k++) {
            const Fiber *g = fibers[k];
            if (g->state != f->state || g->site.line != f->site.line || strcmp(g->site.file, f->site.file)) continue;
            first &= k >= i;
            same++;
        }
        if (!first) continue;
        seen++;
        char line[512];
        snprintf(line, sizeof line, "; %u wait in %s at %s:%d, thread (%u,%u,%u) first", same, f->in, f->site.file,
                 f->site.line, f->thread.x, f->thread.y, f->thread.z);
        text += line;
    }
    return text;
}

void run_block(uint3 block) {
    start_block(block);
    run_another();
    if (finished < threads)
        emu_fail("a barrier or a collective that some threads never reach: of %u threads %u have ended%s", threads,
                 finished, waiting().c_str());
}

} // namespace

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
uint64_t emu_block_number;

static void say_where() {
    if (!running) return;
    fprintf(stderr, "emu: kernel %s<<<(%u,%u,%u), (%u,%u,%u), %zu>>>, block (%u,%u,%u)",
            emu_kernel_name(running->kernel).c_str(), gridDim.x, gridDim.y, gridDim.z, blockDim.x, blockDim.y,
            blockDim.z, running->shared, blockIdx.x, blockIdx.y, blockIdx.z);
    if (self != &host) fprintf(stderr, ", thread (%u,%u,%u)", threadIdx.x, threadIdx.y, threadIdx.z);
    fprintf(stderr, "\n");
}
void emu_fail(const char *format, ...) {
    fflush(stdout);
    say_where();
    va_list args;
    va_start(args, format);
    fprintf(stderr, "emu: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}
// AddressSanitizer calls this before it reports.
extern "C" void __asan_on_error() { say_where(); }

// ---- shared memory --------------------------------------------------------------------------------------------------
void *emu_shared_dynamic(void) { return dynamic; }
void emu_shared_fill(uint64_t *block, void *p, size_t bytes) {
    *block = emu_block_number;
    fixed.push_back({(const char *)p, bytes});
    fixed_size += bytes;
    if (fixed_size > SHARED_FIXED_MOST)
        emu_fail("%zu bytes of fixed shared arrays; 48 KB is the most (take them from the dynamic one)", fixed_size);
    if (fixed_size + dynamic_size > SHARED_MOST)
        emu_fail("%zu bytes of fixed and %zu of dynamic shared memory; 227 KB is the most", fixed_size, dynamic_size);
    if (fixed_size + dynamic_size > SHARED_FIXED_MOST && !emu_shared_allowed(running->kernel))
        emu_fail("%zu bytes of fixed and %zu of dynamic shared memory; both together, 48 KB is the most that "
                 "cudaFuncSetAttribute need not allow",
                 fixed_size, dynamic_size);
    memset(p, 0xff, bytes);
}
bool emu_is_shared(const void *p, size_t bytes) {
    const char *c = (const char *)p;
    if (c >= dynamic && c + bytes <= dynamic + dynamic_size) return true;
    for (const Span &s : fixed)
        if (c >= s.p && c + bytes <= s.p + s.bytes) return true;
    return false;
}

// ---- barriers and collectives ---------------------------------------------------------------------------------------
static bool same(EmuSite a, EmuSite b) { return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file)); }

int emu_barrier(int what, int predicate, EmuSite site) {
    auto &b = barrier;
    if (b.arrived == 0) b.site = site, b.what = what, b.any = 0, b.all = 1, b.count = 0;
    else if (!same(b.site, site) || b.what != what)
        emu_fail("divergent __syncthreads: this thread is at %s:%d, while %u of the block's %u wait at %s:%d",
                 site.file, site.line, b.arrived, threads, b.site.file, b.site.line);
    b.any |= predicate != 0;
    b.all &= predicate != 0;
    b.count += predicate != 0;
    if (++b.arrived == threads) {
        b.result = what == 1 ? b.any : what == 2 ? b.all : b.count;
        b.arrived = 0;
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i] != self) wake(fibers[i]);
        return b.result;
    }
    self->state = AT_BARRIER;
    self->site = site;
    self->in = "__syncthreads";
    run_another();
    return b.result;
}

int emu_lane(void) { return (int)(self->index % 32); }

void emu_collect(const char *name, unsigned mask, void *room, EmuResolve resolve, EmuSite site) {
    unsigned lane = self->index % 32, warp = self->index / 32, lanes = threads - warp * 32;
    if (lanes < 32) mask &= (1u << lanes) - 1; // the block's last warp may lack lanes
    if (!(mask >> lane & 1))
        emu_fail("%s at %s:%d: lane %u is not in the mask it gives, %#x", name, site.file, site.line, lane, mask);
    Collective &c = collectives[warp * 32 + (unsigned)__builtin_ctz(mask)];
    if (c.arrived == 0) {
        c.name = name, c.resolve = resolve, c.site = site, c.mask = mask;
        if (mask != EMU_EVERY_LANE) memset(c.room, 0, sizeof c.room);
    } else if (c.mask != mask || c.resolve != resolve || !same(c.site, site))
        emu_fail(
            "divergent collectives in warp %u: lane %u is in %s at %s:%d with mask %#x, while lanes %#x wait in %s at "
            "%s:%d with mask %#x",
            warp, lane, name, site.file, site.line, mask, c.arrived, c.name, c.site.file, c.site.line, c.mask);
    c.room[lane] = room;
    c.arrived |= 1u << lane;
    if (c.arrived == mask) {
        if (resolve) resolve(c.room);
        c.arrived = 0;
        for (unsigned l = 0; l < 32; l++)
            if (l != lane && mask >> l & 1) wake(fibers[warp * 32 + l]);
        return;
    }
    self->state = IN_COLLECTIVE;
    self->site = site;
    self->in = name;
    run_another();
}

// Threads that come in turns of `threads`: a thread waits until its turn is whole.
void emu_group_sync(int id, int threads) {
    if (id < 1 || id > 15 || threads % 32 || threads <= 0) emu_fail("group_sync(%d, %d)", id, threads);
    auto &n = named[id];
    if (n.arrived && n.threads != threads) emu_fail("barrier %d: %d threads, and %d", id, n.threads, threads);
    n.threads = threads;
    unsigned turn = n.turn;
    if (++n.arrived == threads) {
        n.arrived = 0, n.turn++;
        return;
    }
    for (int64_t turns = 0; n.turn == turn; turns++) {
        if (turns > 1000000) emu_fail("barrier %d, to which only %d of %d threads come", id, n.arrived, threads);
        emu_yield();
    }
}

void emu_yield(void) {
    wake(self);
    run_another();
}

struct Ballot {
    int predicate;
    unsigned result;
};
static void resolve_ballot(void *room[32]) {
    unsigned votes = 0;
    for (int l = 0; l < 32; l++)
        if (room[l] && ((Ballot *)room[l])->predicate) votes |= 1u << l;
    for (int l = 0; l < 32; l++)
        if (room[l]) ((Ballot *)room[l])->result = votes;
}
unsigned emu_ballot(const char *name, unsigned mask, int predicate, EmuSite site) {
    Ballot b = {predicate, 0};
    emu_collect(name, mask, &b, resolve_ballot, site);
    return b.result;
}

// ---- ptx.cuh --------------------------------------------------------------------------------------------------------
#include "emu_ptx.h"

typedef float Float8 __attribute__((vector_size(32)));
static float low_half(uint32_t x) { return __uint_as_float(x << 16); }
static float high_half(uint32_t x) { return __uint_as_float(x & 0xffff0000u); }

// Sums in f32, k ascending. A product of two bf16 is exact in f32.
void emu_resolve_mma(void *room[32]) {
    float a[16][16];
    Float8 b[16], c[16];
    for (int l = 0; l < 32; l++) {
        const EmuMma *m = (const EmuMma *)room[l];
        if (!m) emu_fail("mma_bf16 needs all 32 lanes");
        int g = l / 4, q = l % 4 * 2;
        for (int i = 0; i < 2; i++) {
            a[g + 8 * i][q] = low_half(m->a[i]), a[g + 8 * i][q + 1] = high_half(m->a[i]);
            a[g + 8 * i][q + 8] = low_half(m->a[i + 2]), a[g + 8 * i][q + 9] = high_half(m->a[i + 2]);
            b[q + 8 * i][g] = low_half(m->b[i]), b[q + 8 * i + 1][g] = high_half(m->b[i]);
            c[g + 8 * i][q] = m->c[2 * i], c[g + 8 * i][q + 1] = m->c[2 * i + 1];
        }
    }
    for (int r = 0; r < 16; r++) {
        Float8 sum = c[r];
        for (int k = 0; k < 16; k++) sum += a[r][k] * b[k];
        c[r] = sum;
    }
    for (int l = 0; l < 32; l++) {
        const EmuMma *m = (const EmuMma *)room[l];
        int g = l / 4, q = l % 4 * 2;
        for (int i = 0; i < 2; i++) m->c[2 * i] = c[g + 8 * i][q], m->c[2 * i + 1] = c[g + 8 * i][q + 1];
    }
}

// ---- hopper.cuh -----------------------------------------------------------------------------------------------------
#include "emu_hopper.h"

static float bf16_at(const char *p) {
    uintptr_t at = (uintptr_t)p;
    at ^= at >> 3 & 0x70;
    uint16_t h;
    memcpy(&h, (const void *)at, 2);
    return __uint_as_float((uint32_t)h << 16);
}
// Element (row, k) of an operand in boxes of shared memory.
static float box_element(const char *box, bool across, int apart, int row, int k) {
    return across ? bf16_at(box + row / 64 * apart + k * 128 + row % 64 * 2) : bf16_at(box + row * 128 + k * 2);
}
// Element (row, k) of a fragment, whose registers each lane has.
static float fragment_element(void *const room[32], int row, int k) {
    const EmuWgmma *m = (const EmuWgmma *)room[row % 8 * 4 + k % 8 / 2];
    uint32_t two = m->kept[row / 8 + k / 8 * 2];
    return __uint_as_float(k % 2 ? two & 0xffff0000u : two << 16);
}
// Sums as mma does; or, with EMU_UNITS=unlike, the 16 products first.
void emu_resolve_wgmma(void *room[32]) {
    const char *units = getenv("EMU_UNITS");
    bool unlike = units && !strcmp(units, "unlike");
    const EmuWgmma *first = (const EmuWgmma *)room[0];
    int N = first->N;
    static float a[16][16], b[256][16];
    for (int l = 0; l < 32; l++) {
        const EmuWgmma *m = (const EmuWgmma *)room[l];
        if (!m) emu_fail("wgmma needs all 32 lanes");
        if (m->a != first->a || m->b != first->b || m->add != first->add) emu_fail("wgmma: lanes that differ");
    }
    if ((first->a && !emu_is_shared(first->a, 16)) || !emu_is_shared(first->b, 16))
        emu_fail("wgmma: not boxes in shared memory");
    for (int k = 0; k < 16; k++) {
        for (int r = 0; r < 16; r++)
            a[r][k] = first->kept ? fragment_element(room, r, k)
                                  : box_element(first->a, first->across_a, 0, first->warp * 16 + r, k);
        for (int n = 0; n < N; n++) b[n][k] = box_element(first->b, first->across_b, first->apart, n, k);
    }
    for (int l = 0; l < 32; l++) {
        const EmuWgmma *m = (const EmuWgmma *)room[l];
        for (int j = 0; j < N / 2; j++) {
            int row = l / 4 + j / 2 % 2 * 8, n = j / 4 * 8 + l % 4 * 2 + j % 2;
            float c = m->add ? m->d[j] : 0, sum = unlike ? 0 : c;
            for (int k = 0; k < 16; k++) sum += a[row][k] * b[n][k];
            m->d[j] = unlike ? sum + c : sum;
        }
    }
}

void emu_resolve_ldmatrix(void *room[32]) {
    const EmuLdmatrix *lane[32];
    for (int l = 0; l < 32; l++)
        if (!(lane[l] = (const EmuLdmatrix *)room[l])) emu_fail("ldmatrix needs all 32 lanes");
    for (int k = 0; k < lane[0]->matrices; k++) {
        uint16_t tile[8][8];
        for (int r = 0; r < 8; r++) memcpy(tile[r], lane[8 * k + r]->row, 16);
        for (int l = 0; l < 32; l++) {
            int i = l / 4, j = l % 4 * 2;
            bool t = lane[l]->transposed;
            uint32_t low = t ? tile[j][i] : tile[i][j], high = t ? tile[j + 1][i] : tile[i][j + 1];
            lane[l]->r[k] = low | high << 16;
        }
    }
}

void emu_cp_async(void *shared, const void *global, bool valid, EmuSite site) {
    if ((uintptr_t)shared % 16 || !emu_is_shared(shared, 16))
        emu_fail("cp_async_16 at %s:%d: %p is not 16 aligned bytes of shared memory", site.file, site.line, shared);
    if ((uintptr_t)global % 16)
        emu_fail("cp_async_16 at %s:%d: the source %p is not a multiple of 16", site.file, site.line, global);
    memset(shared, 0xff, 16);
    self->copies.push_back({shared, valid ? global : nullptr, self->group});
}
void emu_cp_async_commit(void) { self->group++; }
void emu_cp_async_wait(int pending) {
    std::vector<Copy> &copies = self->copies;
    size_t left = 0;
    for (size_t i = 0; i < copies.size(); i++) {
        const Copy &c = copies[i];
        if (c.group >= self->group - pending) copies[left++] = c;
        else if (c.from) memcpy(c.to, c.from, 16);
        else memset(c.to, 0, 16);
    }
    copies.resize(left);
}

// ---- the grid -------------------------------------------------------------------------------------------------------
static uint64_t greatest_divisor(uint64_t a, uint64_t b) { return b ? greatest_divisor(b, a % b) : a; }

void emu_run_grid(const EmuLaunch &launch) {
    std::lock_guard<std::recursive_mutex> hold(grid_lock);
    if (running) emu_fail("a launch from inside a kernel");
    running = &launch;
    threads = launch.block.x * launch.block.y * launch.block.z;
    while (fibers.size() < threads) {
        fibers.push_back(new_fiber());
        fibers.back()->index = (unsigned)fibers.size() - 1;
    }
    gridDim = launch.grid;
    blockDim = launch.block;
    collectives.assign((threads + 31) / 32 * 32, Collective());
    dynamic_size = launch.shared;
    void *room = nullptr;
    if (posix_memalign(&room, 1024, dynamic_size ? dynamic_size : 1) != 0)
        emu_fail("no memory for %zu bytes of shared memory", dynamic_size);
    dynamic = (char *)room;
    if (!dynamic_size) __asan_poison_memory_region(dynamic, 1);
    dice = emu_next_seed();

    // Blocks in a shuffled order: i -> (i step + first) mod n, with a step prime to n.
    dim3 g = launch.grid;
    uint64_t n = (uint64_t)g.x * g.y * g.z, step = draw_below(n) | 1, first = draw_below(n);
    while (greatest_divisor(n, step) != 1) step += 2;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = (uint64_t)(((unsigned __int128)i * step + first) % n);
        run_block({(unsigned)(at % g.x), (unsigned)(at / g.x % g.y), (unsigned)(at / g.x / g.y)});
    }
    free(dynamic);
    dynamic = nullptr;
    dynamic_size = 0;
    fixed.clear();
    running = nullptr;
}
