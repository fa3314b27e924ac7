// The AMX tile registers, 0 to 7, and their instructions; with ISA_TWIN, C twins of both, in a thread's own memory.
// Registers are named by constants.
//
// In plain assembly, because gcc 12's builtins do not say that they read memory, and it then leaves out stores before
// them (findings/gcc-tile-loadconfig.sh).
#pragma once
#include "unit.h"

#if defined(ISA_TWIN)
#define TILES_HERE   static _Thread_local uint32_t tile_twin[8][16][16];
#define tile_open()  ((void)0)
#define tile_close() ((void)0)
#define tile_zero(t) memset(tile_twin[t], 0, sizeof tile_twin[t])
#define tile_load(t, p, stride)                                                                                        \
    for (int64_t r_ = 0; r_ < 16; r_++) memcpy(tile_twin[t][r_], (const char *)(p) + r_ * (stride), 64)
#define tile_store(t, p, stride)                                                                                       \
    for (int64_t r_ = 0; r_ < 16; r_++) memcpy((char *)(p) + r_ * (stride), tile_twin[t][r_], 64)
#define tile_dot(c, a, b) twin_tdpbf16((float(*)[16])tile_twin[c], tile_twin[a], tile_twin[b])
#else
#define TILES_HERE
// Configures all eight registers at their full size, 16 rows of 64 bytes.
static inline void tile_open(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } all = {.palette = 1};
    for (int t = 0; t < 8; t++) all.bytes[t] = 64, all.rows[t] = 16;
    __asm__ volatile("ldtilecfg %0" : : "m"(all));
}
// Releases the registers, so that the operating system need not save their 8 KiB for this thread.
static inline void tile_close(void) { __asm__ volatile("tilerelease"); }
#define tile_zero(t) __asm__ volatile("tilezero %%tmm" #t : :)
#define tile_load(t, p, stride)                                                                                        \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define tile_store(t, p, stride)                                                                                       \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define tile_dot(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)
#endif
