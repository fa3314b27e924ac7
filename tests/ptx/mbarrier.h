// Mbarriers, for those who arrive at them.
#pragma once
#include "memory.h"

namespace ptx {

// The mbarrier at a shared address; faults where none has been made.
Mbarrier &mbarrier_at(Warp &w, const Instr &i, int lane, uint64_t address, Block **block, uint32_t *at);
// A phase that has got all it expects is complete.
void mbarrier_check(Block &b, Mbarrier &m);
void finish_async_copies(Warp &w, const Instr &i, uint32_t lanes);

} // namespace ptx
