// Reward models: whole batches of texts, packed back to back, one forward pass for as many as its memory takes. Texts
// that begin alike, as a group's completions do with their question, share those rows. The score is the product of the
// last row's hidden state with score.weight, in f32.
#include "by_model.h"
#include "device.h"
#include "micro.h"
#include "scored_text.h"
#include "signals.h"
#include <stdlib.h>

enum { MAX_TEXTS = 1024 }; // of one forward pass

typedef struct {
    ScoredText text;
    Packing packing;
    Activations acts;
    Tensor ids, pos, seq, prefix; // [T] [T] [2 MAX_TEXTS + 1] [2 MAX_TEXTS] I32
    Tensor score;                 // [T,1] F32
    float *scored;                // [T] on the host
} ScoreModel;

static bool describe(ByModel *m, Error *e) {
    ScoreModel *x = m->data = xcalloc(1, sizeof *x);
    if (m->unmade) hf_scoring(&m->hf);
    if (!m->hf.dims.scores)
        return error_set(e, EXIT_INPUT,
                         "%s: is a causal language model (%s), not a reward model (%s); `grpo reward_model` trains one "
                         "from it",
                         m->dir, m->hf.dims.family->architecture, m->hf.dims.family->scoring);
    if (!scored_text_open(&x->text, reward_text(m->reward, "chat_template"), m->dir, &m->hf, m->tokenizer, e))
        return false;
    int64_t tokens = (int64_t)reward_number(m->reward, "batch_tokens");
    x->packing = packing_new(tokens, MAX_TEXTS);
    x->scored = xcalloc((size_t)tokens, sizeof *x->scored);
    return true;
}

static void carve_work(ByModel *m, Arena *a) {
    ScoreModel *x = m->data;
    int64_t T = x->packing.max_tokens;
    activations_free(&x->acts);
    x->acts = activations_carve(a, m->hf.dims, m->dtype, T, KEEP_NOTHING);
    x->ids = arena_new(a, I32, T);
    x->pos = arena_new(a, I32, T);
    x->seq = arena_new(a, I32, 2 * MAX_TEXTS + 1);
    x->prefix = arena_new(a, I32, 2 * MAX_TEXTS);
    x->score = arena_new(a, F32, T, 1);
}

static void close_model(ByModel *m) {
    ScoreModel *x = m->data;
    packing_free(&x->packing);
    activations_free(&x->acts);
    free(x->scored);
    free(x);
}

// Texts with their ids; those over the model's limit have none.
static bool read_texts(const ByModel *m, const Sample *samples, int n, Ids *ids, Error *e) {
    const ScoreModel *x = m->data;
    bool whole = reward_chose(m->reward, "part", "completion"), ok = true;
    int64_t most = x->packing.max_tokens < m->hf.dims.max_positions ? x->packing.max_tokens : m->hf.dims.max_positions;
#pragma omp parallel for schedule(dynamic, 4)
    for (int i = 0; i < n; i++) {
        Text text = {samples[i].completion, samples[i].completion_len};
        Error why = {0};
        if (!scored_text_ids(&x->text, samples[i].prompt, whole ? text : summary_of(&m->reward->think, text), &ids[i],
                             &why)) {
#pragma omp critical
            if (ok) ok = error_set(e, why.code, "%s", why.text);
        } else if ((int64_t)ids[i].n > most) {
            reward_fault(m->reward, REWARD_TOO_LONG, 1);
            ids_clear(&ids[i]);
        }
    }
    return ok;
}

// How many ids all of x[0..n) begin with, of each at least one left over.
static size_t common(const Ids *x, int n) {
    size_t all = x[0].n - 1;
    for (int i = 1; i < n; i++) {
        size_t k = 0, most = x[i].n - 1 < all ? x[i].n - 1 : all;
        while (k < most && x[i].id[k] == x[0].id[k]) k++;
        all = k;
    }
    return all;
}

// Packs the first texts of x[0..n), as many as there is room for; returns their number.
static int pack(Packing *p, const Ids *x, const int *group, int n) {
    Ids own = {0};
    int at = 0;
    bool room = true;
    packing_clear(p);
    while (at < n && room) {
        int end = at + 1;
        while (end < n && group[end] == group[at]) end++;
        size_t shared = end - at > 1 ? common(x + at, end - at) : 0;
        room = packing_prefix(p, x[at].id, (int64_t)shared);
        for (; at < end && room; at += room) {
            ids_clear(&own);
            for (size_t k = shared; k < x[at].n; k++) ids_add(&own, x[at].id[k]);
            ids_add(&own, 0); // what a packing has last is only ever a target
            room = packing_add(p, own.id, (int64_t)own.n, (int64_t)own.n - 1, NULL);
        }
    }
    ids_free(&own);
    return at;
}

// The scores of the packed texts, one forward pass.
static void forward(ByModel *m, Device *d, float *score) {
    ScoreModel *x = m->data;
    const Packing *p = &x->packing;
    Packed in = {tensor_rows(x->ids, 0, p->T), tensor_rows(x->pos, 0, p->T), tensor_rows(x->seq, 0, p->P + 1),
                 tensor_rows(x->prefix, 0, p->P)};
    d->copy(d, in.ids.data, p->ids, tensor_bytes(in.ids));
    d->copy(d, in.pos.data, p->pos, tensor_bytes(in.pos));
    d->copy(d, in.seq.data, p->seq, tensor_bytes(in.seq));
    d->copy(d, in.prefix.data, p->prefix, tensor_bytes(in.prefix));
    model_forward(d, &m->model, &x->acts, in, NULL, NONE);
    Tensor scores = tensor_rows(x->score, 0, p->T);
    model_score(d, &m->model, scores, tensor_rows(x->acts.out, 0, p->T));
    d->copy(d, x->scored, scores.data, tensor_bytes(scores));
    float scale = (float)reward_number(m->reward, "scale");
    for (int64_t j = 0; j < p->N; j++) score[j] = scale * x->scored[p->rows[j]];
}

static bool score_texts(ByModel *m, Device *d, const Sample *samples, int n, float *score, Error *e) {
    Packing *packing = &((ScoreModel *)m->data)->packing;
    Ids *ids = xcalloc((size_t)n + 1, sizeof *ids);
    int *group = xcalloc((size_t)n + 1, sizeof *group), *from = xcalloc((size_t)n + 1, sizeof *from), kept = 0;
    float *dense = xcalloc((size_t)n + 1, sizeof *dense);
    bool ok = read_texts(m, samples, n, ids, e);
    for (int i = 0; i < n; i++) {
        score[i] = REWARD_ABSTAINS;
        if (!ids[i].n) continue;
        Ids moved = ids[kept];
        ids[kept] = ids[i], ids[i] = i == kept ? ids[i] : moved;
        group[kept] = samples[i].group, from[kept++] = i;
    }
    for (int at = 0; at < kept && ok;) {
        if (stop_requested()) ok = error_set(e, EXIT_STOPPED, "stopped by a signal");
        else {
            int count = pack(packing, ids + at, group + at, kept - at);
            forward(m, d, dense + at);
            at += count;
            ok = device_ok(d, e);
        }
    }
    for (int k = 0; k < kept && ok; k++) score[from[k]] = dense[k];
    for (int i = 0; i < n; i++) ids_free(&ids[i]);
    free(ids), free(group), free(from), free(dense);
    return ok;
}

const ModelKind score_model = {describe, carve_work, score_texts, close_model, "batch_tokens"};
