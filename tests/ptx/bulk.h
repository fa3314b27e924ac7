// Bulk copies, for tensor_map.cpp, which says what pieces one is made of.
#pragma once
#include "mbarrier.h"

namespace ptx {

// A copy of one lane begins: its pieces are checked, and shared memory marked.
void begin_bulk(Warp &w, const Instr &i, int lane, Bulk &&b);
// The blocks (ranks of bits) a multicast writes; the own one without.
void begin_load(Warp &w, const Instr &i, int lane, Bulk &&b, uint64_t mbarrier, bool multicast, uint32_t ranks);

} // namespace ptx
