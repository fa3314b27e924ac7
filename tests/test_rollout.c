// Decoding without the host: the op that moves rows on against a plain list of sequences; and a device with graphs, on
// which the host asks ahead: the same tokens, log-probs and texts, whatever ended a sequence.
#include "on_device.h"
#include "rollout_queue.h"
#include "train_fixture.h"

// ---- advance ------------------------------------------------------------------------------------------------------

enum { RING = 3, WIDTH = 9 };

typedef struct {
    int32_t ids, pos, kv_row, span[4], place, slot, seen[WIDTH], seen_len;
    int64_t key;
} Sequence;

typedef struct {
    Device *d;
    int slots;
    DecodeRows r;
    SampleOut given;
    Sequence *row; // [slots] what the rows should be; key < 0: idle
    int32_t *stop; // [slots]
    int drawn;     // rows of the ring written
    uint64_t random;
} Rows;

static int below(Rows *t, int n) {
    t->random = t->random * 6364136223846793005u + 1442695040888963407u;
    return (int)((t->random >> 33) % (uint64_t)n);
}

static Tensor fresh(Device *d, DType t, int64_t n, int64_t width) {
    Tensor x = tensor2(NULL, t, n, width);
    x.data = d->alloc(d, tensor_bytes(x));
    assert_non_null(x.data);
    return x;
}

static Tensor *columns(DecodeRows *r, int i) {
    Tensor *all[] = {&r->ids,  &r->pos,  &r->kv_row,   &r->span, &r->key,   &r->place,
                     &r->slot, &r->seen, &r->seen_len, &r->stop, &r->count, &r->drawn};
    return i < (int)(sizeof all / sizeof *all) ? all[i] : NULL;
}

// What the ring's column `k` is made from.
static Tensor *given(SampleOut *x, int k) {
    Tensor *all[] = {
        [DRAWN_TOKEN] = &x->token, [DRAWN_LOGP] = &x->logp, [DRAWN_LSE] = &x->lse, [DRAWN_ENTROPY] = &x->entropy};
    return all[k];
}

static Rows rows_open(Device *d, int slots, bool seen, uint64_t random) {
    Rows t = {.d = d, .slots = slots, .random = random};
    t.r = (DecodeRows){.ids = fresh(d, I32, slots, 1),
                       .pos = fresh(d, I32, slots, 1),
                       .kv_row = fresh(d, I32, slots, 1),
                       .span = fresh(d, I32, slots, 4),
                       .key = fresh(d, I64, slots, 1),
                       .place = fresh(d, I32, slots, 1),
                       .slot = fresh(d, I32, slots, 1),
                       .seen = seen ? fresh(d, I32, slots, WIDTH) : NONE,
                       .seen_len = seen ? fresh(d, I32, slots, 1) : NONE,
                       .stop = fresh(d, I32, slots, 1),
                       .count = fresh(d, I32, 2, 1),
                       .drawn = fresh(d, I32, RING, DRAWN_COUNT * slots)};
    t.r.drawn = tensor3(t.r.drawn.data, I32, RING, DRAWN_COUNT, slots);
    for (int k = DRAWN_TOKEN; k < DRAWN_COUNT; k++)
        *given(&t.given, k) = fresh(d, k == DRAWN_TOKEN ? I32 : F32, slots, 1);
    t.row = xcalloc((size_t)slots, sizeof *t.row);
    t.stop = xcalloc((size_t)slots, sizeof *t.stop);
    return t;
}

static void rows_close(Rows *t) {
    for (int i = 0; columns(&t->r, i); i++) {
        Tensor x = *columns(&t->r, i);
        if (present(x)) t->d->free(t->d, x.data, tensor_bytes(x));
    }
    for (int k = DRAWN_TOKEN; k < DRAWN_COUNT; k++)
        t->d->free(t->d, given(&t->given, k)->data, tensor_bytes(*given(&t->given, k)));
    free(t->row);
    free(t->stop);
}

static void rows_upload(Rows *t) {
    Tensor host[10];
    for (int i = 0; i < 10; i++) {
        host[i] = *columns(&t->r, i);
        if (present(host[i])) host[i].data = xcalloc(1, tensor_bytes(host[i]));
    }
    for (int j = 0; j < t->slots; j++) {
        const Sequence *s = &t->row[j];
        i32(host[0])[j] = s->ids;
        i32(host[1])[j] = s->pos;
        i32(host[2])[j] = s->kv_row;
        memcpy(i32(host[3]) + 4 * j, s->span, sizeof s->span);
        i64(host[4])[j] = s->key;
        i32(host[5])[j] = s->place;
        i32(host[6])[j] = s->slot;
        if (present(host[7])) memcpy(i32(host[7]) + j * WIDTH, s->seen, sizeof s->seen);
        if (present(host[8])) i32(host[8])[j] = s->seen_len;
        i32(host[9])[j] = t->stop[j];
    }
    for (int i = 0; i < 10; i++) {
        if (present(host[i])) t->d->copy(t->d, columns(&t->r, i)->data, host[i].data, tensor_bytes(host[i]));
        free(host[i].data);
    }
}

static const Sequence idle = {.kv_row = -1, .slot = -1, .key = -1};

// The first B rows: some idle, in any order; slots are a permutation.
static void rows_random(Rows *t, int B) {
    int shift = below(t, t->slots);
    for (int j = 0; j < t->slots; j++) {
        t->row[j] = idle;
        t->stop[j] = below(t, 5) == 0;
        if (j >= B || below(t, 3) == 0) continue;
        int place = below(t, 4), prompt = 1 + below(t, 3);
        t->row[j] = (Sequence){.ids = below(t, 40),
                               .pos = prompt + place - 1,
                               .kv_row = 100 * j + place,
                               .span = {7 * j, prompt, 100 * j, place},
                               .place = place,
                               .slot = (j + shift) % t->slots,
                               .key = ((int64_t)j << 33) + 5,
                               .seen_len = prompt + place};
        for (int i = 0; i < prompt + place; i++) t->row[j].seen[i] = below(t, 1000);
    }
}

static const EndRule ends = {.eos = {3, 11}, .n_eos = 2, .max_completion = 5};

static bool ended(const Rows *t, const Sequence *s) {
    return t->stop[s->slot] || s->place >= ends.max_completion || (s->place > 0 && (s->ids == 3 || s->ids == 11));
}

static void check_ring(const Rows *t, const int32_t *want) {
    Tensor ring = to_host(t->d, t->r.drawn), count = to_host(t->d, t->r.count);
    assert_int_equal(i32(count)[1], t->drawn);
    const int32_t *got = i32(ring) + (int64_t)((t->drawn - 1) % RING) * DRAWN_COUNT * t->slots;
    for (int i = 0; i < t->slots; i++)
        for (int k = 0; k < (want[i] < 0 ? 1 : DRAWN_COUNT); k++)
            assert_int_equal(got[k * t->slots + i], want[k * t->slots + i]);
    free(ring.data);
    free(count.data);
}

static void check_rows(Rows *t, int B, int live) {
    Tensor host[9];
    for (int i = 0; i < 9; i++) host[i] = present(*columns(&t->r, i)) ? to_host(t->d, *columns(&t->r, i)) : NONE;
    Tensor count = to_host(t->d, t->r.count);
    assert_int_equal(i32(count)[0], live);
    for (int j = 0; j < B; j++) {
        const Sequence *s = &t->row[j];
        assert_int_equal(i32(host[0])[j], s->ids);
        assert_int_equal(i32(host[1])[j], s->pos);
        assert_int_equal(i32(host[2])[j], s->kv_row);
        assert_memory_equal(i32(host[3]) + 4 * j, s->span, sizeof s->span);
        assert_true(i64(host[4])[j] == s->key);
        assert_int_equal(i32(host[5])[j], s->place);
        assert_int_equal(i32(host[6])[j], s->slot);
        if (!present(host[7])) continue;
        assert_int_equal(i32(host[8])[j], s->seen_len);
        assert_memory_equal(i32(host[7]) + j * WIDTH, s->seen, (size_t)s->seen_len * 4);
    }
    for (int i = 0; i < 9; i++) free(host[i].data);
    free(count.data);
}

// One call on the device and on the list: rows first .. first + n take a token each (n < 0: nobody does).
static void check_advance(Rows *t, int B, int first, int n) {
    int32_t *words = xcalloc((size_t)t->slots * DRAWN_COUNT, 4), *want = xcalloc((size_t)t->slots * DRAWN_COUNT, 4);
    const int32_t *token = words + DRAWN_TOKEN * t->slots;
    SampleOut in = {0};
    for (int k = DRAWN_TOKEN; k < DRAWN_COUNT; k++) {
        for (int i = 0; i < t->slots; i++) words[k * t->slots + i] = below(t, k == DRAWN_TOKEN ? 20 : 1 << 30);
        Tensor all = *given(&t->given, k);
        t->d->copy(t->d, all.data, words + k * t->slots, tensor_bytes(all));
        if (n >= 0) *given(&in, k) = tensor_rows(all, 0, n);
    }
    for (int i = 0; i < t->slots; i++) want[i] = -1;
    rows_upload(t);
    DecodeRows view = t->r;
    for (int i = 0; i < 9; i++)
        if (present(*columns(&view, i))) *columns(&view, i) = tensor_rows(*columns(&view, i), 0, B);
    t->d->advance(t->d, view, in, first, ends);
    int live = 0;
    for (int j = 0; j < B; j++) {
        Sequence s = t->row[j];
        int i = j - first;
        if (s.key < 0) continue;
        if (i >= 0 && i < n) {
            want[i] = s.slot;
            for (int k = DRAWN_TOKEN; k < DRAWN_COUNT; k++) want[k * t->slots + i] = words[k * t->slots + i];
            s.ids = token[i];
            s.pos++, s.kv_row++, s.span[3]++, s.place++;
            s.seen[s.seen_len++] = token[i];
        }
        if (!ended(t, &s)) t->row[live++] = s;
    }
    for (int j = live; j < B; j++) t->row[j] = idle;
    if (n >= 0) t->drawn++;
    check_rows(t, B, live);
    if (n >= 0) check_ring(t, want);
    free(words);
    free(want);
}

static void rows_advance(void **state) {
    Device *d = test_device(2);
    const int slots[] = {1, 5, 64, 1500}; // more than a block holds
    for (int k = 0; k < 8; k++) {
        int n = slots[k / 2];
        Rows t = rows_open(d, n, k % 2, 17 + (uint64_t)k);
        for (int turn = 0; turn < (n > 64 ? 4 : 12); turn++) {
            int B = turn % 3 ? n : 1 + below(&t, n), first = turn % 2 ? 0 : below(&t, B);
            rows_random(&t, B);
            check_advance(&t, B, first, turn % 4 == 3 ? -1 : B - first);
            check_advance(&t, B, 0, B); // from where the last one left it
        }
        rows_close(&t);
    }
    assert_int_equal(d->scratch.used, 0);
    device_close(d);
}

// ---- a device that runs ahead -------------------------------------------------------------------------------------

// The CPU, pretending to have graphs: while one is recorded no op does anything, and as no recording comes of it the
// steps run as plain calls. What is tested is the host, which asks for bursts ahead of what it has read.
static Device real;
static int recordings;
#define NOTHING(name, args)                                                                                            \
    static void nothing_##name args {}
OPS(NOTHING)
static void record(Device *d, Tensor constant) {
    recordings++;
#define SET_NOTHING(name, args) d->name = nothing_##name;
    OPS(SET_NOTHING)
}
static Graph *no_recording(Device *d) {
#define SET_REAL(name, args) d->name = real.name;
    OPS(SET_REAL)
    return NULL;
}
static void graph_never(Device *d, Graph *g) { fail(); }

typedef struct {
    int32_t *ids;
    float *logp, *lse, *entropy;
    int *len;
    Finish *finish;
    char **text;
    int n, finished[4], nuls;
} Drawn;

typedef struct {
    const Batch *b;
    Str *text; // [n] as it came
    int done, nuls;
} Watched;
static void watch_text(void *arg, int i, const char *bytes, size_t n) { str_add(&((Watched *)arg)->text[i], bytes, n); }
static void watch_done(void *arg, int i) {
    Watched *w = arg;
    assert_int_equal(w->b->state[i], SEQ_DECODED);
    const char *kept = w->b->text[i];
    for (size_t at = 0; at < w->text[i].n; at++) { // every byte is kept, and a NUL hides none that follow
        bool nul = !w->text[i].s[at];
        assert_memory_equal(kept, nul ? "\xef\xbf\xbd" : w->text[i].s + at, nul ? 3 : 1);
        kept += nul ? 3 : 1;
        w->nuls += nul;
    }
    assert_int_equal(*kept, 0);
    w->done++;
}

// A text ends before the first stop string in what its tokens say, or by option after it, which is there exactly where
// one ended it.
static int by_special;
static void assert_stopped_first(const Fixture *f, const Batch *b, int i) {
    Str all = {0};
    const Tokenizer *t = f->t.learner.engine.tokenizer;
    tokenizer_decode(t, b->ids + (size_t)i * (size_t)b->max_completion, (size_t)b->len[i], true, &all);
    const char *first = NULL;
    size_t kept = 0;
    for (int k = 0; all.n && k < f->cfg.stop.n; k++) {
        const char *hit = memmem(all.s, all.n, f->cfg.stop.item[k], strlen(f->cfg.stop.item[k]));
        size_t length = strlen(f->cfg.stop.item[k]);
        if (hit && (!first || hit < first || (hit == first && length < kept))) first = hit, kept = length;
    }
    if (first && f->cfg.include_stop) first += kept;
    // A special token is in no text: a stop string that is one ends the text at its id.
    const int32_t *ids = b->ids + (size_t)i * (size_t)b->max_completion, special = tokenizer_id(t, "<|im_start|>");
    bool named = f->cfg.stop.n && !strcmp(f->cfg.stop.item[0], "<|im_start|>");
    for (int n = 0; named && n + 1 < b->len[i]; n++) assert_int_not_equal(ids[n], special);
    if (named && !first && ids[b->len[i] - 1] == special) {
        str_puts(&all, f->cfg.include_stop ? "<|im_start|>" : "");
        first = all.s + all.n;
        by_special++;
    }
    assert_int_equal(first != NULL, b->finish[i] == FINISH_STOP);
    size_t said = 0; // bytes of the text, where a NUL is three
    for (const char *p = all.s; first && p < first; p++) said += *p ? 1 : 3;
    if (first) assert_int_equal(strlen(b->text[i]), said);
    str_free(&all);
}

static Drawn decode(Fixture *f) {
    Trainer *t = &f->t;
    Batch *b = &t->generation.batch;
    Error e = {0};
    batch_clear(b);
    mix_seek(t->questions.data, &(MixCursor){0});
    for (int p = 0; p < b->prompts; p++)
        assert_true(prompter_next(&t->questions.prompter, t->questions.data, b, p, &e));
    for (int i = 0; i < b->n; i++) b->key[i] = i;
    Watched w = {b, xcalloc((size_t)b->n, sizeof *w.text), 0, 0};
    if (!rollout_run(&t->learner.engine.rollout, t->learner.engine.device, &t->learner.engine.policy,
                     t->learner.engine.tokenizer, engine_stop_rule(&t->learner.engine), sample_params(&f->cfg), b,
                     (RolloutWatch){watch_text, watch_done, &w}, &e))
        fail_msg("%s", e.text);
    assert_int_equal(w.done, b->n);
    Drawn x = {.n = b->n, .nuls = w.nuls};
    size_t tokens = (size_t)b->n * (size_t)b->max_completion;
    x.ids = memcpy(xmalloc(tokens * 4), b->ids, tokens * 4);
    x.logp = memcpy(xmalloc(tokens * 4), b->logp, tokens * 4);
    x.lse = memcpy(xmalloc(tokens * 4), b->lse, tokens * 4);
    x.entropy = memcpy(xmalloc(tokens * 4), b->entropy, tokens * 4);
    x.len = memcpy(xmalloc((size_t)b->n * sizeof(int)), b->len, (size_t)b->n * sizeof(int));
    x.finish = memcpy(xmalloc((size_t)b->n * sizeof(Finish)), b->finish, (size_t)b->n * sizeof(Finish));
    x.text = xcalloc((size_t)b->n, sizeof *x.text);
    for (int i = 0; i < b->n; i++) {
        assert_stopped_first(f, b, i);
        x.text[i] = xstrdup(b->text[i]);
        x.finished[b->finish[i]]++;
        str_free(&w.text[i]);
    }
    free(w.text);
    return x;
}
static void drawn_free(Drawn *x) {
    for (int i = 0; i < x->n; i++) free(x->text[i]);
    free(x->ids), free(x->logp), free(x->lse), free(x->entropy), free(x->len), free(x->finish), free(x->text);
}

static void assert_same(const Drawn *a, const Drawn *b, int width) {
    for (int i = 0; i < a->n; i++) {
        assert_int_equal(a->len[i], b->len[i]);
        assert_int_equal(a->finish[i], b->finish[i]);
        assert_string_equal(a->text[i], b->text[i]);
        assert_memory_equal(a->ids + i * width, b->ids + i * width, (size_t)a->len[i] * 4);
        assert_memory_equal(a->logp + i * width, b->logp + i * width, (size_t)a->len[i] * 4);
        assert_memory_equal(a->lse + i * width, b->lse + i * width, (size_t)a->len[i] * 4);
        assert_memory_equal(a->entropy + i * width, b->entropy + i * width, (size_t)a->len[i] * 4);
    }
}

static void asking_ahead_changes_nothing(void **state) {
    const char *const variants[] = {"",
                                    "stop=a,in,</ repetition_penalty=1.3",
                                    "rollout_batch=3 stop=e,t",
                                    "rollout_batch=7 repetition_penalty=1.2 top_k=20",
                                    "max_completion_length=1",
                                    "stop=a,in,</ include_stop=true",
                                    "stop=<|im_start|> temperature=4",
                                    "stop=<|im_start|>,e temperature=4 include_stop=true"};
    Fixture f;
    int nuls = 0;
    fixture_dir(&f);
    for (int v = 0; v < 8; v++) {
        char more[256];
        by_special = 0;
        snprintf(more, sizeof more,
                 "device=cpu max_completion_length=30 per_device_train_batch_size=16 temperature=1.3 %s", variants[v]);
        fixture_open(&f, more);
        Drawn plain = decode(&f), ahead;
        fixture_close(&f);
        fixture_open(&f, more);
        Device *d = f.t.learner.engine.device;
        real = *d;
        recordings = 0;
        d->graph_begin = record;
        d->graph_end = no_recording;
        d->graph_run = d->graph_free = graph_never;
        for (int again = 0; again < 2; again++) { // the second finds what the first left
            ahead = decode(&f);
            assert_same(&plain, &ahead, (int)f.cfg.max_completion_length);
            drawn_free(&ahead);
        }
        assert_true(recordings > 0 || f.cfg.max_completion_length == 1);
        if (*variants[v] == 's' || v == 2) assert_true(plain.finished[FINISH_STOP] > 0);
        assert_true(by_special > 0 || v < 6);
        nuls += plain.nuls;
        drawn_free(&plain);
        fixture_close(&f);
    }
    assert_true(nuls > 0); // some texts had one
    fixture_remove(&f);
}

// The sizes of recordings: room for all rows, few idle, not too many recordings, and always the same rows for one.
static void recordings_are_few(void **state) {
    static const int slots[] = {1, 5, 31, 32, 33, 100, 256, 257, 1088, 1089, 4096, 100000};
    for (size_t s = 0; s < sizeof slots / sizeof *slots; s++) {
        int rows_of[40] = {0}, before = 0;
        for (int rows = 1; rows <= slots[s]; rows++) {
            int n = 0, size = decode_size(rows, slots[s], &n);
            assert_true(size >= before && size <= 39);
            assert_true(n >= rows && n <= slots[s]);
            assert_true(!rows_of[size] || rows_of[size] == n);
            if (slots[s] <= 1088) assert_true(rows <= 32 ? n < 2 * rows : n < rows + 32);
            rows_of[before = size] = n;
        }
        assert_int_equal(rows_of[before], slots[s]);
    }
}

// A failing device ends a rollout with its error, and a signal with EXIT_STOPPED.
static void failing_sample(Device *d, SampleOut to, Tensor x, Tensor w, Tensor key, Tensor pos, Tensor seen,
                           Tensor seen_len, SampleParams p) {
    snprintf(d->error, sizeof d->error, "sample_kernel: it did not start");
    d->error_code = EXIT_COMM;
}
static void failures_are_said(void **state) {
    Fixture f;
    Error e = {0};
    fixture_dir(&f);
    fixture_open(&f, "");
    Device *d = f.t.learner.engine.device;
    real = *d;
    d->sample = failing_sample;
    assert_int_equal(grpo_step(&f.t, &e), STEP_FAILED);
    assert_int_equal(e.code, EXIT_COMM);
    assert_non_null(strstr(e.text, "sample_kernel: it did not start"));
    fixture_close(&f);
    fixture_remove(&f);
}

// A prompt is run once for all its completions: training's, and the several samples of eval and select, whose batches
// have them as groups. Attention over packed rows is that of prompts alone here.
static int64_t prompt_rows;
static void counted_attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv) {
    prompt_rows += y.dim[0];
    real.attention(d, y, lse, qkv, seq, prefix, n_kv);
}
static void a_prompt_is_run_once(void **state) {
    Fixture f;
    fixture_dir(&f);
    for (int slots = 3; slots <= 64; slots += 61) { // fewer than completions, or more
        char more[80];
        snprintf(more, sizeof more, "num_generations=8 per_device_train_batch_size=16 rollout_batch=%d", slots);
        fixture_open(&f, more);
        Device *d = f.t.learner.engine.device;
        real = *d;
        d->attention = counted_attention;
        prompt_rows = 0;
        Drawn x = decode(&f);
        const Batch *b = &f.t.generation.batch;
        int64_t want = 0;
        for (int p = 0; p < b->prompts; p++) want += (int64_t)b->prompt[p].n;
        assert_true(b->prompts > 1 && b->group == 8);
        assert_int_equal(prompt_rows, want * f.t.learner.engine.policy.dims.L);
        drawn_free(&x);
        fixture_close(&f);
    }
    fixture_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_advance),
        cmocka_unit_test(a_prompt_is_run_once),
        cmocka_unit_test(asking_ahead_changes_nothing),
        cmocka_unit_test(failures_are_said),
        cmocka_unit_test(recordings_are_few),
    };
    return cmocka_run_group_tests_name("rollout", tests, NULL, NULL);
}
