// What will be read next: rows of memory, of which a product asks for some lines while it computes. Rows of a matrix
// are often pages apart, which no prefetcher of a CPU foresees.
#pragma once
#include <stdint.h>

typedef struct {
    const char *row;
    int64_t stride, bytes, rows; // bytes from row to row and of one; rows that are left
    int64_t at, each;            // bytes of the first row that have been asked for; lines to ask for at a time
} Ahead;

static inline void ahead_fetch(Ahead *a) {
    for (int64_t i = 0; i < a->each && a->rows > 0; i++) {
        __builtin_prefetch(a->row + a->at, 0, 2);
        a->at += 64;
        if (a->at >= a->bytes) a->at = 0, a->row += a->stride, a->rows--;
    }
}
