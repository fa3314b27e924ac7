// Measures what runs on the host: tokenizer, rewards, the sandbox, loading weights.
#include "bench.h"
#include "clock.h"
#include "dataset.h"
#include "file.h"
#include "json.h"
#include "reward.h"
#include "bench_model.h"
#include <stdlib.h>
#include <unistd.h>
#include <stdio.h>

// A file of the shared test data, or NULL where it is absent.
static const char *data_file(const char *name) {
    static char path[4096];
    const char *root = getenv("GRPO_DATA");
    snprintf(path, sizeof path, "%s/%s", root ? root : "../shared/data", name);
    return access(path, R_OK) == 0 ? path : NULL;
}

// ---- tokenizer ------------------------------------------------------------------------------------------------------
typedef struct {
    Tokenizer *tokenizer;
    char **text; // [n]
    size_t n, bytes;
    Ids ids;
} Texts;

static void encode(void *arg, int i) {
    Texts *t = arg;
    ids_clear(&t->ids);
    for (size_t k = 0; k < t->n; k++) tokenizer_encode(t->tokenizer, t->text[k], strlen(t->text[k]), true, &t->ids);
}

static void decode(void *arg, int i) {
    Texts *t = arg;
    Str s = {0};
    tokenizer_decode(t->tokenizer, t->ids.id, t->ids.n, true, &s);
    str_free(&s);
}

// Questions and answers of GSM8K by the real tokenizer; where they are absent, the README by the tiny one.
static void measure_tokenizer(Bench *b) {
    if (!bench_wants(b, "tokenizer encode") && !bench_wants(b, "tokenizer decode")) return;
    Error e = {0};
    const char *real = data_file("qwen2.5/tokenizer.json");
    char *where = xstrdup(real ? real : "models/tiny");
    Texts t = {.tokenizer = tokenizer_load(where, &e)};
    if (!t.tokenizer) die("bench: %s", e.text);
    const char *source = data_file("gsm8k/train.jsonl");
    if (source) {
        Config c;
        if (!config_read(&c, NULL, NULL, 0, &e)) die("bench: %s", e.text);
        Dataset *d = dataset_open(source, &c, NULL, &e);
        if (!d) die("bench: %s", e.text);
        t.text = xcalloc(2 * (size_t)dataset_rows(d), sizeof *t.text);
        for (int64_t i = 0; i < dataset_rows(d) && i < 2000; i++) {
            Row row;
            if (!dataset_row(d, i, &row, &e)) die("bench: %s", e.text);
            t.text[t.n++] = xstrdup(row.question);
            t.text[t.n++] = xstrdup(row.answer);
            row_free(&row);
        }
        dataset_free(d);
        config_free(&c);
    } else {
        size_t n;
        t.text = xcalloc(1, sizeof *t.text);
        t.text[t.n++] = file_read("README.md", 1 << 20, &n, &e);
        if (!t.text[0]) die("bench: %s", e.text);
    }
    for (size_t k = 0; k < t.n; k++) t.bytes += strlen(t.text[k]);
    printf("tokenizer: %s, text: %s\n", real ? "Qwen2.5" : "tiny", source ? "GSM8K" : "README.md");
    double mib = (double)t.bytes / (1 << 20);
    bench_row(b, "tokenizer encode, one thread", mib / bench_time(b, encode, &t), "MiB/s", 60, 0);
    bench_row(b, "tokenizer decode, one thread", mib / bench_time(b, decode, &t), "MiB/s", 0, 0);
    for (size_t k = 0; k < t.n; k++) free(t.text[k]);
    free(t.text);
    ids_free(&t.ids);
    tokenizer_free(t.tokenizer);
    free(where);
}

// ---- rewards --------------------------------------------------------------------------------------------------------
#define SAMPLES 1000
typedef struct {
    int n;
    Reward reward[5]; // [n]
    Sample sample[SAMPLES];
    float score[SAMPLES];
} Scoring;

static void score(void *arg, int i) {
    Scoring *s = arg;
    for (int k = 0; k < s->n; k++) s->reward[k].info->fn(&s->reward[k], s->sample, SAMPLES, s->score);
}

static void measure_rewards(Bench *b) {
    static const char *const recipe[] = {"correctness", "int", "strict_format", "soft_format", "xmlcount"};
    if (!bench_wants(b, "the recipe's five rewards, one thread")) return;
    Error e = {0};
    Scoring *s = xcalloc(1, sizeof *s);
    for (; s->n < 5; s->n++)
        if (!reward_parse(recipe[s->n], &s->reward[s->n], &e)) die("bench: %s", e.text);
    // Three in four follow the format; they are as long as a GSM8K answer.
    for (int i = 0; i < SAMPLES; i++) {
        char *text =
            xasprintf(i % 4 ? "<think>\nNatalia sold %d clips in April and half as many in May, so she sold "
                              "%d / 2 = %d clips in May. Altogether she sold %d + %d = %d clips in both "
                              "months, which is what the question asks for.\n</think>\n<answer>\n%d\n</answer>\n"
                            : "Natalia sold %d clips in April and half as many in May, so she sold %d / 2 = "
                              "%d clips in May. Altogether %d + %d = %d clips: the answer is %d.",
                      2 * i, 2 * i, i, 2 * i, i, 3 * i, 3 * i);
        s->sample[i] =
            (Sample){.prompt = "", .completion = text, .completion_len = strlen(text), .answer = "72", .group = i / 8};
    }
    bench_row(b, "the recipe's five rewards, one thread", SAMPLES / bench_time(b, score, s), "texts/s", 500000, 0);
    for (int i = 0; i < SAMPLES; i++) free((char *)s->sample[i].completion);
    free(s);
}

// Answers as models give them to MATH problems: some sentences with formulas, then a box; one in four is wrong.
static void measure_verification(Bench *b) {
    static const char *const row = "accuracy: verified answers, one thread";
    if (!bench_wants(b, row)) return;
    Error e = {0};
    Scoring *s = xcalloc(1, sizeof *s);
    if (!reward_parse("accuracy", &s->reward[s->n++], &e)) die("bench: %s", e.text);
    for (int i = 0; i < SAMPLES; i++) {
        char *text =
            xasprintf("To find where the line meets the curve, we set \\(x^2 + %d = 2\\sqrt{%d} x\\). By the quadratic "
                      "formula,\n\\[ x = \\frac{2\\sqrt{%d} \\pm \\sqrt{%d}}{2} \\]\nand so $x = \\sqrt{%d}$. "
                      "Therefore the area is\n\\[ \\boxed{\\frac{%d\\sqrt{%d}}{%d}} \\]\n",
                      i, i, i, 4 * i, i, 2 * i + (i % 4 == 0), 3, 4);
        char *gold = xasprintf("$\\frac{%d\\sqrt{3}}{2}$", i);
        s->sample[i] =
            (Sample){.prompt = "", .completion = text, .completion_len = strlen(text), .answer = gold, .group = i};
    }
    bench_row(b, row, SAMPLES / bench_time(b, score, s), "texts/s", 20000, 0);
    for (int i = 0; i < SAMPLES; i++) {
        free((char *)s->sample[i].completion);
        free((char *)s->sample[i].answer);
    }
    free(s);
}

// ---- programs in the sandbox ----------------------------------------------------------------------------------------
enum { PROGRAMS = 10, PROGRAM_THREADS = 2 };
typedef struct {
    Reward reward;
    int64_t failed;
} Programs;

static void run_programs(void *arg, int i) {
    Programs *p = arg;
    static const char text[] = "```python\nn = int(input())\nprint(sum(k * k for k in range(n)))\n```";
    static const char gold[] = "{\"inputs\": [\"1000\"], \"outputs\": [\"332833500\"]}";
    int64_t failed = 0;
#pragma omp parallel for num_threads(PROGRAM_THREADS) schedule(dynamic) reduction(+ : failed)
    for (int k = 0; k < PROGRAMS; k++) {
        Sample s = {.prompt = "", .completion = text, .completion_len = sizeof text - 1, .answer = gold};
        float score;
        p->reward.info->fn(&p->reward, &s, 1, &score);
        failed += score != 1;
    }
    p->failed += failed;
}

static void measure_programs(Bench *b) {
    static const char *const row = "code: sandboxed Python, two threads";
    if (!bench_wants(b, row)) return;
    Error e = {0};
    Programs p = {0};
    if (!reward_parse("code:timeout=60", &p.reward, &e)) die("bench: %s", e.text);
    if (!reward_open(&p.reward, &e)) {
        printf("SKIP %s: %s\n", row, e.text);
        return;
    }
    bench_row(b, row, PROGRAMS / bench_time(b, run_programs, &p), "programs/s", 20, 0);
    if (p.failed) die("bench: %lld sandboxed programs failed", (long long)p.failed);
    reward_close(&p.reward);
}

// ---- loading --------------------------------------------------------------------------------------------------------
typedef struct {
    Device *device;
    Model *model;
    const char *dir;
    char *source, *target; // as many bytes as the model's
    int mode;
} Loading;

static void load(void *arg, int i) {
    Loading *l = arg;
    Error e = {0};
    if (!hf_weights_read(l->dir, l->device, l->model, l->mode, &e)) die("bench: %s", e.text);
}

static void copy(void *arg, int i) {
    Loading *l = arg;
    int64_t block = 1 << 20, bytes = (int64_t)tensor_bytes(l->model->slab);
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < bytes; at += block)
        memcpy(l->target + at, l->source + at, (size_t)(bytes - at < block ? bytes - at : block));
}

static void measure_loading(Bench *b) {
    static const char *const name[] = {"load 0.5B, strict, warm", "load 0.5B, mmap, warm"};
    if (!bench_wants(b, name[0]) && !bench_wants(b, name[1])) return;
    BenchModel m;
    Error e = {0};
    bench_model_open(b, &m, HALF_B, BF16, (RunShape){0});
    char *dir = xasprintf("%s/model", m.dir);
    if (!hf_save(dir, m.dir, m.learner.engine.device, &m.learner.engine.policy, &e)) die("bench: %s", e.text);
    size_t bytes = tensor_bytes(m.learner.engine.policy.slab);
    Loading l = {m.learner.engine.device, &m.learner.engine.policy, dir, xmalloc(bytes), xmalloc(bytes), 0};
    memset(l.source, 1, bytes), memset(l.target, 1, bytes);
    double memcpy_rate = (double)bytes / bench_time(b, copy, &l) * 1e-9;
    bench_row(b, "memcpy, all threads", memcpy_rate, "GB/s", 0, 0);
    free(l.source);
    free(l.target);
    for (l.mode = LOAD_STRICT; l.mode <= LOAD_MMAP; l.mode++)
        bench_row(b, name[l.mode], (double)bytes / bench_time(b, load, &l) * 1e-9, "GB/s", memcpy_rate, 0);
    if (!disk_remove(dir, &e)) die("bench: %s", e.text);
    free(dir);
    bench_model_close(&m);
}

void bench_host(Bench *b) {
    bench_section(b, "host (limit: the goal; for loading, memcpy)");
    peer_run(b, "hf_tokenizers.py", "encode");
    measure_tokenizer(b);
    measure_rewards(b);
    measure_verification(b);
    measure_programs(b);
    measure_loading(b);
}
