// Prints what a model computes, for tools/compare_hf.py and check_lora.py: `logits MODEL_DIR f32|bf16 cpu|cuda
// [gradients | ADAPTER_DIR]`. Standard input has one sequence of token ids a line. Standard output gets raw f32 logits,
// [T,V] a sequence; or, with `gradients`, those of the mean negative log-prob of every next token: for each parameter a
// line "NAME ELEMENTS", then its elements as f32.
#include "device.h"
#include "micro.h"
#include "program.h"
#include <stdlib.h>
#include <stdio.h>

// Packs the lines of standard input, at most 4096 tokens in all; *highest becomes the largest id.
static bool lines_read(Packing *p, int32_t *highest, Error *e) {
    enum { MOST = 4096 };
    *p = packing_new(MOST, MOST);
    char *line = NULL;
    size_t room = 0;
    bool ok = true;
    int32_t *ids = xcalloc(MOST + 1, sizeof *ids);
    while (ok && getline(&line, &room, stdin) > 0) {
        int64_t n = 0;
        char *at = line, *end;
        for (long id = strtol(at, &end, 10); end != at && n <= MOST; id = strtol(at, &end, 10)) {
            ids[n++] = (int32_t)id;
            if (id > *highest) *highest = (int32_t)id;
            ok = ok && id >= 0 && id <= INT32_MAX;
            at = end;
        }
        ok = ok && n > 1 && packing_add(p, ids, n, 1, NULL);
    }
    free(ids);
    free(line);
    return ok ||
           error_set(e, EXIT_INPUT,
                     "standard input: a line of fewer than two ids, an id below 0, or more than %d ids in all", MOST);
}

static void logits_write(Learner *l, const TrainWork *w) {
    Device *d = l->engine.device;
    int64_t T = w->ids.dim[0], V = l->engine.hf.dims.V;
    size_t row = (size_t)V * sizeof(float);
    Tensor one = tensor2(d->alloc(d, row), F32, 1, V);
    float *host = xmalloc(row);
    if (!one.data) die("logits: no memory on the device");
    for (int64_t t = 0; t < T; t++) {
        d->matmul(d, one, tensor_rows(w->acts.out, t, 1), l->engine.policy.head);
        d->copy(d, host, one.data, row);
        fwrite(host, 1, row, stdout);
    }
    d->free(d, one.data, row);
    free(host);
}

static void gradients_write(Learner *l, TrainWork *w) {
    Device *d = l->engine.device;
    d->fill(d, w->dlogp, -1.0f / (float)w->logp.dim[0]);
    micro_backward(l, w, 1, false, false);
    for (int i = 0; i < l->grad.n_params; i++) {
        const Param *p = &l->grad.params[i];
        size_t bytes = tensor_bytes(p->t);
        float *host = xmalloc(bytes);
        d->copy(d, host, p->t.data, bytes);
        printf("%s %lld\n", p->name, (long long)tensor_numel(p->t));
        fwrite(host, 1, bytes, stdout);
        free(host);
    }
}

static bool run(char **argv, Error *e) {
    Packing p;
    int32_t highest = 0;
    Config c;
    Learner l = {0};
    char *options[] = {xasprintf("model=%s", argv[1]),
                       xasprintf("dtype=%s", argv[2]),
                       xasprintf("device=%s", argv[3]),
                       xasprintf("adapter=%s", argv[4] && strcmp(argv[4], "gradients") ? argv[4] : ""),
                       "tokenizer=models/tiny",
                       "grad_dtype=f32",
                       "optim_dtype=bf16"};
    bool gradients = argv[4] && !strcmp(argv[4], "gradients"), ok = lines_read(&p, &highest, e);
    RunShape shape = {.train = true, .train_tokens = p.T, .train_seqs = (int)p.B};
    if (ok && config_read(&c, NULL, options, 7, e)) {
        ok = learner_open(&l, &c, shape, e);
        if (ok && highest >= l.engine.hf.dims.V)
            ok = error_set(e, EXIT_INPUT, "id %d is not in the vocabulary of %d", highest, l.engine.hf.dims.V);
        if (ok) {
            TrainWork w = micro_pack(&l, &p);
            micro_forward(l.engine.device, &l.engine.policy, &w, 1);
            if (gradients) gradients_write(&l, &w);
            else logits_write(&l, &w);
            l.engine.device->sync(l.engine.device);
            ok = device_ok(l.engine.device, e);
        }
        learner_close(&l);
        config_free(&c);
    } else ok = false;
    packing_free(&p);
    for (int i = 0; i < 4; i++) free(options[i]);
    return ok;
}

int main(int argc, char **argv) {
    Error e = {0};
    if (!program_begin(argv, &e)) return program_end("logits", e.code, &e);
    if (argc < 4 || argc > 5) {
        fprintf(stderr, "usage: logits MODEL_DIR f32|bf16 cpu|cuda [gradients|ADAPTER_DIR] <token-ids\n");
        return EXIT_CONFIG;
    }
    ExitCode code = run(argv, &e) ? EXIT_OK : e.code;
    return program_end("logits", program_flush(code, &e), &e);
}
