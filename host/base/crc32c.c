// CRC32C (Castagnoli; RFC 3720, appendix B.4), the checksum of checkpoint files.
//
// The CPU's crc32 instruction takes 3 cycles for 8 bytes but can start every cycle, so three stretches of data are
// summed side by side and joined afterwards. Joining uses that a CRC is linear: the register after k zero bytes is a
// matrix times the register before, kept as four tables of 256 entries, one for each byte of the register.
#include "crc32c.h"
#include <pthread.h>
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>
#endif

enum { STRETCH = 4096 }; // bytes; three of them fit the first-level cache

static const uint32_t polynomial = 0x82f63b78; // 0x1edc6f41, bits reversed
static uint32_t slice[8][256];                 // slice[k][b]: the register after byte b and k zero bytes
static uint32_t skip[4][256];                  // skip[k][b]: the register (b << 8k) after STRETCH zero bytes
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

// Slicing by 8 (Kounavis and Berry 2005); here and below `r` is the bare register, not inverted.
static uint32_t portable(uint32_t r, const unsigned char *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) {
        uint32_t lo, hi;
        memcpy(&lo, p, 4);
        memcpy(&hi, p + 4, 4);
        lo ^= r;
        r = slice[7][lo & 255] ^ slice[6][lo >> 8 & 255] ^ slice[5][lo >> 16 & 255] ^ slice[4][lo >> 24] ^
            slice[3][hi & 255] ^ slice[2][hi >> 8 & 255] ^ slice[1][hi >> 16 & 255] ^ slice[0][hi >> 24];
    }
    for (; n; n--) r = slice[0][(r ^ *p++) & 255] ^ r >> 8;
    return r;
}

static void make_tables(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t r = b;
        for (int bit = 0; bit < 8; bit++) r = r >> 1 ^ (r & 1 ? polynomial : 0);
        slice[0][b] = r;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++) slice[k][b] = slice[0][slice[k - 1][b] & 255] ^ slice[k - 1][b] >> 8;
    static const unsigned char zeros[STRETCH];
    for (int k = 0; k < 4; k++)
        for (uint32_t b = 0; b < 256; b++) skip[k][b] = portable(b << 8 * k, zeros, STRETCH);
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t n) {
    pthread_once(&tables_once, make_tables);
    return ~portable(~crc, data, n);
}

#if defined(__x86_64__)
static uint32_t skip_stretch(uint32_t r) {
    return skip[0][r & 255] ^ skip[1][r >> 8 & 255] ^ skip[2][r >> 16 & 255] ^ skip[3][r >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t with_instruction(uint32_t r, const unsigned char *p, size_t n) {
    uint64_t a = r, word[3];
    for (; n >= 3 * STRETCH; p += 3 * STRETCH, n -= 3 * STRETCH) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < STRETCH; i += 8) {
            memcpy(&word[0], p + i, 8);
            memcpy(&word[1], p + STRETCH + i, 8);
            memcpy(&word[2], p + 2 * STRETCH + i, 8);
            a = _mm_crc32_u64(a, word[0]);
            b = _mm_crc32_u64(b, word[1]);
            c = _mm_crc32_u64(c, word[2]);
        }
        a = skip_stretch(skip_stretch((uint32_t)a) ^ (uint32_t)b) ^ c;
    }
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word[0], p, 8);
        a = _mm_crc32_u64(a, word[0]);
    }
    for (; n; n--) a = _mm_crc32_u8((uint32_t)a, *p++);
    return (uint32_t)a;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n) {
    if (!__builtin_cpu_supports("sse4.2")) return crc32c_portable(crc, data, n);
    pthread_once(&tables_once, make_tables);
    return ~with_instruction(~crc, data, n);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t n) { return crc32c_portable(crc, data, n); }
#endif
