// Rollout: continuous batching over a KV cache. A sequence takes a slot, waits for its prompt to be prefilled, draws a
// token a step, and leaves; the next queued sequence takes its slot.
#include "host.h"
#include <stdlib.h>

RolloutShape rollout_shape(int slots, int prompts, int max_prompt, int max_completion) {
    int prefill = max_prompt > 1024 ? max_prompt : 1024;
    return (RolloutShape){slots, prompts < slots ? prompts : slots, max_prompt, max_completion, prefill};
}

Rollout rollout_carve(Arena *a, ModelDims n, DType t, RolloutShape s) {
    Rollout r = {.shape = s};
    int64_t rows = (int64_t)s.prompt_slots * s.max_prompt + (int64_t)s.slots * s.max_completion;
    int64_t T = s.prefill_tokens > s.slots ? s.prefill_tokens : s.slots;
    r.cache = kv_carve(a, n, t, rows);
    r.prefill = activations_carve(a, n, t, s.prefill_tokens, false, false);
    r.decode = activations_carve(a, n, t, s.slots, false, false);
    r.ids = arena_new(a, I32, T);
    r.pos = arena_new(a, I32, T);
    r.kv_row = arena_new(a, I32, T);
    r.seq = arena_new(a, I32, s.prompt_slots + 1);
    r.span = arena_new(a, I32, s.slots, 4);
    r.prompt_hidden = arena_new(a, t, s.prompt_slots, n.D);
    r.hidden = arena_new(a, t, s.slots, n.D);
    r.key = arena_new(a, I64, s.slots);
    r.place = arena_new(a, I32, s.slots);
    r.token = arena_new(a, I32, s.slots);
    r.logp = arena_new(a, F32, s.slots);
    r.seen = arena_new(a, I32, s.slots, s.max_prompt + s.max_completion);
    r.seen_len = arena_new(a, I32, s.slots);
    return r;
}

void rollout_free(Rollout *r) {
    activations_free(&r->prefill);
    activations_free(&r->decode);
}

typedef struct {
    int seq;         // index in the batch; -1: free
    int prompt_slot; // where its prompt's keys and values lie
    Str text;        // decoded so far
    size_t shown;    // bytes of it given to watch.text
    Utf8Pending pending;
} Slot;

typedef struct {
    int prompt; // index in the batch; -1: free
    int users;  // slots that read it
} PromptSlot;

// Everything one run of the loop shares.
typedef struct {
    Rollout *r;
    Device *d;
    const Model *m;
    const Tokenizer *tok;
    StopRule rule;
    SampleParams params;
    Batch *b;
    RolloutWatch watch;
    size_t longest_stop; // bytes; this much of a text may still be taken back
    Slot *slot;          // [slots]
    PromptSlot *prompts; // [prompt_slots]
    int next;            // first sequence never given a slot
    int *active;         // [slots] slots that decode, ascending
    int n_active;
    int32_t *host_i32; // staging for columns copied to the device
} Loop;

static void upload_i32(Loop *k, Tensor dst, int n) {
    k->d->copy(k->d, dst.data, k->host_i32, (size_t)n * sizeof(int32_t));
}

static int first_suffix_row(const Loop *k, int slot) {
    return k->r->shape.prompt_slots * k->r->shape.max_prompt + slot * k->r->shape.max_completion;
}

static Tensor row_of(Tensor x, int64_t i) { return tensor_rows(x, i, 1); }

// Runs the prompts of prompt slots list[0..n) through the model, keys and values into the cache, and keeps the last
// token's hidden state of each.
static void prefill(Loop *k, const int *list, int n) {
    Rollout *r = k->r;
    const Batch *b = k->b;
    int T = 0, max_prompt = r->shape.max_prompt;
    for (int i = 0; i < n; i++) T += (int)b->prompt[k->prompts[list[i]].prompt].n;
    int32_t *columns[3] = {xmalloc((size_t)T * 4), xmalloc((size_t)T * 4), xmalloc((size_t)T * 4)};
    int32_t *offsets = xmalloc((size_t)(n + 1) * 4);
    int t = 0;
    for (int i = 0; i < n; i++) {
        const Ids *ids = &b->prompt[k->prompts[list[i]].prompt];
        offsets[i] = t;
        for (int j = 0; j < (int)ids->n; j++, t++) {
            columns[0][t] = ids->id[j];
            columns[1][t] = j;
            columns[2][t] = list[i] * max_prompt + j;
        }
    }
    offsets[n] = t;
    Tensor dst[3] = {tensor_rows(r->ids, 0, T), tensor_rows(r->pos, 0, T), tensor_rows(r->kv_row, 0, T)};
    for (int c = 0; c < 3; c++) k->d->copy(k->d, dst[c].data, columns[c], (size_t)T * 4);
    Tensor seq = tensor_rows(r->seq, 0, n + 1);
    k->d->copy(k->d, seq.data, offsets, (size_t)(n + 1) * 4);
    model_forward(k->d, k->m, &r->prefill, (Packed){dst[0], dst[1], seq}, &r->cache, dst[2]);
    for (int i = 0; i < n; i++) {
        Tensor last = row_of(r->prefill.out, offsets[i + 1] - 1);
        k->d->copy(k->d, row_of(r->prompt_hidden, list[i]).data, last.data, tensor_bytes(last));
    }
    for (int c = 0; c < 3; c++) free(columns[c]);
    free(offsets);
}

// The prompt slot that holds prompt p, or one to prefill it in (*fresh), or -1 where all are in use.
static int prompt_slot_for(Loop *k, int p, bool *fresh) {
    int empty = -1;
    for (int i = 0; i < k->r->shape.prompt_slots; i++) {
        if (k->prompts[i].prompt == p) return i;
        if (empty < 0 && k->prompts[i].users == 0) empty = i;
    }
    if (empty >= 0) k->prompts[empty].prompt = p;
    *fresh = empty >= 0;
    return empty;
}

// Fills free slots with queued sequences; prefills their prompts together. Returns the number admitted; their slots
// are in started[].
static int admit(Loop *k, int *started) {
    const Batch *b = k->b;
    int n = 0, n_fresh = 0, tokens = 0;
    int *fresh_list = xmalloc((size_t)k->r->shape.prompt_slots * sizeof(int));
    for (int s = 0; s < k->r->shape.slots && k->next < b->n; s++) {
        if (k->slot[s].seq >= 0) continue;
        while (k->next < b->n && b->state[k->next] != SEQ_QUEUED) k->next++;
        if (k->next >= b->n) break;
        int p = k->next / b->group, length = (int)b->prompt[p].n;
        bool fresh = false;
        int at = prompt_slot_for(k, p, &fresh);
        if (at < 0) break;
        if (fresh) {
            if (tokens + length > k->r->shape.prefill_tokens) { // this one waits for the next round
                k->prompts[at].prompt = -1;
                break;
            }
            tokens += length;
            fresh_list[n_fresh++] = at;
        }
        k->prompts[at].users++;
        k->slot[s].seq = k->next++;
        k->slot[s].prompt_slot = at;
        k->slot[s].pending = (Utf8Pending){0};
        str_clear(&k->slot[s].text);
        k->slot[s].shown = 0;
        b->state[k->slot[s].seq] = SEQ_DECODING;
        started[n++] = s;
    }
    if (n_fresh) prefill(k, fresh_list, n_fresh);
    free(fresh_list);
    return n;
}

static void list_active(Loop *k) {
    k->n_active = 0;
    for (int s = 0; s < k->r->shape.slots; s++)
        if (k->slot[s].seq >= 0) k->active[k->n_active++] = s;
}

static void show(Loop *k, Slot *slot, size_t upto) {
    if (k->watch.text && upto > slot->shown)
        k->watch.text(k->watch.arg, slot->seq, slot->text.s + slot->shown, upto - slot->shown);
    if (upto > slot->shown) slot->shown = upto;
}

static void finish(Loop *k, int s, Finish why, size_t text_len) {
    Slot *slot = &k->slot[s];
    Batch *b = k->b;
    int i = slot->seq;
    show(k, slot, text_len);
    b->finish[i] = why;
    b->text[i] = xstrndup(slot->text.s ? slot->text.s : "", text_len);
    b->state[i] = SEQ_DECODED;
    k->prompts[slot->prompt_slot].users--;
    slot->seq = -1;
    if (k->watch.done) k->watch.done(k->watch.arg, i);
}

// Where a stop string begins in the text, looking only where the last `fresh` bytes could have completed one; -1: nowhere.
static int64_t find_stop(const TextList *stop, const Str *text, size_t fresh) {
    int64_t best = -1;
    for (int i = 0; i < stop->n; i++) {
        size_t len = strlen(stop->item[i]), back = fresh + len;
        if (!len || !text->n) continue;
        size_t from = text->n > back ? text->n - back : 0;
        const char *hit = memmem(text->s + from, text->n - from, stop->item[i], len);
        if (hit && (best < 0 || hit - text->s < best)) best = hit - text->s;
    }
    return best;
}

// Takes the token drawn for slot s; ends the sequence where it is the last one.
static void push(Loop *k, int s, int32_t token, float logp) {
    Slot *slot = &k->slot[s];
    Batch *b = k->b;
    int i = slot->seq, n = b->len[i]++;
    b->ids[(size_t)i * (size_t)b->max_completion + (size_t)n] = token;
    b->logp[(size_t)i * (size_t)b->max_completion + (size_t)n] = logp;
    size_t before = slot->text.n;
    tokenizer_stream(k->tok, token, true, &slot->pending, &slot->text);
    bool last = n + 1 == b->max_completion, eos = false;
    for (int j = 0; j < k->rule.n_eos; j++) eos |= token == k->rule.eos[j];
    if (eos || last) tokenizer_stream_flush(&slot->pending, &slot->text);
    int64_t stop = find_stop(&k->rule.stop, &slot->text, slot->text.n - before);
    if (stop >= 0) finish(k, s, FINISH_STOP, (size_t)stop);
    else if (eos) finish(k, s, FINISH_EOS, slot->text.n);
    else if (last) finish(k, s, FINISH_LENGTH, slot->text.n);
    else if (slot->text.n > k->longest_stop) show(k, slot, slot->text.n - k->longest_stop);
}

// What the repetition penalty looks at: prompt and completion so far, one row a sequence.
static void upload_seen(Loop *k, const int *list, int n) {
    Rollout *r = k->r;
    const Batch *b = k->b;
    for (int j = 0; j < n; j++) {
        int i = k->slot[list[j]].seq;
        const Ids *prompt = &b->prompt[i / b->group];
        char *row = row_of(r->seen, j).data;
        k->d->copy(k->d, row, prompt->id, prompt->n * 4);
        k->d->copy(k->d, row + prompt->n * 4, b->ids + (size_t)i * (size_t)b->max_completion, (size_t)b->len[i] * 4);
        k->host_i32[j] = (int32_t)prompt->n + b->len[i];
    }
    upload_i32(k, r->seen_len, n);
}

// Draws the next token of the slots in list[0..n) from hidden[n,D] and hands it to each.
static void draw(Loop *k, const int *list, int n, Tensor hidden) {
    Rollout *r = k->r;
    const Batch *b = k->b;
    int64_t *key = xmalloc((size_t)n * sizeof *key);
    for (int j = 0; j < n; j++) {
        key[j] = b->key[k->slot[list[j]].seq];
        k->host_i32[j] = b->len[k->slot[list[j]].seq];
    }
    k->d->copy(k->d, r->key.data, key, (size_t)n * sizeof *key);
    free(key);
    upload_i32(k, r->place, n);
    bool penalty = k->params.repetition_penalty != 1;
    if (penalty) upload_seen(k, list, n);
    Tensor token = tensor_rows(r->token, 0, n), logp = tensor_rows(r->logp, 0, n);
    k->d->sample(k->d, token, logp, hidden, k->m->head, tensor_rows(r->key, 0, n), tensor_rows(r->place, 0, n),
                 penalty ? tensor_rows(r->seen, 0, n) : NONE, penalty ? tensor_rows(r->seen_len, 0, n) : NONE,
                 k->params);
    k->d->sync(k->d);
    float *host_logp = xmalloc((size_t)n * sizeof *host_logp);
    k->d->copy(k->d, k->host_i32, token.data, (size_t)n * sizeof(int32_t));
    k->d->copy(k->d, host_logp, logp.data, (size_t)n * sizeof(float));
    for (int j = 0; j < n; j++) push(k, list[j], k->host_i32[j], host_logp[j]);
    free(host_logp);
}

// The first token of new sequences comes from their prompt's last hidden state.
static void start(Loop *k, const int *list, int n) {
    for (int j = 0; j < n; j++) {
        Tensor from = row_of(k->r->prompt_hidden, k->slot[list[j]].prompt_slot);
        k->d->copy(k->d, row_of(k->r->hidden, j).data, from.data, tensor_bytes(from));
    }
    draw(k, list, n, tensor_rows(k->r->hidden, 0, n));
}

// One decode step of every active slot.
static void step(Loop *k) {
    Rollout *r = k->r;
    const Batch *b = k->b;
    int n = k->n_active;
    int32_t *ids = k->host_i32, *pos = ids + n, *row = pos + n, *span = row + n; // [n] [n] [n] [n,4]
    for (int j = 0; j < n; j++) {
        const Slot *slot = &k->slot[k->active[j]];
        int i = slot->seq, len = b->len[i], prompt = (int)b->prompt[i / b->group].n;
        int suffix = first_suffix_row(k, k->active[j]);
        ids[j] = b->ids[(size_t)i * (size_t)b->max_completion + (size_t)len - 1];
        pos[j] = prompt + len - 1;
        row[j] = suffix + len - 1;
        memcpy(span + 4 * j, (int32_t[4]){slot->prompt_slot * r->shape.max_prompt, prompt, suffix, len}, 16);
    }
    k->d->copy(k->d, r->ids.data, ids, (size_t)n * 4);
    k->d->copy(k->d, r->pos.data, pos, (size_t)n * 4);
    k->d->copy(k->d, r->kv_row.data, row, (size_t)n * 4);
    k->d->copy(k->d, r->span.data, span, (size_t)n * 16);
    model_decode(k->d, k->m, &r->decode, tensor_rows(r->ids, 0, n), tensor_rows(r->pos, 0, n), &r->cache,
                 tensor_rows(r->kv_row, 0, n), tensor_rows(r->span, 0, n));
    draw(k, k->active, n, tensor_rows(r->decode.out, 0, n));
}

bool rollout_run(Rollout *r, Device *d, const Model *m, const Tokenizer *t, StopRule rule, SampleParams params,
                 Batch *b, RolloutWatch watch) {
    size_t slots = (size_t)r->shape.slots;
    Loop k = {.r = r, .d = d, .m = m, .tok = t, .rule = rule, .params = params, .b = b, .watch = watch};
    for (int i = 0; i < rule.stop.n; i++)
        if (strlen(rule.stop.item[i]) > k.longest_stop) k.longest_stop = strlen(rule.stop.item[i]);
    k.slot = xcalloc(slots, sizeof *k.slot);
    k.prompts = xcalloc((size_t)r->shape.prompt_slots, sizeof *k.prompts);
    k.active = xcalloc(slots, sizeof *k.active);
    k.host_i32 = xcalloc(slots * 7, sizeof *k.host_i32);
    int *started = xcalloc(slots, sizeof *started);
    for (size_t s = 0; s < slots; s++) k.slot[s].seq = -1;
    for (int s = 0; s < r->shape.prompt_slots; s++) k.prompts[s].prompt = -1;

    bool stopped = false;
    for (;;) {
        stopped = stop_requested();
        if (stopped) break;
        int n = admit(&k, started);
        if (n) start(&k, started, n);
        list_active(&k);
        if (k.n_active) step(&k);
        else if (!n) break; // nothing decodes and nothing could start: all done
    }
    for (size_t s = 0; s < slots; s++) str_free(&k.slot[s].text);
    free(k.slot);
    free(k.prompts);
    free(k.active);
    free(k.host_i32);
    free(started);
    return !stopped;
}
