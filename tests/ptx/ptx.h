// The machine as others use it: the command line (ptx_main.cpp) and the emulated GPU (tests/emu).
#pragma once
#include "machine.h"

namespace ptx {

// A file, its variables' memory, and those of its kernels that have been asked for.
struct Program {
    Module module;
    std::vector<std::unique_ptr<uint64_t[]>> memory;
    std::vector<Range> ranges; // .global and .const variables
    std::map<std::string, std::unique_ptr<Kernel>> kernels;
};
// Throws Fault where the file is not there or says what this machine does not know.
std::unique_ptr<Program> load_program(const std::string &file);
std::unique_ptr<Program> load_text(const std::string &file, const std::string &text);
const Kernel &find_kernel(Program &p, const std::string &name);

// "FILE:LINE: kernel K, block (x,y,z), warp w, lanes 0x...: what"
std::string describe(const std::string &file, const std::string &kernel, const Fault &f, const std::string &where);

// units.cpp: a model by its name (ascending, groups8, groups16, unlike); false where there is none.
bool find_units(const std::string &name, Units *units);

// A tensor map as the host makes it (cuTensorMapEncodeTiled): 128 bytes. Sizes and strides as there: strides[0] is that
// of dimension 1, in bytes. Type, swizzle and so on as PTX's tensormap.replace numbers them.
struct TensorMap {
    uint32_t magic = 0, rank = 0;
    uint64_t address = 0;
    uint64_t stride[4] = {};
    uint32_t dim[5] = {}, box[5] = {}, step[5] = {};
    uint8_t type = 0, interleave = 0, swizzle = 0, fill = 0, unused[16] = {};
};
static_assert(sizeof(TensorMap) == 128, "");
constexpr uint32_t TENSOR_MAP = 0x70616d74; // magic of a map the host made; one made of nothing on the device has 0

} // namespace ptx
