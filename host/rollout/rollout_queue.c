// The device's side of a rollout. The state of every row is on the device and advances there (the op `advance`), so
// that a decode step is always the same launches with the same arguments, and a device with graphs replays one
// recording for each batch size. The host only adds and removes sequences, by copies that it does not wait for.
#include "device.h"
#include "rollout_queue.h"
#include <stdlib.h>

enum { STEPS = 8, BURSTS = 2, SIZES = 40, SMALL_SIZES = 6 };

typedef struct {
    char *staging; // memory to upload from, which must not change until the burst has passed
    size_t used;
    int32_t *drawn; // [STEPS+1,DRAWN_COUNT,slots] the results
    int columns[STEPS + 1];
    int rows; // how many rows of `drawn` are filled
    Event *passed;
} Burst;

struct RolloutQueue {
    Rollout *r;
    Device *d;
    const Model *m;
    SampleParams params;
    EndRule rule;
    DecodeRows rows; // with `seen` only where the repetition penalty needs it
    Burst burst[BURSTS];
    size_t staging_bytes, drawn_bytes;
    int64_t begun, taken; // bursts begun and taken so far
    int64_t written;      // rows of the ring written so far
    // The recordings, numbered by decode_size. One is 125 to 180 launches for 0.5B, perhaps 1 MB of the driver's
    // memory, so that their number has a bound. The first step of a size runs as plain calls, which also load its
    // kernels, and the second is recorded: a size for one step records nothing. After parameters change, which may need
    // other kernels, all is done again.
    struct {
        bool ran;
        Graph *graph;
    } size[SIZES];
    // What the recordings were made with.
    const void *weights;
    bool recorded;
};

Tensor rollout_ring(Arena *a, int slots) { return arena_new(a, I32, BURSTS * (STEPS + 1), DRAWN_COUNT, slots); }

static DecodeRows rows_part(DecodeRows r, int64_t first, int64_t n) {
    Tensor *all[] = {&r.ids, &r.pos, &r.kv_row, &r.span, &r.key, &r.place, &r.slot, &r.seen, &r.seen_len};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (present(*all[i])) *all[i] = tensor_rows(*all[i], first, n);
    return r;
}

static size_t padded(size_t bytes) { return (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN; }

// ---- opening ------------------------------------------------------------------------------------------------------

static RolloutQueue *queue_new(Rollout *r, Device *d) {
    RolloutQueue *q = xcalloc(1, sizeof *q);
    RolloutShape s = r->shape;
    q->r = r;
    q->d = d;
    size_t words =
        3 * (size_t)s.prefill_tokens + (size_t)s.prompt_slots + 1 + (size_t)s.slots * (20 + (size_t)s.max_prompt);
    q->staging_bytes = words * 4 + (size_t)(s.slots + 24) * ARENA_ALIGN;
    q->drawn_bytes = (STEPS + 1) * DRAWN_COUNT * (size_t)s.slots * sizeof(int32_t);
    bool ok = true;
    for (int i = 0; i < BURSTS; i++) {
        Burst *b = &q->burst[i];
        b->staging = d->host_alloc(d, q->staging_bytes);
        b->drawn = d->host_alloc(d, q->drawn_bytes);
        b->passed = d->event_new(d);
        ok = ok && b->staging && b->drawn && b->passed;
    }
    if (ok) return q;
    queue_free(q);
    return NULL;
}

static void graphs_free(RolloutQueue *q) {
    for (int i = 0; i < SIZES; i++) {
        if (q->size[i].graph) q->d->graph_free(q->d, q->size[i].graph);
        q->size[i].graph = NULL;
        q->size[i].ran = false;
    }
}

void queue_free(RolloutQueue *q) {
    if (!q) return;
    graphs_free(q);
    for (int i = 0; i < BURSTS; i++) {
        q->d->host_free(q->d, q->burst[i].staging, q->staging_bytes);
        q->d->host_free(q->d, q->burst[i].drawn, q->drawn_bytes);
        q->d->event_free(q->d, q->burst[i].passed);
    }
    free(q);
}

// Takes memory for an upload of `bytes` from the burst's staging.
static void *stage(RolloutQueue *q, size_t bytes) {
    Burst *b = &q->burst[q->begun % BURSTS];
    void *p = b->staging + b->used;
    b->used += padded(bytes);
    if (b->used > q->staging_bytes) die("rollout: %zu bytes to upload, %zu planned", b->used, q->staging_bytes);
    return p;
}
static void upload(RolloutQueue *q, Tensor to, const void *staged) {
    q->d->copy_async(q->d, to.data, staged, tensor_bytes(to));
}

// Makes all rows idle, with nothing drawn yet.
static void rows_clear(RolloutQueue *q) {
    Rollout *r = q->r;
    size_t slots = (size_t)r->shape.slots;
    int64_t *key = stage(q, slots * sizeof *key);
    int32_t *zero = stage(q, (slots + 2) * sizeof *zero);
    memset(zero, 0, (slots + 2) * sizeof *zero);
    for (size_t i = 0; i < slots; i++) key[i] = -1;
    upload(q, r->rows.key, key);
    upload(q, r->rows.count, zero);
    upload(q, r->rows.stop, zero);
    q->d->advance(q->d, q->rows, (SampleOut){0}, 0, q->rule);
}

static bool same_work(const RolloutQueue *q, const Model *m, SampleParams p, EndRule rule) {
    SampleParams o = q->params;
    bool same = q->recorded && q->weights == m->slab.data && o.temperature == p.temperature && o.top_k == p.top_k &&
                o.top_p == p.top_p && o.min_p == p.min_p && o.repetition_penalty == p.repetition_penalty &&
                o.seed == p.seed && q->rule.n_eos == rule.n_eos && q->rule.max_completion == rule.max_completion;
    for (int i = 0; i < rule.n_eos; i++) same = same && q->rule.eos[i] == rule.eos[i];
    return same;
}

RolloutQueue *queue_open(Rollout *r, Device *d, const Model *m, SampleParams params, EndRule rule, Error *e) {
    RolloutQueue *q = r->queue ? r->queue : queue_new(r, d);
    if (!q) {
        if (device_ok(d, e)) error_set(e, EXIT_MEMORY, "no host memory for the rollout's copies; close other programs");
        return NULL;
    }
    r->queue = q;
    if (!same_work(q, m, params, rule)) graphs_free(q);
    q->m = m;
    q->params = params;
    q->rule = rule;
    q->weights = m->slab.data;
    q->recorded = true;
    q->rows = r->rows;
    if (params.repetition_penalty == 1) q->rows.seen = q->rows.seen_len = NONE;
    q->begun = q->taken = q->written = 0;
    return q;
}

int queue_length(const RolloutQueue *q) { return (int)(q->begun - q->taken); }
int queue_depth(const RolloutQueue *q) { return q->d->graph_begin ? BURSTS - 1 : 0; }
int queue_steps_limit(const RolloutQueue *q) { return q->d->graph_begin ? STEPS : 1; }

// ---- a burst ------------------------------------------------------------------------------------------------------

void queue_begin(RolloutQueue *q) {
    Burst *b = &q->burst[q->begun % BURSTS];
    b->used = 0;
    b->rows = 0;
    if (q->begun == 0) rows_clear(q);
}

void queue_stop(RolloutQueue *q, const int *slots, int n) {
    Tensor stop = q->rows.stop;
    int32_t *flags = stage(q, tensor_bytes(stop)), *zero = stage(q, tensor_bytes(stop));
    memset(flags, 0, tensor_bytes(stop));
    memset(zero, 0, tensor_bytes(stop));
    for (int i = 0; i < n; i++) flags[slots[i]] = 1;
    upload(q, stop, flags);
    q->d->advance(q->d, q->rows, (SampleOut){0}, 0, q->rule);
    upload(q, stop, zero); // for the next sequences of these slots
}

static Tensor row_of(Tensor x, int64_t i) { return tensor_rows(x, i, 1); }

void queue_prefill(RolloutQueue *q, const NewSequence *list, int n) {
    Rollout *r = q->r;
    int T = 0;
    for (int i = 0; i < n; i++) T += (int)list[i].prompt->n;
    Tensor column[3] = {tensor_rows(r->ids, 0, T), tensor_rows(r->pos, 0, T), tensor_rows(r->kv_row, 0, T)};
    Tensor seq = tensor_rows(r->seq, 0, n + 1);
    int32_t *value[3], *offsets = stage(q, tensor_bytes(seq));
    for (int c = 0; c < 3; c++) value[c] = stage(q, tensor_bytes(column[c]));
    int t = 0;
    for (int i = 0; i < n; i++) {
        offsets[i] = t;
        for (int j = 0; j < (int)list[i].prompt->n; j++, t++) {
            value[0][t] = list[i].prompt->id[j];
            value[1][t] = j;
            value[2][t] = list[i].prompt_slot * r->shape.max_prompt + j;
        }
    }
    offsets[n] = t;
    for (int c = 0; c < 3; c++) upload(q, column[c], value[c]);
    upload(q, seq, offsets);
    model_forward(q->d, q->m, &r->prefill, (Packed){column[0], column[1], seq, NONE}, &r->cache, column[2]);
    for (int i = 0; i < n; i++) { // keep the last hidden state, from which first tokens are drawn
        Tensor last = row_of(r->prefill.out, offsets[i + 1] - 1);
        q->d->copy_async(q->d, row_of(r->prompt_hidden, list[i].prompt_slot).data, last.data, tensor_bytes(last));
    }
}

static int first_suffix_row(const RolloutShape *s, int slot) {
    return s->prompt_slots * s->max_prompt + slot * s->max_completion;
}

// Draws tokens for rows first .. first + n of `rows` from hidden[n,D], and takes them in by `advance`.
static void draw(RolloutQueue *q, DecodeRows rows, int first, int n, Tensor hidden) {
    Rollout *r = q->r;
    DecodeRows who = rows_part(rows, first, n);
    SampleOut drawn = {tensor_rows(r->drawn.token, 0, n), tensor_rows(r->drawn.logp, 0, n),
                       tensor_rows(r->drawn.lse, 0, n), tensor_rows(r->drawn.entropy, 0, n)};
    q->d->sample(q->d, drawn, hidden, q->m->head, who.key, who.place, who.seen, who.seen_len, q->params);
    q->d->advance(q->d, rows, drawn, first, q->rule);
}

// Counts one more row of the ring as written, in its first n columns.
static void count_row(RolloutQueue *q, int n) {
    Burst *b = &q->burst[q->begun % BURSTS];
    if (b->rows > STEPS) die("rollout: a burst of more than %d steps", STEPS);
    b->columns[b->rows++] = n;
    q->written++;
}

void queue_start(RolloutQueue *q, const NewSequence *list, int n, int first) {
    Rollout *r = q->r;
    const RolloutShape *s = &r->shape;
    DecodeRows w = rows_part(q->rows, first, n);
    Tensor from = tensor_rows(r->from, 0, n);
    int32_t *zero = stage(q, (size_t)n * 4), *pos = stage(q, (size_t)n * 4), *row = stage(q, (size_t)n * 4),
            *span = stage(q, (size_t)n * 16), *slot = stage(q, (size_t)n * 4), *source = stage(q, (size_t)n * 4),
            *length = stage(q, (size_t)n * 4);
    int64_t *key = stage(q, (size_t)n * 8);
    for (int j = 0; j < n; j++) {
        int prompt = (int)list[j].prompt->n, suffix = first_suffix_row(s, list[j].slot);
        zero[j] = 0;
        pos[j] = prompt - 1; // the position of the prompt's last token
        row[j] = suffix - 1;
        memcpy(span + 4 * j, (int32_t[4]){list[j].prompt_slot * s->max_prompt, prompt, suffix, 0}, 16);
        key[j] = list[j].key;
        slot[j] = list[j].slot;
        source[j] = list[j].prompt_slot;
        length[j] = prompt;
        if (!present(w.seen)) continue;
        int32_t *ids = stage(q, (size_t)prompt * 4);
        memcpy(ids, list[j].prompt->id, (size_t)prompt * 4);
        q->d->copy_async(q->d, row_of(w.seen, j).data, ids, (size_t)prompt * 4);
    }
    upload(q, w.ids, zero);
    upload(q, w.place, zero);
    upload(q, w.pos, pos);
    upload(q, w.kv_row, row);
    upload(q, w.span, span);
    upload(q, w.key, key);
    upload(q, w.slot, slot);
    if (present(w.seen)) upload(q, w.seen_len, length);
    upload(q, from, source);
    Tensor hidden = tensor_rows(r->hidden, 0, n);
    q->d->embed(q->d, hidden, r->prompt_hidden, from);
    draw(q, rows_part(q->rows, 0, first + n), first, n, hidden);
    count_row(q, n);
}

int decode_size(int rows, int slots, int *n) {
    int size = 0, unit = 32;
    while (size < SMALL_SIZES && 1 << size < rows) size++;
    *n = 1 << size;
    if (size == SMALL_SIZES) {
        while ((slots + unit - 1) / unit > SIZES - SMALL_SIZES) unit += 32;
        const int units = (rows + unit - 1) / unit;
        size = SMALL_SIZES + units - 1;
        *n = units * unit;
    }
    if (*n > slots) *n = slots;
    return size;
}

static void step(RolloutQueue *q, int n) {
    Rollout *r = q->r;
    DecodeRows w = rows_part(q->rows, 0, n);
    model_decode(q->d, q->m, &r->decode, w.ids, w.pos, &r->cache, w.kv_row, w.span);
    draw(q, w, 0, n, tensor_rows(r->decode.out, 0, n));
}

// The recording of a step for n rows, made if there is none. NULL: the step must run as plain calls.
static Graph *graph_of(RolloutQueue *q, int size, int n) {
    Device *d = q->d;
    if (!q->size[size].ran) {
        q->size[size].ran = true;
        return NULL;
    }
    if (!q->size[size].graph) {
        d->graph_begin(d, q->m->slab); // the weights: drawing tokens writes none
        step(q, n);
        q->size[size].graph = d->graph_end(d);
    }
    return q->size[size].graph;
}

void queue_decode(RolloutQueue *q, int rows, int steps) {
    Device *d = q->d;
    int size = 0, n = rows;
    if (d->graph_begin) size = decode_size(rows, q->r->shape.slots, &n); // the rows beyond are idle
    for (int s = 0; s < steps && !d->error[0]; s++) {
        Graph *g = d->graph_begin ? graph_of(q, size, n) : NULL;
        if (g) d->graph_run(d, g);
        else step(q, n);
        count_row(q, n);
    }
}

void queue_end(RolloutQueue *q) {
    Burst *b = &q->burst[q->begun % BURSTS];
    Tensor ring = q->rows.drawn;
    int64_t size = ring.dim[0], first = q->written - b->rows;
    size_t row_bytes = DRAWN_COUNT * (size_t)q->r->shape.slots * sizeof(int32_t);
    for (int done = 0; done < b->rows;) { // in two pieces if the ring wraps around
        int64_t at = (first + done) % size;
        int n = b->rows - done < size - at ? b->rows - done : (int)(size - at);
        q->d->fetch_async(q->d, (char *)b->drawn + (size_t)done * row_bytes, tensor_rows(ring, at, n).data,
                          (size_t)n * row_bytes, b->passed);
        done += n;
    }
    if (!b->rows) q->d->event_record(q->d, b->passed);
    q->begun++;
}

int queue_take(RolloutQueue *q) {
    Burst *b = &q->burst[q->taken++ % BURSTS];
    q->d->event_wait(q->d, b->passed);
    return q->d->error[0] ? 0 : b->rows;
}

DrawnRow queue_drawn(const RolloutQueue *q, int i) {
    const Burst *b = &q->burst[(q->taken - 1) % BURSTS];
    size_t slots = (size_t)q->r->shape.slots;
    const int32_t *row = b->drawn + (size_t)i * DRAWN_COUNT * slots;
    return (DrawnRow){.slot = row + DRAWN_SLOT * slots,
                      .token = row + DRAWN_TOKEN * slots,
                      .logp = (const float *)(row + DRAWN_LOGP * slots),
                      .lse = (const float *)(row + DRAWN_LSE * slots),
                      .entropy = (const float *)(row + DRAWN_ENTROPY * slots),
                      .n = b->columns[i]};
}
