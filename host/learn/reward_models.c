// Reward models: whole batches of texts, packed back to back, one forward pass for as many as its memory takes. Texts that
// begin alike, as a group's completions do with their question, share those rows. The score is the product of the last row's
// hidden state with score.weight, in f32.
#include "reward_models.h"
#include "config.h"
#include "device.h"
#include "micro.h"
#include "scored_text.h"
#include "signals.h"
#include <stdlib.h>

enum { MAX_TEXTS = 1024 }; // of one forward pass

typedef struct {
    const Reward *reward;
    int place; // among the run's rewards
    HfConfig hf;
    Tokenizer *tokenizer;
    ScoredText text;
    Model model;
    Packing packing;
    Activations acts;
    Tensor ids, pos, seq, prefix; // [T] [T] [2 MAX_TEXTS + 1] [2 MAX_TEXTS] I32
    Tensor score;                 // [T,1] F32
    float *scored;                // [T] on the host
} RewardModel;

struct RewardModels {
    const Rewards *rewards;
    DType dtype;
    Device *own; // whose memory that of these models alone is; NULL: an engine's
    void *base[2];
    size_t bytes[2];
    int n;
    RewardModel item[MAX_REWARDS];
};

// ---- opening ---------------------------------------------------------------------------------------------------------

static bool describe(RewardModel *m, bool unmade, Error *e) {
    const char *dir = reward_text(m->reward, "model");
    if (!*dir) return error_set(e, EXIT_CONFIG, "model is not set; give the directory of a reward model");
    if (!hf_config_read(dir, &m->hf, e)) return false;
    if (unmade) hf_scoring(&m->hf);
    if (!m->hf.dims.scores)
        return error_set(e, EXIT_INPUT,
                         "%s: is a causal language model (%s), not a reward model (%s); `grpo reward_model` trains one "
                         "from it",
                         dir, m->hf.dims.family->architecture, m->hf.dims.family->scoring);
    m->tokenizer = tokenizer_load(dir, e);
    if (!m->tokenizer ||
        !scored_text_open(&m->text, reward_text(m->reward, "chat_template"), dir, &m->hf, m->tokenizer, e))
        return false;
    int64_t tokens = (int64_t)reward_number(m->reward, "batch_tokens");
    m->packing = packing_new(tokens, MAX_TEXTS);
    m->scored = xcalloc((size_t)tokens, sizeof *m->scored);
    return true;
}

RewardModels *reward_models_describe(const Rewards *rw, DType dtype, Error *e) {
    RewardModels *m = xcalloc(1, sizeof *m);
    m->dtype = dtype;
    m->rewards = rw;
    bool ok = true;
    for (int k = 0; k < rw->n && ok; k++) {
        if (!rw->reward[k].info->by_model) continue;
        RewardModel *x = &m->item[m->n++];
        *x = (RewardModel){.reward = &rw->reward[k], .place = k};
        ok = describe(x, rw->unmade, e) || error_prefix(e, "reward %s", x->reward->name);
    }
    if (ok && m->n) return m;
    reward_models_free(m);
    return NULL;
}

void reward_models_free(RewardModels *m) {
    for (int i = 0; m && i < m->n; i++) {
        RewardModel *x = &m->item[i];
        tokenizer_free(x->tokenizer);
        model_free(&x->model);
        packing_free(&x->packing);
        activations_free(&x->acts);
        free(x->scored);
    }
    for (int i = 0; m && m->own && i < 2; i++) m->own->free(m->own, m->base[i], m->bytes[i]);
    free(m);
}

RewardModels *reward_models_open(const Rewards *rw, DType dtype, Device *d, int load, Error *e) {
    RewardModels *m = reward_models_describe(rw, dtype, e);
    if (!m) return NULL;
    Arena arena[2] = {arena_measure(), arena_measure()}; // weights, work
    reward_models_carve_params(m, &arena[0]);
    reward_models_carve_work(m, &arena[1]);
    m->own = d;
    for (int i = 0; i < 2; i++) m->base[i] = d->alloc(d, m->bytes[i] = arena[i].peak);
    bool ok = m->base[0] && m->base[1];
    if (!ok)
        error_set(e, EXIT_MEMORY, "no memory for the weights (%.2f GiB) and a pass (%.2f GiB); lower batch_tokens",
                  (double)m->bytes[0] / (1 << 30), (double)m->bytes[1] / (1 << 30));
    if (ok) {
        for (int i = 0; i < 2; i++) arena[i] = arena_over(m->base[i], m->bytes[i]);
        reward_models_carve_params(m, &arena[0]);
        reward_models_carve_work(m, &arena[1]);
        ok = reward_models_load(m, d, load, e);
    }
    if (ok) return m;
    reward_models_free(m);
    return NULL;
}

void reward_models_carve_params(RewardModels *m, Arena *a) {
    for (int i = 0; m && i < m->n; i++) {
        model_free(&m->item[i].model);
        m->item[i].model = model_carve(a, m->item[i].hf.dims, m->dtype);
    }
}

void reward_models_carve_work(RewardModels *m, Arena *a) {
    size_t start = arena_mark(a);
    for (int i = 0; m && i < m->n; i++) {
        RewardModel *x = &m->item[i];
        int64_t T = x->packing.max_tokens;
        arena_rewind(a, start); // one after the other
        activations_free(&x->acts);
        x->acts = activations_carve(a, x->hf.dims, m->dtype, T, KEEP_NOTHING);
        x->ids = arena_new(a, I32, T);
        x->pos = arena_new(a, I32, T);
        x->seq = arena_new(a, I32, 2 * MAX_TEXTS + 1);
        x->prefix = arena_new(a, I32, 2 * MAX_TEXTS);
        x->score = arena_new(a, F32, T, 1);
    }
}

bool reward_models_load(RewardModels *m, Device *d, int load, Error *e) {
    for (int i = 0; m && i < m->n; i++) {
        const char *dir = reward_text(m->item[i].reward, "model");
        if (!hf_weights_read(dir, d, &m->item[i].model, load, e))
            return error_prefix(e, "reward %s", m->item[i].reward->name);
    }
    return true;
}

int reward_models_count(const RewardModels *m) { return m ? m->n : 0; }

Tensor reward_models_weights(const RewardModels *m, int i, const char **dir) {
    *dir = reward_text(m->item[i].reward, "model");
    return m->item[i].model.slab;
}

// ---- scoring ---------------------------------------------------------------------------------------------------------

// Texts with their ids; those over the model's limit have none.
static bool read_texts(const RewardModel *m, const Sample *samples, int n, Ids *ids, Error *e) {
    bool whole = reward_chose(m->reward, "part", "completion"), ok = true;
    int64_t most = m->packing.max_tokens < m->hf.dims.max_positions ? m->packing.max_tokens : m->hf.dims.max_positions;
#pragma omp parallel for schedule(dynamic, 4)
    for (int i = 0; i < n; i++) {
        Text text = {samples[i].completion, samples[i].completion_len};
        Error why = {0};
        if (!scored_text_ids(&m->text, samples[i].prompt, whole ? text : summary_of(&m->reward->think, text), &ids[i],
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
static void forward(RewardModel *m, Device *d, float *score) {
    const Packing *p = &m->packing;
    Packed in = {tensor_rows(m->ids, 0, p->T), tensor_rows(m->pos, 0, p->T), tensor_rows(m->seq, 0, p->P + 1),
                 tensor_rows(m->prefix, 0, p->P)};
    d->copy(d, in.ids.data, p->ids, tensor_bytes(in.ids));
    d->copy(d, in.pos.data, p->pos, tensor_bytes(in.pos));
    d->copy(d, in.seq.data, p->seq, tensor_bytes(in.seq));
    d->copy(d, in.prefix.data, p->prefix, tensor_bytes(in.prefix));
    model_forward(d, &m->model, &m->acts, in, NULL, NONE);
    Tensor scores = tensor_rows(m->score, 0, p->T);
    d->matmul(d, scores, tensor_rows(m->acts.out, 0, p->T), m->model.head);
    d->copy(d, m->scored, scores.data, tensor_bytes(scores));
    float scale = (float)reward_number(m->reward, "scale");
    for (int64_t j = 0; j < p->N; j++) score[j] = scale * m->scored[p->rows[j]];
}

static bool score_texts(RewardModel *m, Device *d, const Sample *samples, int n, float *score, Error *e) {
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
            int count = pack(&m->packing, ids + at, group + at, kept - at);
            forward(m, d, dense + at);
            at += count;
            ok = device_ok(d, e);
        }
    }
    for (int k = 0; k < kept && ok; k++) score[from[k]] = dense[k];
    for (int i = 0; i < n; i++) ids_free(&ids[i]);
    free(ids), free(group), free(from), free(dense);
    return ok || error_prefix(e, "reward %s", m->reward->name);
}

bool reward_models_samples(RewardModels *m, Device *d, const Sample *samples, int n, float *score, Error *e) {
    return score_texts(&m->item[0], d, samples, n, score, e);
}

bool reward_models_score(RewardModels *m, Device *d, Batch *b, Error *e) {
    if (!m) return true;
    size_t room = (size_t)b->n + 1;
    Sample *sample = xcalloc(room, sizeof *sample), *kept = xcalloc(room, sizeof *kept);
    float *score = xcalloc(room, sizeof *score);
    int *from = xcalloc(room, sizeof *from), *to = xcalloc(room, sizeof *to), n = 0;
    for (int i = 0; i < b->n; i++) {
        if (b->state[i] != SEQ_DECODED) continue;
        from[n] = i;
        sample[n++] = batch_sample(b, i);
    }
    bool ok = true;
    for (int k = 0; k < m->n && ok; k++) {
        int place = m->item[k].place, asked = 0;
        for (int j = 0; j < n; j++) { // those whose file has this reward
            b->score[from[j] * b->n_rewards + place] = REWARD_ABSTAINS;
            if (rewards_score(m->rewards, b->file[from[j] / b->group], place))
                kept[asked] = sample[j], to[asked++] = from[j];
        }
        ok = score_texts(&m->item[k], d, kept, asked, score, e);
        for (int j = 0; j < asked && ok; j++) b->score[to[j] * b->n_rewards + place] = score[j];
    }
    free(sample), free(kept), free(score), free(from), free(to);
    return ok;
}
