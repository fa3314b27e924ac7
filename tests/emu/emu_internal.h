// What the parts of the emulator share.
#pragma once
#include "cuda_runtime.h"
#include <string>
#include <stdint.h>
#include <stdbool.h>
#include <stddef.h>

struct EmuLaunch {
    const void *kernel;
    dim3 grid, block;
    size_t shared;
    std::function<void()> body;
    std::vector<unsigned char> params;
    bool early;                             // programmatic stream serialization
    std::pair<uint64_t, uint64_t> constant; // address and bytes of memory that it does not write (emu_constant)
};
// emu_block.cpp: runs every block of a grid, one after another.
void emu_run_grid(const EmuLaunch &launch);

// emu_names.cpp: a kernel's name from the program's symbol table, with its template arguments; and without.
std::string emu_kernel_name(const void *kernel);
std::string emu_base_name(const std::string &name);
// And as it stands there ("_ZL11fill_kernelPfl").
std::string emu_symbol(const void *kernel);

// emu_machine.cpp: runs the grid on the PTX machine, where that is asked for; false where it is not.
bool emu_run_on_machine(const EmuLaunch &launch);

// emu_runtime.cpp, emu_device.cpp
// All memory a GPU can reach: address and bytes, by address.
std::vector<std::pair<uint64_t, uint64_t>> emu_reachable(void);
// The dynamic shared memory the kernel was allowed by cudaFuncSetAttribute; 0 where nobody asked.
size_t emu_shared_allowed(const void *kernel);
// The next launch's own seed, from the user's and the number of launches since that was set; not 0.
uint64_t emu_next_seed(void);
// Puts work into a stream (or the graph that the stream records), as every asynchronous call does.
cudaError_t emu_submit(cudaStream_t s, std::function<void()> work);
// The same for work that may have to wait for somebody else: it is asked again until it says true, and what comes after
// it in the stream waits too.
cudaError_t emu_submit_polled(cudaStream_t s, std::function<bool()> work);
