// The logits of a model directory, for tools/compare_hf.py: `logits MODEL_DIR f32|bf16`, one sequence of token ids a line
// on standard input; raw f32 logits, [T,V] a sequence, on standard output.
#include "host.h"
#include <stdlib.h>

// Carves the model and what a forward pass over `tokens` tokens needs; once to measure, once for real.
typedef struct {
    Model model;
    Activations acts;
    Tensor ids, pos, seq, logits; // [tokens], [tokens], [2], [tokens,V]
} Work;

static Work work_carve(Arena *a, ModelDims dims, DType dtype, int64_t tokens) {
    return (Work){
        .model = model_carve(a, dims, dtype),
        .acts = activations_carve(a, dims, dtype, tokens, false, false),
        .ids = arena_new(a, I32, tokens),
        .pos = arena_new(a, I32, tokens),
        .seq = arena_new(a, I32, 2),
        .logits = arena_new(a, F32, tokens, dims.V),
    };
}
static void work_views_free(Work *w) {
    model_free(&w->model);
    activations_free(&w->acts);
}

// The ids of one line; how many.
static int64_t ids_read(const char *line, const ModelDims *dims, int32_t *ids) {
    int64_t n = 0;
    char *end;
    for (long id = strtol(line, &end, 10); end != line && n < dims->max_positions; id = strtol(line, &end, 10)) {
        if (id < 0 || id >= dims->V) return 0;
        ids[n++] = (int32_t)id;
        line = end;
    }
    return n;
}

static bool run(Device *d, const char *dir, DType dtype, Error *e) {
    HfConfig hf;
    if (!hf_config_read(dir, &hf, e)) return false;
    int64_t capacity = hf.dims.max_positions < 4096 ? hf.dims.max_positions : 4096;
    hf.dims.max_positions = (int)capacity;
    Arena measure = arena_measure();
    Work w = work_carve(&measure, hf.dims, dtype, capacity);
    work_views_free(&w);
    void *memory = d->alloc(d, measure.used);
    if (!memory) return error_set(e, EXIT_MEMORY, "%s: %zu bytes cannot be had", dir, measure.used);
    Arena arena = arena_over(memory, measure.used);
    w = work_carve(&arena, hf.dims, dtype, capacity);

    bool ok = hf_weights_read(dir, d, &w.model, LOAD_STRICT, e);
    char *line = NULL;
    size_t room = 0;
    while (ok && getline(&line, &room, stdin) > 0) {
        int64_t T = ids_read(line, &hf.dims, i32(w.ids));
        for (int64_t t = 0; t < T; t++) i32(w.pos)[t] = (int32_t)t;
        i32(w.seq)[1] = (int32_t)T;
        Packed in = {tensor_rows(w.ids, 0, T), tensor_rows(w.pos, 0, T), w.seq};
        if (T == 0) {
            ok = error_set(e, EXIT_INPUT, "standard input: a line without token ids from 0 to %d", hf.dims.V - 1);
            break;
        }
        model_forward(d, &w.model, &w.acts, in, NULL, NONE);
        d->matmul(d, tensor_rows(w.logits, 0, T), tensor_rows(w.acts.out, 0, T), w.model.head);
        fwrite(w.logits.data, sizeof(float), (size_t)(T * hf.dims.V), stdout);
    }
    free(line);
    work_views_free(&w);
    d->free(d, memory, measure.used);
    return ok;
}

int main(int argc, char **argv) {
    Error e = {0};
    if (argc != 3 || (strcmp(argv[2], "f32") && strcmp(argv[2], "bf16"))) {
        fprintf(stderr, "usage: logits MODEL_DIR f32|bf16 <token-ids\n");
        return EXIT_CONFIG;
    }
    Device *d = cpu_open(0);
    if (!d) return EXIT_MEMORY;
    bool ok = run(d, argv[1], strcmp(argv[2], "f32") ? BF16 : F32, &e);
    cpu_close(d);
    if (!ok) fprintf(stderr, "logits: error: %s\n", e.text);
    return ok ? EXIT_OK : e.code;
}
