// The list of models behind rewards: what all have in common, whatever kind they are of.
#include "reward_models.h"
#include "adapter_files.h"
#include "by_model.h"
#include "device.h"
#include <stdlib.h>

struct RewardModels {
    const Rewards *rewards;
    Device *own; // whose memory that of these models alone is; NULL: an engine's
    void *base[2];
    size_t bytes[2];
    int n;
    ByModel item[MAX_REWARDS + 1]; // the grader's last
};

// ---- opening --------------------------------------------------------------------------------------------------------

// Takes a directory with an adapter for the model that it was trained beside, with it.
static bool describe_adapter(ByModel *m, bool writes, Error *e) {
    if (!adapter_is(m->dir)) return true;
    if (writes)
        return error_set(e, EXIT_INPUT,
                         "%s: is an adapter; `grpo merge` makes one model of it and that beside which it was trained",
                         m->dir);
    m->adapter = m->dir;
    if (!adapter_describe(m->adapter, &m->lora, e)) return false;
    if (!m->lora.scores)
        return error_set(e, EXIT_INPUT,
                         "%s: is an adapter without a score head, so that its model writes; `grpo reward_model` trains "
                         "one that scores",
                         m->adapter);
    m->dir = m->beside = adapter_model_dir(m->adapter, e);
    return m->dir;
}

static bool describe(ByModel *m, const StartModel *start, Error *e) {
    const char *dir = reward_text(m->reward, "model");
    bool writes = m->reward->info->by_model == MODEL_WRITES;
    m->own = writes && !*dir && start;
    m->dir = m->own ? start->dir : dir;
    if (!*m->dir)
        return error_set(e, EXIT_CONFIG, "model is not set; give the directory of a %s",
                         writes ? "causal language model" : "reward model");
    if (!describe_adapter(m, writes, e) || !hf_config_read(m->dir, &m->hf, e)) return false;
    if (m->adapter) {
        hf_scoring(&m->hf);
        m->hf.dims.low_rank = m->lora.rank;
        if (!adapter_check(m->adapter, m->hf.dims, &m->lora, e)) return false;
    }
    if (m->own) m->hf.dims = start->hf->dims;
    m->tokenizer = tokenizer_load(m->own ? start->tokenizer : m->dir, e);
    if (!m->tokenizer) return false;
    m->kind = writes ? &reply_model : &score_model;
    return m->kind->describe(m, e);
}

RewardModels *reward_models_describe(const Rewards *rw, DType dtype, const StartModel *start, Error *e) {
    RewardModels *m = xcalloc(1, sizeof *m);
    m->rewards = rw;
    bool ok = true;
    for (int k = 0; k <= rw->n && ok; k++) {
        const Reward *r = k < rw->n ? &rw->reward[k] : &rw->grader;
        if (!r->info || !r->info->by_model) continue;
        ByModel *x = &m->item[m->n++];
        *x = (ByModel){.reward = r, .place = k, .dtype = dtype, .unmade = rw->unmade >> k & 1};
        ok = describe(x, start, e) || error_prefix(e, "reward %s", x->reward->name);
    }
    if (ok && m->n) return m;
    reward_models_free(m);
    return NULL;
}

static void free_weights(ByModel *m) {
    if (!m->own) model_free(&m->model);
}

void reward_models_free(RewardModels *m) {
    for (int i = 0; m && i < m->n; i++) {
        ByModel *x = &m->item[i];
        if (x->kind) x->kind->close(x);
        free_weights(x);
        free(x->beside);
        tokenizer_free(x->tokenizer);
    }
    for (int i = 0; m && m->own && i < 2; i++) m->own->free(m->own, m->base[i], m->bytes[i]);
    free(m);
}

RewardModels *reward_models_open(const Rewards *rw, DType dtype, Device *d, int load, Error *e) {
    RewardModels *m = reward_models_describe(rw, dtype, NULL, e);
    if (!m) return NULL;
    Arena arena[2] = {arena_measure(), arena_measure()}; // weights, work
    size_t judges, others;
    reward_models_carve_params(m, &arena[0], NULL);
    reward_models_carve_work(m, &arena[1], &judges, &others);
    m->own = d;
    for (int i = 0; i < 2; i++) m->base[i] = d->alloc(d, m->bytes[i] = arena[i].peak);
    bool ok = m->base[0] && m->base[1];
    if (!ok)
        error_set(e, EXIT_MEMORY, "no memory for the weights (%.2f GiB) and a pass (%.2f GiB); lower %s",
                  (double)m->bytes[0] / (1 << 30), (double)m->bytes[1] / (1 << 30),
                  judges ? "parallel" : "batch_tokens");
    if (ok) {
        for (int i = 0; i < 2; i++) arena[i] = arena_over(m->base[i], m->bytes[i]);
        reward_models_carve_params(m, &arena[0], NULL);
        reward_models_carve_work(m, &arena[1], &judges, &others);
        ok = reward_models_load(m, d, load, e);
    }
    if (ok) return m;
    reward_models_free(m);
    return NULL;
}

bool reward_models_ask_start(const RewardModels *m) {
    bool any = false;
    for (int i = 0; m && i < m->n; i++) any = any || m->item[i].own;
    return any;
}

void reward_models_carve_params(RewardModels *m, Arena *a, const Model *start) {
    for (int i = 0; m && i < m->n; i++) {
        ByModel *x = &m->item[i];
        free_weights(x);
        x->model = x->own ? *start : model_carve(a, x->hf.dims, x->dtype);
        if (x->adapter) x->model.adapter = adapter_carve(a, x->hf.dims, &x->lora);
    }
}

void reward_models_carve_work(RewardModels *m, Arena *a, size_t *judges, size_t *others) {
    size_t start = arena_mark(a);
    *judges = *others = 0;
    for (int i = 0; m && i < m->n; i++) {
        ByModel *x = &m->item[i];
        size_t *need = x->kind == &reply_model ? judges : others;
        arena_rewind(a, start); // one after the other
        x->kind->carve_work(x, a);
        if (a->used - start > *need) *need = a->used - start;
    }
}

static bool read_model(ByModel *m, Device *d, int load, Error *e) {
    if (!m->adapter) return hf_weights_read(m->dir, d, &m->model, load, e);
    if (!hf_weights_read_body(m->dir, d, &m->model, load, e)) return false;
    adapter_beside(d, &m->model);
    return adapter_read(m->adapter, d, m->model.adapter, e);
}

bool reward_models_load(RewardModels *m, Device *d, int load, Error *e) {
    for (int i = 0; m && i < m->n; i++) {
        ByModel *x = &m->item[i];
        if (!x->own && !read_model(x, d, load, e)) return error_prefix(e, "reward %s", x->reward->name);
    }
    return true;
}

int reward_models_count(const RewardModels *m) { return m ? m->n : 0; }

const Model *reward_models_model(const RewardModels *m, int i, const char **dir) {
    *dir = reward_text(m->item[i].reward, "model");
    return m->item[i].own ? NULL : &m->item[i].model;
}

// ---- scoring --------------------------------------------------------------------------------------------------------

// Scores n samples by one model; notes it where the first that it gets are all too long, so that none has a score.
// False after filling *e.
static bool score_samples(ByModel *m, Device *d, const Sample *samples, int n, float *score, Error *e) {
    const Reward *r = m->reward;
    if (!m->kind->score(m, d, samples, n, score, e)) return error_prefix(e, "reward %s", r->name);
    if (n && !m->asked && reward_faults(r, REWARD_TOO_LONG) == n)
        note("reward %s: the first texts (%d) are all too long for it and have no score; raise %s, which is %.0f "
             "tokens",
             r->name, n, m->kind->limit, reward_number(r, m->kind->limit));
    m->asked = m->asked || n;
    return true;
}

bool reward_models_samples(RewardModels *m, Device *d, const Sample *samples, int n, float *score, Error *e) {
    return score_samples(&m->item[0], d, samples, n, score, e);
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
        if (place == m->rewards->n) continue; // the grader
        for (int j = 0; j < n; j++) {         // those whose file has this reward
            b->score[from[j] * b->n_rewards + place] = REWARD_ABSTAINS;
            if (rewards_score(m->rewards, b->file[from[j] / b->group], place))
                kept[asked] = sample[j], to[asked++] = from[j];
        }
        ok = score_samples(&m->item[k], d, kept, asked, score, e);
        for (int j = 0; j < asked && ok; j++) b->score[to[j] * b->n_rewards + place] = score[j];
    }
    free(sample), free(kept), free(score), free(from), free(to);
    return ok;
}

bool reward_models_grade(RewardModels *m, Device *d, const Batch *b, float *score, Error *e) {
    ByModel *grader = &m->item[m->n - 1];
    Sample *sample = xcalloc((size_t)b->n + 1, sizeof *sample);
    for (int i = 0; i < b->n; i++) sample[i] = batch_sample(b, i);
    bool ok = score_samples(grader, d, sample, b->n, score, e);
    free(sample);
    return ok;
}
