// One micro-batch: sequences packed back to back, the model run over them, the log-probs of their completions.
#include "micro.h"
#include "optim.h"
#include <stdlib.h>

// The live part of the work memory: T packed tokens in P parts, of B sequences, N scored positions.
static TrainWork live(const TrainWork *cap, int64_t T, int64_t P, int64_t B, int64_t N) {
    TrainWork w = *cap;
    Tensor *tokens[] = {&w.ids, &w.pos, &w.score, &w.dscore};
    Tensor *scored[] = {&w.rows,  &w.target,   &w.logp,     &w.lse,     &w.entropy,
                        &w.dlogp, &w.dentropy, &w.old_logp, &w.ref_logp};
    Tensor *sequences[] = {&w.index, &w.mask, &w.advantage};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) *tokens[i] = tensor_rows(*tokens[i], 0, T);
    for (size_t i = 0; i < sizeof scored / sizeof *scored; i++) *scored[i] = tensor_rows(*scored[i], 0, N);
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) *sequences[i] = tensor_rows(*sequences[i], 0, B);
    w.seq = tensor_rows(w.seq, 0, P + 1);
    w.prefix = tensor_rows(w.prefix, 0, P);
    w.offsets = tensor_rows(w.offsets, 0, B + 1);
    return w;
}

void micro_upload(Learner *l, Tensor to, const void *from) { staging_put(&l->feed, to.data, from, tensor_bytes(to)); }

TrainWork micro_pack(Learner *l, const Packing *p) {
    TrainWork w = live(&l->work, p->T, p->P, p->B, p->N);
    // The half of the staging memory that is refilled now was sent two micro-batches ago: wait until that copy is done.
    if (l->feed.used) staging_turn(&l->feed);
    micro_upload(l, w.ids, p->ids);
    micro_upload(l, w.pos, p->pos);
    micro_upload(l, w.seq, p->seq);
    micro_upload(l, w.prefix, p->prefix);
    micro_upload(l, w.rows, p->rows);
    micro_upload(l, w.target, p->target);
    micro_upload(l, w.offsets, p->offsets);
    return w;
}

Packing packing_new(int64_t tokens, int64_t sequences) {
    size_t T = (size_t)tokens, B = (size_t)sequences;
    Packing p = {.max_tokens = tokens, .max_sequences = sequences, .shared = -1};
    p.ids = xcalloc(T, 4);
    p.pos = xcalloc(T, 4);
    p.rows = xcalloc(T, 4);
    p.target = xcalloc(T, 4);
    p.seq = xcalloc(2 * B + 1, 4);
    p.prefix = xcalloc(2 * B + 1, 4);
    p.offsets = xcalloc(B + 1, 4);
    return p;
}

void packing_free(Packing *p) {
    int32_t *columns[] = {p->ids, p->pos, p->rows, p->target, p->seq, p->prefix, p->offsets};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) free(columns[i]);
    *p = (Packing){0};
}

void packing_clear(Packing *p) {
    p->T = p->P = p->B = p->N = p->alone = 0;
    p->shared = -1;
}

static void add_token(Packing *p, int32_t id, int64_t pos) {
    p->ids[p->T] = id;
    p->pos[p->T++] = (int32_t)pos;
}
static void end_part(Packing *p, int32_t prefix) {
    p->prefix[p->P++] = prefix;
    p->seq[p->P] = (int32_t)p->T;
}

bool packing_fits(const Packing *p, int64_t rows) { return p->T + rows <= p->max_tokens && p->B < p->max_sequences; }

bool packing_prefix(Packing *p, const int32_t *ids, int64_t n) {
    p->shared = -1;
    if (!n) return true;
    if (!packing_fits(p, n)) return false;
    for (int64_t j = 0; j < n; j++) add_token(p, ids[j], j);
    p->shared = (int32_t)p->P;
    end_part(p, -1);
    return true;
}

bool packing_add(Packing *p, const int32_t *ids, int64_t n, int64_t first_target, const uint8_t *wanted) {
    int64_t before = p->shared < 0 ? 0 : p->seq[p->shared + 1] - p->seq[p->shared];
    if (!packing_fits(p, n - 1)) return false;
    for (int64_t j = 0; j + 1 < n; j++) { // the last token is only ever a target
        add_token(p, ids[j], before + j);
        if (j + 1 < first_target || (wanted && !wanted[j + 1])) continue;
        p->rows[p->N] = (int32_t)p->T - 1;
        p->target[p->N++] = ids[j + 1];
    }
    end_part(p, p->shared);
    p->alone += before + n - 1;
    p->B++;
    p->offsets[p->B] = (int32_t)p->N;
    return true;
}

static int pieces(int n, int size) { return (n + size - 1) / size; }

int micro_take(const int *seq, int n, int size, int group) {
    int taken = 0;
    while (taken < n) {
        int end = taken + 1;
        while (end < n && seq[end] / group == seq[taken] / group) end++;
        int all = end - taken, room = size - taken;
        if (all > room) return 1 + pieces(all - room, size) == pieces(all, size) ? size : taken;
        taken = end;
    }
    return taken;
}

void micro_hold(Learner *l, int64_t at, Tensor x) {
    Device *d = l->engine.device;
    d->copy(d, tensor_rows(l->work.held, at, tensor_numel(x)).data, x.data, tensor_bytes(x));
}

void micro_fetch(Learner *l, int64_t end, float *to) {
    l->engine.device->copy(l->engine.device, to, l->work.held.data, (size_t)end * sizeof *to);
}

void micro_hidden(Device *d, const Model *m, TrainWork *w) {
    model_forward(d, m, &w->acts, (Packed){w->ids, w->pos, w->seq, w->prefix}, NULL, NONE);
}

void micro_forward(Device *d, const Model *m, TrainWork *w, float temperature) {
    micro_hidden(d, m, w);
    Tensor out = tensor_rows(w->acts.out, 0, w->ids.dim[0]);
    d->logprob(d, w->logp, w->lse, w->entropy, out, w->rows, m->head, w->target, temperature);
}

// The pass through the blocks, once the head's is done.
static void backward(Learner *l, TrainWork *w, bool last) {
    LayerDone told = {optim_layer_done, l};
    model_backward(l->engine.device, &l->engine.policy, &l->grad, &w->acts, (Packed){w->ids, w->pos, w->seq, w->prefix},
                   last ? &told : NULL);
}

void micro_backward(Learner *l, TrainWork *w, float temperature, bool with_entropy, bool last) {
    Device *d = l->engine.device;
    int64_t T = w->ids.dim[0];
    Tensor out = tensor_rows(w->acts.out, 0, T), dout = tensor_rows(w->acts.dx, 0, T);
    d->logprob_bwd(d, dout, l->grad.head, w->dlogp, with_entropy ? w->dentropy : NONE, out, w->rows,
                   l->engine.policy.head, w->target, w->lse, w->entropy, temperature);
    backward(l, w, last);
}

void micro_score(Device *d, const Model *m, TrainWork *w) {
    micro_hidden(d, m, w);
    model_score(d, m, w->score, tensor_rows(w->acts.out, 0, w->ids.dim[0]));
}

void micro_score_backward(Learner *l, TrainWork *w, bool last) {
    Device *d = l->engine.device;
    int64_t T = w->ids.dim[0];
    model_score_backward(d, &l->engine.policy, &l->grad, tensor_rows(w->acts.dx, 0, T), w->dscore,
                         tensor_rows(w->acts.out, 0, T));
    backward(l, w, last);
}
