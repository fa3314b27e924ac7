// The AMX tile registers, 0 to 7, and their instructions. Registers are named by constants.
//
// In plain assembly, because gcc 12's builtins do not say that they read memory, and it then leaves out stores before
// them (findings/gcc-tile-loadconfig.sh).
#pragma once
#include <stdint.h>

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
// The same for what will not be used again soon: it is kept out of the first-level cache.
#define tile_load_once(t, p, stride)                                                                                   \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define tile_store(t, p, stride)                                                                                       \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define tile_dot(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)
