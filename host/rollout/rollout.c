// Rollout: continuous batching over a KV cache. A sequence takes a slot, waits until its prompt is prefilled, draws a
// token in each step, and leaves; the next queued sequence takes its slot. The device runs ahead (rollout_queue.c);
// here its tokens become text, and the text decides which sequences go on.
#include "device.h"
#include "rollout_queue.h"
#include "signals.h"
#include <stdlib.h>

RolloutShape rollout_shape(int slots, int prompts, int max_prompt, int max_completion) {
    int prefill = max_prompt > 1024 ? max_prompt : 1024;
    return (RolloutShape){slots, prompts < slots ? prompts : slots, max_prompt, max_completion, prefill};
}

Rollout rollout_carve(Arena *a, ModelDims n, DType t, RolloutShape s) {
    Rollout r = {.shape = s};
    int64_t rows = (int64_t)s.prompt_slots * s.max_prompt + (int64_t)s.slots * s.max_completion;
    r.cache = kv_carve(a, n, t, rows);
    r.prefill = activations_carve(a, n, t, s.prefill_tokens, KEEP_NOTHING);
    r.decode = activations_carve(a, n, t, s.slots, KEEP_NOTHING);
    r.ids = arena_new(a, I32, s.prefill_tokens);
    r.pos = arena_new(a, I32, s.prefill_tokens);
    r.kv_row = arena_new(a, I32, s.prefill_tokens);
    r.seq = arena_new(a, I32, s.prompt_slots + 1);
    r.prompt_hidden = arena_new(a, t, s.prompt_slots, n.D);
    r.hidden = arena_new(a, t, s.slots, n.D);
    r.from = arena_new(a, I32, s.slots);
    r.drawn = (SampleOut){.token = arena_new(a, I32, s.slots),
                          .logp = arena_new(a, F32, s.slots),
                          .lse = arena_new(a, F32, s.slots),
                          .entropy = arena_new(a, F32, s.slots)};
    r.rows = (DecodeRows){.ids = arena_new(a, I32, s.slots),
                          .pos = arena_new(a, I32, s.slots),
                          .kv_row = arena_new(a, I32, s.slots),
                          .span = arena_new(a, I32, s.slots, 4),
                          .key = arena_new(a, I64, s.slots),
                          .place = arena_new(a, I32, s.slots),
                          .slot = arena_new(a, I32, s.slots),
                          .seen = arena_new(a, I32, s.slots, s.max_prompt + s.max_completion),
                          .seen_len = arena_new(a, I32, s.slots),
                          .stop = arena_new(a, I32, s.slots),
                          .count = arena_new(a, I32, 2),
                          .drawn = rollout_ring(a, s.slots)};
    return r;
}

void rollout_free(Rollout *r) {
    activations_free(&r->prefill);
    activations_free(&r->decode);
    queue_free(r->queue);
    r->queue = NULL;
}

typedef struct {
    int seq;         // index in the batch; -1: free
    int prompt_slot; // the prompt slot with its prompt's keys and values
    int64_t burst;   // the first burst that runs it
    int asked;       // tokens drawn, and to be drawn by bursts not taken yet
    Str text;        // decoded so far
    size_t shown;    // how many bytes of it watch.text has got
    Utf8Pending pending;
} Slot;

typedef struct {
    int prompt; // index in the batch; -1: free
    int users;  // how many slots use it
} PromptSlot;

// The state of the loop of one rollout.
typedef struct {
    Rollout *r;
    RolloutQueue *queue;
    const Tokenizer *tok;
    StopRule rule;
    Batch *b;
    RolloutWatch watch;
    int32_t *stop_id;     // [rule.stop.n] of a stop string that is a special token; else -1
    size_t longest_stop;  // bytes: so much at the end of a text may still be taken back
    Slot *slot;           // [slots]
    PromptSlot *prompts;  // [prompt_slots]
    int next;             // the first sequence that has not had a slot
    int busy;             // slots in use
    NewSequence *started; // [slots]
    NewSequence *fresh;   // [prompt_slots] those whose prompt is not in the cache yet
    int *ended, n_ended;  // [slots] slots of sequences that have ended without the device knowing it
    int64_t begun, taken; // bursts begun and taken so far
} Loop;

// The prompt slot that holds prompt p; or one to prefill it into, with *fresh set; or -1 where all are in use.
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

// Gives free slots to queued sequences, as many as one prefill takes (*more: others wait for the next). Returns how
// many; they are in started[], those whose prompt must be prefilled also in fresh[].
static int admit(Loop *k, int *n_fresh, bool *more) {
    const Batch *b = k->b;
    int n = 0, tokens = 0;
    *n_fresh = 0;
    *more = false;
    for (int s = 0; s < k->r->shape.slots && k->next < b->n; s++) {
        Slot *slot = &k->slot[s];
        if (slot->seq >= 0) continue;
        while (k->next < b->n && b->state[k->next] != SEQ_QUEUED) k->next++;
        if (k->next >= b->n) break;
        const Ids *prompt = &b->prompt[k->next / b->group];
        bool fresh = false;
        int at = prompt_slot_for(k, k->next / b->group, &fresh);
        if (at < 0) break;
        if (fresh && tokens + (int)prompt->n > k->r->shape.prefill_tokens) {
            k->prompts[at].prompt = -1;
            *more = true;
            break;
        }
        k->started[n] = (NewSequence){s, at, prompt, b->key[k->next]};
        if (fresh) {
            tokens += (int)prompt->n;
            k->fresh[(*n_fresh)++] = k->started[n];
        }
        n++;
        k->prompts[at].users++;
        slot->seq = k->next++;
        slot->prompt_slot = at;
        slot->burst = k->begun;
        slot->asked = 1;
        slot->pending = (Utf8Pending){0};
        str_clear(&slot->text);
        slot->shown = 0;
        b->state[slot->seq] = SEQ_DECODING;
    }
    return n;
}

static void show(Loop *k, Slot *slot, size_t upto) {
    if (k->watch.text && upto > slot->shown)
        k->watch.text(k->watch.arg, slot->seq, slot->text.s + slot->shown, upto - slot->shown);
    if (upto > slot->shown) slot->shown = upto;
}

// A copy of a text (heap) with NULs replaced by U+FFFD: a NUL would end the C string, and hide the rest from rewards
// and logs.
static char *text_keep(const char *text, size_t n) {
    Str s = {0};
    for (size_t at = 0, run; at < n; at += run + 1) {
        run = strnlen(text + at, n - at);
        str_add(&s, text + at, run);
        if (at + run < n) str_puts(&s, "\xef\xbf\xbd");
    }
    return s.s ? s.s : xstrdup("");
}

static void finish(Loop *k, int s, Finish why, size_t text_len) {
    Slot *slot = &k->slot[s];
    Batch *b = k->b;
    int i = slot->seq;
    show(k, slot, text_len);
    b->finish[i] = why;
    b->text[i] = text_keep(slot->text.s, text_len);
    b->state[i] = SEQ_DECODED;
    k->prompts[slot->prompt_slot].users--;
    slot->seq = -1;
    k->busy--;
    if (k->watch.done) k->watch.done(k->watch.arg, i);
}

int64_t stop_end(const StopRule *rule, const char *text, size_t n, size_t fresh) {
    const char *first = NULL;
    size_t length = 0;
    for (int i = 0; i < rule->stop.n; i++) {
        const char *string = rule->stop.item[i];
        size_t len = strlen(string), back = fresh + len, from = n > back ? n - back : 0;
        const char *hit = len && n ? memmem(text + from, n - from, string, len) : NULL;
        if (!hit || (first && (hit > first || (hit == first && len >= length)))) continue;
        first = hit; // of two that begin there, the shorter ended the text
        length = len;
    }
    return first ? first - text + (rule->include_stop ? (int64_t)length : 0) : -1;
}

// Takes in the token that column j of the row has for slot s, and ends the sequence if it is the last.
static void push(Loop *k, int s, const DrawnRow *row, int j) {
    Slot *slot = &k->slot[s];
    Batch *b = k->b;
    int i = slot->seq, n = b->len[i]++;
    int32_t token = row->token[j];
    size_t at = (size_t)i * (size_t)b->max_completion + (size_t)n;
    b->ids[at] = token;
    b->logp[at] = row->logp[j];
    b->lse[at] = row->lse[j];
    b->entropy[at] = row->entropy[j];
    size_t before = slot->text.n;
    tokenizer_stream(k->tok, token, true, &slot->pending, &slot->text);
    bool last = n + 1 == b->max_completion, eos = false, named = false;
    for (int e = 0; e < k->rule.n_eos; e++) eos |= token == k->rule.eos[e];
    for (int e = 0; e < k->rule.stop.n; e++) named |= token == k->stop_id[e];
    if (eos || last || named) tokenizer_stream_flush(&slot->pending, &slot->text);
    int64_t stop = stop_end(&k->rule, slot->text.s, slot->text.n, slot->text.n - before);
    if (stop < 0 && named) {
        if (k->rule.include_stop) tokenizer_stream(k->tok, token, false, &slot->pending, &slot->text);
        stop = (int64_t)slot->text.n;
    }
    if (stop >= 0) {
        if (!eos && !last) k->ended[k->n_ended++] = s; // only the host knows
        finish(k, s, FINISH_STOP, (size_t)stop);
    } else if (eos) finish(k, s, FINISH_EOS, slot->text.n);
    else if (last) finish(k, s, FINISH_LENGTH, slot->text.n);
    else if (slot->text.n > k->longest_stop) show(k, slot, slot->text.n - k->longest_stop);
}

// How many decode steps are worth starting: no more than the longest that any sequence still needs.
static int steps_ahead(Loop *k) {
    int most = 0;
    for (int s = 0; s < k->r->shape.slots; s++) {
        int left = k->slot[s].seq >= 0 ? k->b->max_completion - k->slot[s].asked : 0;
        if (left > most) most = left;
    }
    int limit = queue_steps_limit(k->queue);
    return most < limit ? most : limit;
}

// Starts a burst: new sequences, then steps of all. False where there is nothing to do.
static bool ask(Loop *k) {
    int n_fresh, first = k->busy;
    bool more;
    int n = admit(k, &n_fresh, &more);
    k->busy += n;
    // No steps while more prompts wait for a prefill; nor, on a device without a queue, before it is known which
    // sequences ended with their first token.
    int steps = n && (more || queue_depth(k->queue) == 0) ? 0 : steps_ahead(k);
    if (!n && !steps) return false;
    queue_begin(k->queue);
    if (k->n_ended) queue_stop(k->queue, k->ended, k->n_ended);
    k->n_ended = 0;
    if (n_fresh) queue_prefill(k->queue, k->fresh, n_fresh);
    if (n) queue_start(k->queue, k->started, n, first);
    queue_decode(k->queue, k->busy, steps);
    queue_end(k->queue);
    for (int s = 0; s < k->r->shape.slots; s++) k->slot[s].asked += steps;
    k->begun++;
    return true;
}

// Takes in what the oldest burst drew. Tokens of a sequence that has ended, or that had the slot before, are dropped:
// the device ran ahead of the text.
static void take(Loop *k) {
    int64_t burst = k->taken++;
    int rows = queue_take(k->queue);
    for (int i = 0; i < rows; i++) {
        DrawnRow row = queue_drawn(k->queue, i);
        for (int j = 0; j < row.n; j++) {
            int s = row.slot[j];
            if (s >= 0 && k->slot[s].seq >= 0 && k->slot[s].burst <= burst) push(k, s, &row, j);
        }
    }
}

bool rollout_run(Rollout *r, Device *d, const Model *m, const Tokenizer *t, StopRule rule, SampleParams params,
                 Batch *b, RolloutWatch watch, Error *e) {
    size_t slots = (size_t)r->shape.slots;
    Loop k = {.r = r, .tok = t, .rule = rule, .b = b, .watch = watch};
    EndRule end = {.n_eos = rule.n_eos, .max_completion = b->max_completion};
    if (rule.n_eos > MAX_EOS) die("rollout: %d ids end a sequence, at most %d can", rule.n_eos, MAX_EOS);
    memcpy(end.eos, rule.eos, (size_t)rule.n_eos * sizeof *end.eos);
    k.queue = queue_open(r, d, m, params, end, e);
    if (!k.queue) return false;
    k.stop_id = xcalloc((size_t)rule.stop.n, sizeof *k.stop_id);
    for (int i = 0; i < rule.stop.n; i++) {
        if (strlen(rule.stop.item[i]) > k.longest_stop) k.longest_stop = strlen(rule.stop.item[i]);
        k.stop_id[i] = tokenizer_special_id(t, rule.stop.item[i]);
    }
    k.slot = xcalloc(slots, sizeof *k.slot);
    k.prompts = xcalloc((size_t)r->shape.prompt_slots, sizeof *k.prompts);
    k.started = xcalloc(slots, sizeof *k.started);
    k.fresh = xcalloc((size_t)r->shape.prompt_slots, sizeof *k.fresh);
    k.ended = xcalloc(slots, sizeof *k.ended);
    for (size_t s = 0; s < slots; s++) k.slot[s].seq = -1;
    for (int s = 0; s < r->shape.prompt_slots; s++) k.prompts[s].prompt = -1;

    bool stopped = false;
    for (;;) {
        stopped = stop_requested() != 0;
        if (stopped || d->error[0]) break;
        bool asked = ask(&k);
        if (!asked && !queue_length(k.queue)) break; // nothing decodes and nothing could start: done
        while (queue_length(k.queue) > (asked ? queue_depth(k.queue) : 0)) take(&k);
    }
    d->sync(d); // bursts that are no longer waited for still use host memory
    for (size_t s = 0; s < slots; s++) str_free(&k.slot[s].text);
    free(k.stop_id);
    free(k.slot);
    free(k.prompts);
    free(k.started);
    free(k.fresh);
    free(k.ended);
    return device_ok(d, e) && (!stopped || error_set(e, EXIT_STOPPED, "stopped by a signal"));
}

bool rollout_finite(const Batch *b, Error *e) {
    int i, j;
    return !batch_bad_logp(b, &i, &j) ||
           error_set(e, EXIT_NUMERIC,
                     "the log-prob of token %d of completion %d is not finite: the weights are damaged, or of a run "
                     "that diverged; load=strict names the first bad tensor in the file",
                     j, i);
}

SampleParams sample_params(const Config *c) {
    return (SampleParams){.temperature = (float)c->temperature,
                          .top_k = (int)c->top_k,
                          .top_p = (float)c->top_p,
                          .min_p = (float)c->min_p,
                          .repetition_penalty = (float)c->repetition_penalty,
                          .seed = (uint64_t)c->seed};
}
