// What rejection sampling and reward models cost beside what they are made of: `select` beside the bare rollout,
// scoring by a reward model beside the bare forward pass of the same tokens.
#include "train_commands.h"
#include "bench_model.h"
#include "by_model.h"
#include "clock.h"
#include "micro.h"
#include "model_init.h"
#include "outdir.h"
#include "reward_set.h"
#include "scored_text.h"
#include "select.h"
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// ---- scoring --------------------------------------------------------------------------------------------------------

enum { TEXTS = 16, PASS = 8 /* texts of a bare pass */, PASS_TOKENS = 3000 };

// Texts to score: of so many tokens each, or completions of a few questions, eight of each.
typedef struct {
    const char *what;
    int question, shortest, longest; // tokens of a question (0: each text has its own) and of what is added
    bool alone;                      // beside the bare pass of the same tokens
} Texts;
static const Texts texts[] = {{"16 texts of 256 tokens", 0, 256, 256, true},
                              {"2 x 8 completions of 100-200 after 150", 150, 100, 200, false}};

// A reward model and texts for it; or the forward passes that their tokens need, and nothing else.
typedef struct {
    ByModel model;
    Sample sample[TEXTS];
    float score[TEXTS];
    // The bare pass.
    Device *device;
    Packing packing; // of a pass
    Activations acts;
    Tensor ids, pos, seq, prefix, out; // [T] [T] [P+1] [P] I32; [T,1] F32
    bool bare;
} Scoring;

static void score(void *arg, int i) {
    Scoring *s = arg;
    Device *d = s->device;
    Error e = {0};
    if (!s->bare) {
        if (!s->model.kind->score(&s->model, d, s->sample, TEXTS, s->score, &e)) die("bench: %s", e.text);
        return;
    }
    for (int done = 0; done < TEXTS; done += PASS) {
        model_forward(d, &s->model.model, &s->acts, (Packed){s->ids, s->pos, s->seq, s->prefix}, NULL, NONE);
        d->matmul(d, s->out, s->acts.out, s->model.model.head);
    }
}

// n digits, each of which is a token.
static char *digits(int n, int seed) {
    char *text = xcalloc((size_t)n + 1, 1);
    for (int k = 0; k < n; k++) text[k] = (char)('0' + (7 * seed + k * k + 3 * k) % 10);
    return text;
}

static void make_texts(Scoring *s, const Texts *t, const ScoredText *how, Ids ids[TEXTS]) {
    Error e = {0};
    for (int i = 0; i < TEXTS; i++) {
        int n = t->shortest + 37 * i % (t->longest - t->shortest + 1);
        s->sample[i] = (Sample){.prompt = digits(t->question, 1 + i / 8),
                                .completion = digits(n, 100 + i),
                                .completion_len = (size_t)n,
                                .group = t->question ? i / 8 : i};
        ids_clear(&ids[i]);
        if (!scored_text_ids(how, s->sample[i].prompt, (Text){s->sample[i].completion, (size_t)n}, &ids[i], &e))
            die("bench: %s", e.text);
    }
}

static void upload(Device *d, Tensor to, const void *from) { d->copy(d, to.data, from, tensor_bytes(to)); }

// Takes the memory of the model and of both ways; random weights.
static void *open_scoring(Scoring *s, Device *d, DType dtype, const Ids ids[TEXTS], size_t *bytes) {
    s->packing = packing_new(PASS_TOKENS, PASS);
    for (int i = 0; i < PASS; i++) {
        Ids own = {0};
        for (size_t k = 0; k < ids[i].n; k++) ids_add(&own, ids[i].id[k]);
        ids_add(&own, 0); // a packing's last id is only a target
        if (!packing_prefix(&s->packing, NULL, 0) ||
            !packing_add(&s->packing, own.id, (int64_t)own.n, (int64_t)own.n - 1, NULL))
            die("bench: a text does not fit");
        ids_free(&own);
    }
    int64_t T = s->packing.T, P = s->packing.P;
    void *base = NULL;
    for (int pass = 0; pass < 2; pass++) {
        Arena a = pass ? arena_over(base, *bytes) : arena_measure();
        model_free(&s->model.model);
        activations_free(&s->acts);
        s->model.model = model_carve(&a, s->model.hf.dims, dtype);
        s->model.kind->carve_work(&s->model, &a);
        s->acts = activations_carve(&a, s->model.hf.dims, dtype, T, KEEP_NOTHING);
        s->ids = arena_new(&a, I32, T), s->pos = arena_new(&a, I32, T);
        s->seq = arena_new(&a, I32, P + 1), s->prefix = arena_new(&a, I32, P);
        s->out = arena_new(&a, F32, T, 1);
        if (!pass && !(base = d->alloc(d, *bytes = a.peak))) die("bench: no memory for %zu bytes", a.peak);
    }
    model_init_random(d, &s->model.model, 1);
    upload(d, s->ids, s->packing.ids), upload(d, s->pos, s->packing.pos);
    upload(d, s->seq, s->packing.seq), upload(d, s->prefix, s->packing.prefix);
    return base;
}

static void measure_scoring(Bench *b, Shape shape, DType dtype, const Texts *t) {
    char name[80];
    snprintf(name, sizeof name, "reward model %s, %s, %s", shape_name[shape], t->what, dtype_name(dtype));
    if (!bench_wants(b, name)) return;
    Error e = {0};
    char *dir = shape_directory(shape), *tokenizer = xasprintf("%s/tokenizer.json", dir ? dir : "models/tiny");
    char *tiny = realpath("models/tiny/tokenizer.json", NULL);
    if (dir && (!tiny || symlink(tiny, tokenizer))) die("bench: cannot make %s", tokenizer);
    free(tiny);
    char *options[] = {xasprintf("rewards=reward_model:model=%s,chat_template=raw,batch_tokens=%d",
                                 dir ? dir : "models/tiny", PASS_TOKENS)};
    Config c;
    Rewards rw;
    if (!config_read(&c, NULL, options, 1, &e) || !rewards_select(&c, &rw, &e)) die("bench: %s", e.text);
    Scoring s = {.model = {.kind = &score_model,
                           .reward = &rw.reward[0],
                           .dtype = dtype,
                           .unmade = true,
                           .dir = dir ? dir : "models/tiny"},
                 .device = b->device};
    ScoredText how;
    Ids ids[TEXTS] = {0};
    ByModel *m = &s.model;
    if (!hf_config_read(m->dir, &m->hf, &e) || !(m->tokenizer = tokenizer_load(m->dir, &e)) ||
        !m->kind->describe(m, &e) || !scored_text_open(&how, "raw", m->dir, &m->hf, m->tokenizer, &e))
        die("bench: %s", e.text);
    make_texts(&s, t, &how, ids);
    size_t bytes;
    void *base = open_scoring(&s, b->device, dtype, ids, &bytes);
    Scoring bare = s;
    bare.bare = true;
    double seconds[2];
    bench_time_both(b, score, (void *[]){&s, &bare}, seconds);
    bench_row(b, name, TEXTS / seconds[0], "texts/s", t->alone ? TEXTS / seconds[1] : 0, t->alone ? 0.87 : 0);
    for (int i = 0; i < TEXTS; i++)
        ids_free(&ids[i]), free((char *)s.sample[i].completion), free((char *)s.sample[i].prompt);
    packing_free(&s.packing);
    activations_free(&s.acts);
    m->kind->close(m);
    model_free(&m->model);
    tokenizer_free(m->tokenizer);
    b->device->free(b->device, base, bytes);
    config_free(&c);
    if (dir) unlink(tokenizer);
    shape_directory_remove(dir);
    free(tokenizer), free(options[0]);
}

// ---- rejection sampling ---------------------------------------------------------------------------------------------

enum {
    SLOTS = 32,
    GROUP = 8,
    PROMPT = 64,
    LENGTH = 16,
    CHUNK = 4 * SLOTS / GROUP /* questions, as select takes them */
};

// Seconds of `grpo select` with so many questions, in a process's own words that go nowhere.
static double select_seconds(const Bench *b, const char *dir, const char *file, int questions) {
    char *out = xasprintf("%s/selected", dir),
         *text = xasprintf(
             "device=%s model=%s/model tokenizer=models/tiny raw=true train_file=%s select_output=%s "
             "select_samples=%d select_limit=%d max_prompt_length=%d max_completion_length=%d rollout_batch=%d "
             "rewards=completion_length select_rules=completion_length:min=-9999 temperature=0.9",
             b->device->name, dir, file, out, GROUP, questions, PROMPT, LENGTH, SLOTS);
    char *argv[32];
    int argc = 0;
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    fflush(stdout);
    int old[2] = {dup(1), dup(2)}, nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, 1), dup2(nowhere, 2);
    Error e = {0};
    double start = clock_seconds();
    ExitCode code = command_select(argc, argv, &e);
    double seconds = clock_seconds() - start;
    dup2(old[0], 1), dup2(old[1], 2);
    close(old[0]), close(old[1]), close(nowhere);
    if ((code != EXIT_OK && code != EXIT_INPUT) || !disk_remove(out, &e)) // EXIT_INPUT: it kept nothing
        die("bench: select: %s", e.text);
    free(out), free(text);
    return seconds;
}

// Seconds of the bare rollout; saves the model it ran as dir/model, if it is not there.
static double bare_seconds(const Bench *b, Shape shape, const char *dir) {
    Error e = {0};
    BenchModel m;
    bench_model_open(b, &m, shape, BF16, (RunShape){.rollout = rollout_shape(SLOTS, SLOTS, PROMPT, LENGTH)});
    Engine *en = &m.learner.engine;
    double seconds = rollout_seconds(b, en, CHUNK, GROUP, PROMPT, LENGTH);
    char *model = xasprintf("%s/model", dir);
    if (access(model, F_OK) && !hf_save(model, m.dir ? m.dir : "models/tiny", en->device, &en->policy, &e))
        die("bench: %s", e.text);
    free(model);
    bench_model_close(&m);
    return seconds;
}

static void measure_select(Bench *b, Shape shape) {
    char name[80], dir[] = "/tmp/grpo_bench_XXXXXX";
    snprintf(name, sizeof name, "select %s, B = %d", shape_name[shape], SLOTS);
    if (!bench_wants(b, name)) return;
    if (!mkdtemp(dir)) die("bench: cannot make a directory in /tmp");
    char *file = xasprintf("%s/q.jsonl", dir);
    FILE *f = fopen(file, "w");
    for (int i = 0; f && i < 3 * CHUNK; i++)
        fprintf(f, "{\"question\": \"%0*d\", \"answer\": \"#### 1\"}\n", PROMPT, 7919 * i);
    if (!f || fclose(f)) die("bench: cannot write %s", file);
    double tokens = (double)CHUNK * GROUP * LENGTH, bare = bare_seconds(b, shape, dir), chunk[3];
    for (int i = 0; i < 3; i++) // what all runs have in common, loading above all, is in both
        chunk[i] = (select_seconds(b, dir, file, 3 * CHUNK) - select_seconds(b, dir, file, CHUNK)) / 2;
    double median = fmax(fmin(chunk[0], chunk[1]), fmin(fmax(chunk[0], chunk[1]), chunk[2]));
    bare = (bare + bare_seconds(b, shape, dir)) / 2; // before and after
    bench_row(b, name, tokens / median, "tokens/s", tokens / bare, shape == TINY ? 0 : 0.97);
    Error e = {0};
    if (!disk_remove(dir, &e)) die("bench: %s", e.text);
    free(file);
}

void bench_select(Bench *b) {
    bench_section(b, "rejection sampling, reward models (limit: the rollout, the forward pass alone)");
    if (!b->gpu) peer_run(b, "torch_cpu.py", "select");
    for (Shape s = TINY; s < ONE_HALF_B; s++) {
        if (s != TINY && !shape_chosen(b, s)) continue;
        for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) measure_scoring(b, s, BF16, &texts[t]);
        measure_select(b, s);
    }
}
