// The machine for PTX: a file of any content, and whatever kernels it holds.
#include "../ptx/ptx.h"
#include <algorithm>
#include <cstdlib>
#include <cstring>

// A refusal is one line.
static void check_fault(const ptx::Fault &f) {
    std::string text = ptx::describe("input", "", f, "");
    if (f.what.empty() || text.find('\n') != std::string::npos) abort();
}

// A kernel of one small launch: each parameter of 8 bytes is a buffer.
static void run(ptx::Program &p, const ptx::Function &f) {
    alignas(256) static uint8_t room[4096];
    memset(room, 0, sizeof room);
    ptx::Launch l;
    l.grid[0] = 2, l.shared = 8192, l.limit = 20000, l.threads = 1;
    for (int k = 0; k < 3; k++) l.block[k] = f.require_threads[0] ? (uint32_t)f.require_threads[k] : k ? 1 : 128;
    if (f.most_threads && f.most_threads < 128) l.block[0] = (uint32_t)f.most_threads;
    l.params.resize(f.param_bytes);
    uint64_t at = (uint64_t)room;
    for (const ptx::Parameter &one : f.params)
        if (one.size == sizeof at) memcpy(&l.params[one.offset], &at, sizeof at);
    std::vector<ptx::Range> ranges = p.ranges;
    ranges.push_back({at, sizeof room, false, nullptr});
    std::sort(ranges.begin(), ranges.end(), [](const ptx::Range &a, const ptx::Range &b) { return a.start < b.start; });
    std::string where;
    ptx::run_grid(ptx::find_kernel(p, f.name), l, ranges, &where);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    std::unique_ptr<ptx::Program> p;
    try {
        p = ptx::load_text("input", std::string((const char *)data, n));
    } catch (ptx::Fault &f) {
        check_fault(f);
        return 0;
    }
    for (const ptx::Function &f : p->module.functions) {
        if (!f.entry || !f.has_body) continue;
        try {
            run(*p, f);
        } catch (ptx::Fault &e) {
            check_fault(e);
        }
    }
    return 0;
}
