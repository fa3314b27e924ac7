// Opens a model for a benchmark, with the code that a run uses.
#include "bench_model.h"
#include <stdlib.h>
#include <unistd.h>
#include <stdio.h>

const char *const shape_name[SHAPES] = {"tiny", "0.5B", "1.5B", "7B"};

// The shapes of Qwen2.5, from their config.json.
static const struct {
    const char *option;
    int V, D, F, L, H, K;
    bool tied;
} shapes[SHAPES] = {{"tiny", 0, 0, 0, 0, 0, 0, false},
                    {"0.5b", 151936, 896, 4864, 24, 14, 2, true},
                    {"1.5b", 151936, 1536, 8960, 28, 12, 2, true},
                    {"7b", 152064, 3584, 18944, 28, 28, 4, false}};

// Whether the first word of a comma-separated list is `name`.
static bool comes_first(const char *list, const char *name) {
    size_t n = strlen(name);
    return strcspn(list, ",") == n && !memcmp(list, name, n);
}
static const char *after_first(const char *list) {
    list += strcspn(list, ",");
    return list + (*list == ',');
}

bool shape_chosen(const Bench *b, Shape shape) {
    for (const char *list = b->size; *list; list = after_first(list))
        if (comes_first(list, shapes[shape].option)) return true;
    return false;
}

bool shapes_known(const char *list) {
    for (; *list; list = after_first(list)) {
        bool known = false;
        for (int s = 0; s < SHAPES; s++) known |= comes_first(list, shapes[s].option);
        if (!known) return false;
    }
    return true;
}

char *shape_directory(Shape shape) {
    if (shape == TINY) return NULL;
    char *dir = xstrdup("/tmp/grpo_bench_XXXXXX");
    if (!mkdtemp(dir)) die("bench: cannot make a directory in /tmp");
    char *path = xasprintf("%s/config.json", dir);
    FILE *f = fopen(path, "w");
    if (!f ||
        fprintf(f,
                "{\"model_type\": \"qwen2\", \"vocab_size\": %d, \"hidden_size\": %d, \"intermediate_size\": %d,\n"
                " \"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d,\n"
                " \"max_position_embeddings\": 32768, \"rms_norm_eps\": 1e-6, \"rope_theta\": 1000000.0,\n"
                " \"tie_word_embeddings\": %s, \"hidden_act\": \"silu\", \"use_sliding_window\": false,\n"
                " \"bos_token_id\": 151643, \"eos_token_id\": 151645}\n",
                shapes[shape].V, shapes[shape].D, shapes[shape].F, shapes[shape].L, shapes[shape].H, shapes[shape].K,
                shapes[shape].tied ? "true" : "false") < 0 ||
        fclose(f))
        die("bench: cannot write %s", path);
    free(path);
    return dir;
}

void shape_directory_remove(char *dir) {
    if (!dir) return;
    char *path = xasprintf("%s/config.json", dir);
    unlink(path);
    rmdir(dir);
    free(path);
    free(dir);
}

void bench_model_open(const Bench *b, BenchModel *m, Shape shape, DType dtype, RunShape run_shape) {
    Error e = {0};
    *m = (BenchModel){.dir = shape_directory(shape)};
    char *model = xasprintf("model=%s", m->dir ? m->dir : "models/tiny"),
         *type = xasprintf("dtype=%s", dtype_name(dtype)), *device = xasprintf("device=%s", b->device->name);
    char *overrides[7] = {model, "tokenizer=models/tiny", "init=random", type, device};
    int n = 5;
    // As in its configs: nothing is computed again where memory is no matter. PyTorch keeps all, too.
    if (shape == TINY) overrides[n++] = "recompute=false";
    // All of a 7B model's state in bf16, gradients too: f32 masters and moments alone are 122 GB.
    if (shape == SEVEN_B) overrides[n++] = "optim_dtype=bf16", overrides[n++] = "grad_dtype=bf16";
    if (!config_read(&m->cfg, NULL, overrides, n, &e) || !learner_open(&m->learner, &m->cfg, run_shape, &e))
        die("bench: %s", e.text);
    free(model);
    free(type);
    free(device);
}

void bench_model_memory(Bench *b, const BenchModel *m, const char *what) {
    double taken =
        (double)(m->learner.engine.plan.params + m->learner.engine.plan.work + m->learner.engine.device->scratch.cap) /
        (double)((size_t)1 << 30);
    char name[80];
    snprintf(name, sizeof name, "peak memory, %s", what);
    bench_row(b, name, b->gpu ? taken : peak_memory(), "GiB", 0, 0);
}

void bench_model_close(BenchModel *m) {
    learner_close(&m->learner);
    config_free(&m->cfg);
    shape_directory_remove(m->dir);
}
