// Kernels as nvcc compiled them: launches go to the machine of tests/ptx, which finds them by name in the .ptx files of
// a folder. Beside FILE.ptx stands FILE.told, what `ptxas -v` said of it: a launch must have room for that many
// registers.
#include "emu_internal.h"
#include "../ptx/ptx.h"
#include <algorithm>
#include <dirent.h>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <set>

namespace {

const char *folder() { return getenv("EMU_PTX"); }
bool on = folder() != nullptr;
int64_t instructions;
std::mutex lock;                            // one grid at a time
std::map<std::string, std::string> file_of; // kernel -> file
std::map<std::string, int> registers_of;    // kernel -> registers of a thread
std::map<std::string, std::unique_ptr<ptx::Program>> programs;

// "Compiling entry function 'NAME' for ...", and some lines behind it "Used N registers".
void read_registers(const std::string &file) {
    std::ifstream in(file);
    if (!in) emu_fail("%s is not there: ptxas -v writes it (make check-ptx)", file.c_str());
    std::string name;
    for (std::string line; std::getline(in, line);) {
        size_t quote = line.find("entry function '"), used = line.find("Used ");
        if (quote != std::string::npos) name = line.substr(quote + 16, line.find('\'', quote + 16) - quote - 16);
        else if (used != std::string::npos) registers_of[name] = atoi(line.c_str() + used + 5);
    }
}
// Every ".entry NAME(" of every file.
void index_files() {
    DIR *d = opendir(folder());
    if (!d) emu_fail("EMU_PTX=%s: there is no such folder", folder());
    while (dirent *e = readdir(d)) {
        std::string file = std::string(folder()) + "/" + e->d_name;
        if (file.size() < 4 || file.compare(file.size() - 4, 4, ".ptx")) continue;
        std::ifstream in(file);
        std::string text((std::istreambuf_iterator<char>(in)), {});
        for (size_t at = text.find(".entry "); at != std::string::npos; at = text.find(".entry ", at + 1))
            file_of[text.substr(at + 7, text.find('(', at) - at - 7)] = file;
        read_registers(file.substr(0, file.size() - 4) + ".told");
    }
    closedir(d);
}

// EMU_LAUNCHES=FILE: a line for each way that a kernel is launched: its name, threads, dynamic shared memory.
void note_launch(const EmuLaunch &launch) {
    static std::set<std::string> noted;
    const char *file = getenv("EMU_LAUNCHES");
    if (!file) return;
    std::string line = emu_symbol(launch.kernel) + " " +
                       std::to_string(launch.block.x * launch.block.y * launch.block.z) + " " +
                       std::to_string(launch.shared) + "\n";
    if (!noted.insert(line).second) return;
    std::ofstream to(file, noted.size() == 1 ? std::ios::trunc : std::ios::app);
    if (!(to << line).flush()) emu_fail("EMU_LAUNCHES=%s cannot be written", file);
}

// Adds an allocation; the launch's constant part of it is a range of its own, which may be read early and not written.
void add_range(std::vector<ptx::Range> *ranges, uint64_t start, uint64_t bytes,
               std::pair<uint64_t, uint64_t> constant) {
    uint64_t end = start + bytes, from = std::max(start, constant.first);
    uint64_t to = std::min(end, constant.first + constant.second);
    if (from >= to) return ranges->push_back({start, bytes, false, nullptr});
    if (start < from) ranges->push_back({start, from - start, false, nullptr});
    ranges->push_back({from, to - from, true, nullptr});
    if (to < end) ranges->push_back({to, end - to, false, nullptr});
}

} // namespace

void emu_machine(bool wanted) {
    if (wanted && !folder()) emu_fail("the PTX machine is asked for, but EMU_PTX does not say where the files are");
    on = wanted;
}
int64_t emu_machine_instructions(void) { return instructions; }

bool emu_run_on_machine(const EmuLaunch &launch) {
    std::lock_guard<std::mutex> hold(lock);
    note_launch(launch);
    if (!on) return false;
    if (file_of.empty()) index_files();
    std::string name = emu_symbol(launch.kernel);
    if (name.compare(0, 3, "_ZL") == 0) name.erase(2, 1); // static here; nvcc's names do not say so
    auto at = file_of.find(name);
    if (at == file_of.end()) emu_fail("there is no kernel %s in %s", name.c_str(), folder());
    std::string where;
    try {
        auto &program = programs[at->second];
        if (!program) program = ptx::load_program(at->second);
        const ptx::Kernel &kernel = ptx::find_kernel(*program, name);
        ptx::Launch l;
        const unsigned grid[] = {launch.grid.x, launch.grid.y, launch.grid.z};
        const unsigned block[] = {launch.block.x, launch.block.y, launch.block.z};
        std::copy(grid, grid + 3, l.grid), std::copy(block, block + 3, l.block);
        l.shared = launch.shared;
        l.registers = registers_of[name];
        if (!l.registers) emu_fail("ptxas -v does not say how many registers %s takes", name.c_str());
        l.seed = emu_next_seed();
        l.limit = 200 * 1000 * 1000 * 1000ull; // several times the largest product that check-ptx-all makes
        l.params = launch.params;
        l.early = launch.early;
        const char *units = getenv("EMU_UNITS");
        if (units && !ptx::find_units(units, &l.units)) emu_fail("EMU_UNITS=%s: there is no such model", units);
        std::vector<ptx::Range> ranges = program->ranges;
        for (auto &r : emu_reachable()) add_range(&ranges, r.first, r.second, launch.constant);
        std::sort(ranges.begin(), ranges.end(),
                  [](const ptx::Range &a, const ptx::Range &b) { return a.start < b.start; });
        instructions += (int64_t)ptx::run_grid(kernel, l, ranges, &where).instructions;
    } catch (ptx::Fault &f) {
        emu_fail("%s", ptx::describe(at->second, name, f, where.empty() ? "its launch" : where).c_str());
    }
    return true;
}
