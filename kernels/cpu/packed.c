// Products of many rows of bf16 that are contiguous along K, where bf16 has to be widened and sixteen registers make
// tiles so small that they would widen each element often.
//
// So both operands are widened once and packed with that: STRIP rows of a side by side, vector by vector, TRIPLE rows
// of b likewise, and a tile reads two streams. All of a's strips are in the second-level cache, a piece of K of a few
// rows of b in the first; what is packed next is asked for with every strip.
#include "packed.h"
#include "ahead.h"
#include "lanes.h"
#if WIDEN && !MANY_REGISTERS

#define STRIP  4 // rows of a in a tile
#define TRIPLE 3 // rows of b: STRIP x TRIPLE accumulators, TRIPLE vectors of b and one of a
#define PAIRED (2 * TRIPLE)
#define NEAR   (2 * PAIRED) // rows of b in the first-level cache
#define PIECE  448          // elements of K of them, at most
#define ROOM   65536        // floats of a's strips
#define ROWS   64           // rows of a at a time, at most

typedef struct {
    float a[ROOM] __attribute__((aligned(64)));
    float b[NEAR * PIECE] __attribute__((aligned(64)));
    vf sums[ROWS / STRIP][NEAR / PAIRED][STRIP * PAIRED]; // over the pieces so far, spread over lanes
} Room;

// Packs rows [0, n) of r, and zeros for those missing of `rows`: vector v of row i at to + (v rows + i) LANES, the even
// elements of each step before the odd ones, as lanes_bf16 multiplies them.
ALWAYS_INLINE void pack_steps(float *to, Rows r, int64_t n, const int rows, int64_t len) {
    for (int64_t k = 0; k < len; k += WIDTH_BF16, to += 2 * rows * LANES) UNROLL for (int i = 0; i < rows; i++) {
            const uint16_t *from = rows_at(r, i < n ? i : 0).data;
            BfVec x = load_bf16_most(from + k, i < n ? len - k : 0);
            vf_store(to + i * LANES, x.even);
            vf_store(to + (rows + i) * LANES, x.odd);
        }
}
ALWAYS_INLINE void pack(float *to, Rows r, int64_t n, const int rows, int64_t len) {
    const int64_t whole = n >= rows ? len / WIDTH_BF16 * WIDTH_BF16 : 0;
    pack_steps(to, r, rows, rows, whole);
    if (whole < len) pack_steps(to + whole * rows, cols_at(r, whole), n, rows, len - whole);
}
static __attribute__((noinline)) void pack_strip(float *to, Rows a, int64_t n, int64_t len) {
    pack(to, a, n, STRIP, len);
}
static __attribute__((noinline)) void pack_triple(float *to, Rows b, int64_t n, int64_t len) {
    pack(to, b, n, TRIPLE, len);
}

// sums[STRIP, TRIPLE], rows of PAIRED, += so many vectors of a strip and of a triple; from 0 where a chunk begins. A
// function of its own, or gcc would keep other things in the registers.
static __attribute__((noinline)) void tile(vf *sums, const float *a, const float *b, int64_t vectors, bool begins) {
    vf acc[STRIP * TRIPLE];
    if (begins) {
        UNROLL for (int i = 0; i < STRIP * TRIPLE; i++) acc[i] = (vf){0};
    } else {
        UNROLL for (int i = 0; i < STRIP * TRIPLE; i++) acc[i] = sums[i / TRIPLE * PAIRED + i % TRIPLE];
    }
    for (int64_t v = 0; v < vectors; v++, a += STRIP * LANES, b += TRIPLE * LANES) {
        vf y[TRIPLE];
        UNROLL for (int j = 0; j < TRIPLE; j++) y[j] = load_f32(b + j * LANES);
        UNROLL for (int i = 0; i < STRIP; i++) {
            vf x = load_f32(a + i * LANES);
            UNROLL for (int j = 0; j < TRIPLE; j++) acc[i * TRIPLE + j] = step_f32(acc[i * TRIPLE + j], x, y[j]);
        }
    }
    UNROLL for (int i = 0; i < STRIP * TRIPLE; i++) sums[i / TRIPLE * PAIRED + i % TRIPLE] = acc[i];
}

// c[m,n] = (or +=) the sums of a pair of tiles, of which rows and columns past m and n are not stored.
static __attribute__((noinline)) void put(float *c, int64_t stride, bool add, const vf *sums, int64_t m, int64_t n) {
    float out[STRIP * PAIRED];
    sum_lanes(out, sums, STRIP * PAIRED);
    for (int64_t i = 0; i < m && i < STRIP; i++, c += stride) {
        const float *row = out + i * PAIRED;
        for (int64_t j = 0; j < n && n < PAIRED; j++) c[j] = add ? c[j] + row[j] : row[j];
        if (n < PAIRED) continue;
        UNROLL for (int j = 0; j < PAIRED; j += 2) {
            v2f x, before;
            memcpy(&x, row + j, sizeof x);
            if (add) memcpy(&before, c + j, sizeof before), x += before;
            memcpy(c + j, &x, sizeof x);
        }
    }
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The elements [k, k + len) of n rows of b, to ask for in equal parts with so many strips.
static Ahead ahead_of(Rows b, int64_t n, int64_t k, int64_t len, int64_t strips) {
    const int64_t bytes = len * (int64_t)sizeof(uint16_t), lines = n * ((bytes + 63) / 64);
    if (n <= 0 || len <= 0) return (Ahead){0};
    return (Ahead){cols_at(b, k).data,           b.stride * (int64_t)sizeof(uint16_t), bytes, n, 0,
                   (lines + strips - 1) / strips};
}

// The same for as many rows of a as there is room for.
static void block(Room *room, float *c, int64_t stride, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t len) {
    const int64_t padded = (len + WIDTH_BF16 - 1) / WIDTH_BF16 * WIDTH_BF16, strips = (m + STRIP - 1) / STRIP;
    const int64_t pieces = (padded + PIECE - 1) / PIECE;
    const int64_t piece = ((padded + pieces - 1) / pieces + WIDTH_BF16 - 1) / WIDTH_BF16 * WIDTH_BF16;
    for (int64_t s = 0; s < strips; s++)
        pack_strip(room->a + s * STRIP * padded, rows_at(a, s * STRIP), m - s * STRIP, len);
    for (int64_t j = 0; j < n; j += NEAR) {
        const int64_t columns = least(n - j, NEAR), pairs = (columns + PAIRED - 1) / PAIRED;
        for (int64_t k = 0; k < padded; k += piece) {
            const bool ends = k + piece >= padded;
            Ahead next = ends ? ahead_of(rows_at(b, j + NEAR), least(n - j - NEAR, NEAR), 0, least(len, piece), strips)
                              : ahead_of(rows_at(b, j), columns, k + piece, least(len - k - piece, piece), strips);
            for (int64_t g = 0; g < 2 * pairs; g++) {
                const int64_t left = columns - g * TRIPLE; // none where the last pair is half there
                pack_triple(room->b + g * TRIPLE * piece, cols_at(rows_at(b, left > 0 ? j + g * TRIPLE : j), k), left,
                            least(len - k, piece));
            }
            for (int64_t s = 0; s < strips; s++) {
                const float *strip = room->a + (s * padded + k) * STRIP;
                ahead_fetch(&next);
                for (int64_t g = 0; g < 2 * pairs; g++)
                    tile(room->sums[s][g / 2] + g % 2 * TRIPLE, strip, room->b + g * TRIPLE * piece,
                         least(padded - k, piece) / LANES, k == 0);
                for (int64_t p = 0; ends && p < pairs; p++)
                    put(c + s * STRIP * stride + j + p * PAIRED, stride, add, room->sums[s][p], m - s * STRIP,
                        columns - p * PAIRED);
            }
        }
    }
}

void packed_chunk(float *c, int64_t stride, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t len) {
    Room room;
    const int64_t fit = ROOM / (len + WIDTH_BF16) / STRIP * STRIP, rows = least(fit, ROWS);
    for (int64_t i = 0; i < m; i += rows)
        block(&room, c + i * stride, stride, add, rows_at(a, i), least(m - i, rows), b, n, len);
}
#endif
