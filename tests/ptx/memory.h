// Finds memory: which bytes an address means, whether they are there, aligned, written, and nobody else's yet.
#pragma once
#include "lanes.h"

namespace ptx {

// The bytes at an address of a space; faults say what is wrong. An address of SHARED may name another block's
// (RANK_SHIFT); GENERIC ones are told apart by their windows. For writing: they count as written from then on.
uint8_t *locate(Warp &w, const Instr &i, int lane, Space space, uint64_t address, uint32_t bytes, bool write);

// Global memory without a state: for copies that look after that themselves.
uint8_t *global_bytes(Warp &w, const Instr &i, int lane, uint64_t address, uint64_t bytes, bool write);

// The block and the offset a shared address means.
Block *shared_block(Warp &w, const Instr &i, int lane, uint64_t address, uint64_t bytes, uint32_t *offset);
// What a read and a write of shared memory by the generic proxy have to be checked against, and the asynchronous one's.
void shared_read(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes);
void shared_write(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes);
void shared_async_read(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes);
void shared_async_write(Warp &w, const Instr &i, int lane, Block &b, uint32_t at, uint32_t bytes);

} // namespace ptx
