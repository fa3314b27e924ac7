// The AMX tile registers (tile_asm.h); with ISA_TWIN, C twins of them and their instructions, in a thread's own memory.
#pragma once
#include "unit.h"

#if defined(ISA_TWIN)
#define TILES_HERE   static _Thread_local uint32_t tile_twin[8][16][16];
#define tile_open()  ((void)0)
#define tile_close() ((void)0)
#define tile_zero(t) memset(tile_twin[t], 0, sizeof tile_twin[t])
#define tile_load(t, p, stride)                                                                                        \
    for (int64_t r_ = 0; r_ < 16; r_++) memcpy(tile_twin[t][r_], (const char *)(p) + r_ * (stride), 64)
#define tile_load_once tile_load
#define tile_store(t, p, stride)                                                                                       \
    for (int64_t r_ = 0; r_ < 16; r_++) memcpy((char *)(p) + r_ * (stride), tile_twin[t][r_], 64)
#define tile_dot(c, a, b) twin_tdpbf16((float(*)[16])tile_twin[c], tile_twin[a], tile_twin[b])
#else
#define TILES_HERE
#include "tile_asm.h"
#endif
