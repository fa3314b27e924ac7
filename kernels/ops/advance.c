// advance: brings the rows of a decode batch one token further and closes the gaps of sequences that have ended
// (ops.h).
#include "ops.h"

// Moves row `from` to row `to`.
static void row_move(DecodeRows r, int64_t to, int64_t from) {
    Tensor all[] = {r.ids, r.pos, r.kv_row, r.span, r.key, r.place, r.slot, r.seen, r.seen_len};
    for (size_t i = 0; i < sizeof all / sizeof *all && to != from; i++) {
        size_t bytes = (size_t)tensor_width(all[i]) * dtype_size(all[i].dtype);
        char *data = all[i].data;
        if (data) memcpy(data + (size_t)to * bytes, data + (size_t)from * bytes, bytes);
    }
}

static void row_idle(DecodeRows r, int64_t j) {
    i64(r.key)[j] = i32(r.kv_row)[j] = i32(r.slot)[j] = -1;
    i32(r.ids)[j] = i32(r.pos)[j] = i32(r.place)[j] = 0;
    memset(i32(r.span) + 4 * j, 0, 4 * sizeof(int32_t));
    if (present(r.seen)) i32(r.seen_len)[j] = 0;
}

static void row_advance(DecodeRows r, int64_t j, int32_t token) {
    i32(r.ids)[j] = token;
    i32(r.pos)[j]++;
    i32(r.kv_row)[j]++;
    i32(r.span)[4 * j + 3]++;
    i32(r.place)[j]++;
    if (present(r.seen)) i32(r.seen)[j * tensor_width(r.seen) + i32(r.seen_len)[j]++] = token;
}

static bool row_ended(DecodeRows r, int64_t j, EndRule rule) {
    bool ended = i32(r.stop)[i32(r.slot)[j]] || i32(r.place)[j] >= rule.max_completion;
    for (int k = 0; k < rule.n_eos && i32(r.place)[j] > 0; k++) ended |= i32(r.ids)[j] == rule.eos[k];
    return ended;
}

void cpu_advance(Device *d, DecodeRows r, SampleOut drawn, int64_t first, EndRule rule) {
    int64_t B = r.ids.dim[0], slots = r.drawn.dim[2], n = present(drawn.token) ? drawn.token.dim[0] : 0;
    if (present(drawn.token)) {
        int32_t *to = i32(r.drawn) + i32(r.count)[1]++ % r.drawn.dim[0] * DRAWN_COUNT * slots; // [DRAWN_COUNT,slots]
        for (int64_t i = 0; i < slots; i++) to[DRAWN_SLOT * slots + i] = -1;
        for (int64_t i = 0; i < n; i++) {
            if (i64(r.key)[first + i] < 0) continue;
            to[DRAWN_SLOT * slots + i] = i32(r.slot)[first + i];
            to[DRAWN_TOKEN * slots + i] = i32(drawn.token)[i];
            to[DRAWN_LOGP * slots + i] = i32(drawn.logp)[i]; // the bits of the f32; so for the next two
            to[DRAWN_LSE * slots + i] = i32(drawn.lse)[i];
            to[DRAWN_ENTROPY * slots + i] = i32(drawn.entropy)[i];
            row_advance(r, first + i, i32(drawn.token)[i]);
        }
    }
    int64_t live = 0;
    for (int64_t j = 0; j < B; j++)
        if (i64(r.key)[j] >= 0 && !row_ended(r, j, rule)) row_move(r, live++, j);
    for (int64_t j = live; j < B; j++) row_idle(r, j);
    i32(r.count)[0] = (int32_t)live;
}
