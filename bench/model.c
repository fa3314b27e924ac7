// Opens a model by the same code as a run does.
#include "model.h"
#include <stdlib.h>
#include <unistd.h>

// Qwen2.5-0.5B, as its config.json says.
static const char half_b[] =
    "{\"model_type\": \"qwen2\", \"vocab_size\": 151936, \"hidden_size\": 896, \"intermediate_size\": 4864,\n"
    " \"num_hidden_layers\": 24, \"num_attention_heads\": 14, \"num_key_value_heads\": 2,\n"
    " \"max_position_embeddings\": 32768, \"rms_norm_eps\": 1e-6, \"rope_theta\": 1000000.0,\n"
    " \"tie_word_embeddings\": true, \"hidden_act\": \"silu\", \"use_sliding_window\": false,\n"
    " \"bos_token_id\": 151643, \"eos_token_id\": 151645}\n";

static char *write_config(void) {
    char *dir = xstrdup("/tmp/grpo_bench_XXXXXX");
    if (!mkdtemp(dir)) die("bench: cannot make a directory in /tmp");
    char *path = xasprintf("%s/config.json", dir);
    FILE *f = fopen(path, "w");
    if (!f || fputs(half_b, f) < 0 || fclose(f)) die("bench: cannot write %s", path);
    free(path);
    return dir;
}

void bench_model_open(BenchModel *m, Shape shape, DType dtype, RunShape run_shape) {
    Error e = {0};
    *m = (BenchModel){.dir = shape == HALF_B ? write_config() : NULL};
    char *model = xasprintf("model=%s", m->dir ? m->dir : "models/tiny"),
         *type = xasprintf("dtype=%s", dtype_name(dtype));
    char *overrides[] = {model, "tokenizer=models/tiny", "init=random", type};
    if (!config_read(&m->cfg, NULL, overrides, 4, &e) || !run_open(&m->run, &m->cfg, run_shape, &e))
        die("bench: %s", e.text);
    free(model);
    free(type);
}

void bench_model_close(BenchModel *m) {
    run_close(&m->run);
    config_free(&m->cfg);
    if (!m->dir) return;
    char *path = xasprintf("%s/config.json", m->dir);
    unlink(path);
    rmdir(m->dir);
    free(path);
    free(m->dir);
}

double forward_flop(ModelDims s, int64_t T, bool head) {
    double D = s.D, q = s.H * s.d, kv = s.K * s.d, layers = s.L;
    double block = layers * (2 * D * q + 2 * D * kv + 3 * D * s.F);
    return 2 * (block + (head ? D * s.V : 0)) + 4 * layers * q * (double)(T + 1) / 2;
}
