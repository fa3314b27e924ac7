// Judges on the engine's device: a causal model reads prompts and writes replies by the engine's own rollout. A reply
// depends on the weights, the prompt and the seed alone, so that neither what is asked beside it nor what was asked
// before shows.
#include "batch.h"
#include "by_model.h"
#include "chat.h"
#include "device.h"
#include "encode_around.h"
#include "engine.h"
#include "judging.h"
#include <stdlib.h>

typedef struct {
    ByModel *of;
    Device *device;       // while it scores
    const char *template; // of the conversation; NULL: the prompt alone
    Rollout rollout;
} JudgeModel;

static bool describe(ByModel *m, Error *e) {
    JudgeModel *x = m->data = xcalloc(1, sizeof *x);
    const Reward *r = m->reward;
    x->of = m;
    int max_prompt = (int)reward_number(r, "max_prompt"), max_tokens = (int)reward_number(r, "max_tokens"),
        parallel = (int)reward_number(r, "parallel");
    x->rollout.shape = rollout_shape(parallel, parallel, max_prompt, max_tokens);
    if (m->hf.dims.scores)
        return error_set(e, EXIT_INPUT,
                         "%s: is a reward model, which writes no text; the reward for it is reward_model", m->dir);
    if ((!m->own && !hf_head_read(m->dir, &m->hf.dims, e)) || !hf_tokenizer_fits(&m->hf, m->dir, m->tokenizer, e))
        return false;
    if (max_prompt + max_tokens > m->hf.dims.max_positions)
        return error_set(e, EXIT_CONFIG,
                         "max_prompt %d + max_tokens %d is more than the context of %d tokens that %s has "
                         "(max_position_embeddings in config.json); lower one of them",
                         max_prompt, max_tokens, m->hf.dims.max_positions, m->dir);
    const char *chosen = reward_text(r, "chat_template");
    if (!strcmp(chosen, "raw")) return true;
    return chat_template_choose(chosen, tokenizer_path(m->tokenizer), &x->template, e) &&
           chat_end_leads(x->template, m->tokenizer, &m->hf, e);
}

static void carve_work(ByModel *m, Arena *a) {
    JudgeModel *x = m->data;
    RolloutShape shape = x->rollout.shape;
    rollout_free(&x->rollout);
    x->rollout = rollout_carve(a, m->hf.dims, m->dtype, shape);
}

static void close_model(ByModel *m) {
    JudgeModel *x = m->data;
    rollout_free(&x->rollout);
    free(x);
}

static bool render_prompt(const void *arg, Text said, Str *out, Error *e) {
    return chat_prompt(((const JudgeModel *)arg)->template, NULL, NULL, 0, said.s, out, e);
}

// The ids that the model reads of a prompt.
static bool prompt_ids(const JudgeModel *x, Text prompt, Ids *out, Error *e) {
    if (x->template) return encode_around(x->of->tokenizer, render_prompt, x, prompt, out, e);
    tokenizer_encode_raw(x->of->tokenizer, prompt.s, prompt.n, out);
    return true;
}

// Puts the prompts into the batch; those that cannot be asked have their fault.
static bool queue_prompts(const JudgeModel *x, const Text *prompt, int n, Batch *b, JudgeReply *reply, Error *e) {
    bool ok = true;
    batch_clear(b);
#pragma omp parallel for schedule(dynamic, 4)
    for (int i = 0; i < b->n; i++) {
        Error why = {0};
        if (i < n && !prompt_ids(x, prompt[i], &b->prompt[i], &why)) {
#pragma omp critical
            if (ok) ok = error_set(e, why.code, "%s", why.text);
        }
        if (i >= n || !b->prompt[i].n || (int64_t)b->prompt[i].n > x->rollout.shape.max_prompt) {
            b->state[i] = SEQ_TRAINED; // not asked
            if (i < n) reply[i].fault = b->prompt[i].n ? REWARD_TOO_LONG : REWARD_BAD_REPLY;
        } else b->key[i] = (int64_t)(text_hash(prompt[i]) >> 1); // of no other prompt, and of no place
    }
    return ok;
}

static bool ask(void *arg, const Text *prompt, int n, JudgeReply *reply, Error *e) {
    JudgeModel *x = arg;
    const ByModel *m = x->of;
    SampleParams params = {.temperature = (float)reward_number(m->reward, "temperature"),
                           .top_p = 1,
                           .repetition_penalty = 1,
                           .seed = (uint64_t)reward_number(m->reward, "seed")};
    StopRule rule = {.eos = m->hf.eos, .n_eos = m->hf.n_eos};
    int chunk = 4 * x->rollout.shape.slots; // enough to keep every slot busy
    Batch b = batch_new(n < chunk ? n : chunk, 1, x->rollout.shape.max_completion, 0);
    bool ok = true;
    for (int at = 0; at < n && ok; at += b.n) {
        int count = n - at < b.n ? n - at : b.n;
        ok = queue_prompts(x, prompt + at, count, &b, reply + at, e) &&
             rollout_run(&x->rollout, x->device, &m->model, m->tokenizer, rule, params, &b, (RolloutWatch){0}, e) &&
             rollout_finite(&b, e);
        for (int i = 0; i < count && ok; i++)
            if (b.state[i] == SEQ_DECODED) reply[at + i].text = xstrdup(b.text[i]);
    }
    batch_free(&b);
    return ok;
}

static bool score(ByModel *m, Device *d, const Sample *samples, int n, float *scores, Error *e) {
    JudgeModel *x = m->data;
    x->device = d;
    return judging_score(reward_data(m->reward), m->reward, samples, n, ask, x, scores, e);
}

const ModelKind reply_model = {describe, carve_work, score, close_model, "max_prompt"};
