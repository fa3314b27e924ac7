// Opening an engine, or a learner. Memory is two slabs whose sizes come from running the carving code once from a null
// base; `grpo plan` prints that table.
#include "adapter_files.h"
#include "chat.h"
#include "checkpoint.h"
#include "device.h"
#include "fingerprint.h"
#include "learner.h"
#include "model_init.h"
#include "ranks.h"
#include "reward_models.h"
#include "signals.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>

static void plan_add(Plan *p, const char *what, size_t bytes) {
    if (p->n == PLAN_ROWS) die("plan: too many rows");
    if (!bytes) return;
    p->row[p->n].what = what;
    p->row[p->n++].bytes = bytes;
}

static DType dtype_of(int choice) { return choice == DTYPE_BF16 ? BF16 : F32; }

// Whether the device computes in host memory; where none is open yet, what the configuration says of it.
static bool computes_on_host(const Engine *en) {
    return en->device ? on_host(en->device) : en->cfg->device == DEVICE_CPU;
}

// What the communicator of several GPUs takes of each.
static size_t comm_room(const Engine *en) { return en->cfg->gpus > 1 && !computes_on_host(en) ? COMM_ROOM : 0; }

// Whether the reference's weights lie where gradients do: those are void until training begins, and what trains asks
// the reference before that. Then each generation reads them again, which a GPU's short steps would feel.
static bool reference_turns(const Engine *en) {
    const Config *c = en->cfg;
    if (!en->shape.reference || c->sync_ref_model || en->lora.rank) return false;
    if (c->reference_weights == REFERENCE_AUTO && reward_models_ask_start(en->models)) return false; // it serves both
    if (c->reference_weights != REFERENCE_AUTO) return c->reference_weights == REFERENCE_RELOAD;
    return computes_on_host(en) && c->init == INIT_LOAD;
}

// Carves the gradients of what is trained.
static Model carve_grad(Arena *a, const Engine *en) {
    if (!en->lora.rank) return model_carve(a, en->hf.dims, dtype_of(en->cfg->grad_dtype));
    Arena nothing = arena_measure();
    Model m = model_carve(&nothing, en->hf.dims, F32);
    m.adapter = adapter_carve(a, en->hf.dims, &en->lora);
    return m;
}

// Carves a model that is to stay what the policy is at the start: beside an adapter, the policy's weights with an
// adapter of its own.
static Model carve_start(Arena *a, const Engine *en) {
    if (!en->lora.rank) return model_carve(a, en->hf.dims, dtype_of(en->cfg->dtype));
    Model m = en->policy;
    m.adapter = *en->cfg->adapter ? adapter_carve(a, en->hf.dims, &en->lora) : NULL;
    return m;
}

// Carves the weights, and all else that lives as long as the run, out of the first slab.
static void carve_params(Engine *en, Learner *l, Arena *a, Plan *p) {
    const Config *c = en->cfg;
    DType t = dtype_of(c->dtype), state = dtype_of(c->optim_dtype);
    size_t at = a->used;
    en->policy = model_carve(a, en->hf.dims, t);
    plan_add(p, "weights", a->used - at);
    at = a->used;
    if (en->lora.rank) en->policy.adapter = adapter_carve(a, en->hf.dims, &en->lora);
    plan_add(p, "adapter", a->used - at);
    int64_t n = model_trained(&en->policy).slab.dim[0];
    if (en->shape.train) {
        at = arena_mark(a);
        l->grad = carve_grad(a, en);
        size_t end = a->used;
        plan_add(p, "gradients", end - at);
        if (reference_turns(en)) {
            arena_rewind(a, at);
            l->reference = model_carve(a, en->hf.dims, t);
            plan_add(p, "reference weights (in the gradients' memory)", a->used - at);
            if (a->used < end) a->used = end;
        }
        at = a->used;
        comm_slice(n, ranks_rank(), (int)c->gpus, &l->first, &n); // of the optimizer's state a rank keeps its slice
        if (t == BF16 && state == F32 && !en->lora.rank)
            l->master = arena_new(a, c->optim_dtype == DTYPE_F32_SPLIT ? U16 : F32, n);
        l->moment1 = arena_new(a, state, n);
        l->moment2 = arena_new(a, state, n);
        l->norms = arena_new(a, I64, 1);
        plan_add(p, c->gpus > 1 ? "optimizer state (this rank's slice)" : "optimizer state", a->used - at);
    }
    at = a->used;
    if (en->shape.reference && !reference_turns(en)) l->reference = carve_start(a, en);
    plan_add(p, en->lora.rank ? "reference adapter" : "reference weights", a->used - at);
    at = a->used;
    // What judges without a directory take: the policy where it is not trained, or the reference where that stays.
    bool stays = en->shape.reference && !c->sync_ref_model && !reference_turns(en);
    bool copied = en->shape.train && !stays && reward_models_ask_start(en->models);
    if (copied) l->start = carve_start(a, en);
    plan_add(p, "start weights, for a judge", a->used - at);
    at = a->used;
    reward_models_carve_params(en->models, a, !en->shape.train ? &en->policy : stays ? &l->reference : &l->start);
    plan_add(p, "rewards' models: weights", a->used - at);
}

static Keep kept_of(const Config *c) {
    return c->gradient_checkpointing ? KEEP_RESIDUALS : c->recompute ? KEEP_PRODUCTS : KEEP_ALL;
}

static TrainWork carve_train(Arena *a, const Engine *en) {
    const RunShape s = en->shape;
    int64_t T = s.train_tokens, B = s.train_seqs, R = s.n_rewards > 0 ? s.n_rewards : 1;
    TrainWork w = {.acts = activations_carve(a, en->hf.dims, dtype_of(en->cfg->dtype), T, kept_of(en->cfg))};
    Tensor *i32s[] = {&w.ids, &w.pos, &w.rows, &w.target};
    for (size_t i = 0; i < sizeof i32s / sizeof *i32s; i++) *i32s[i] = arena_new(a, I32, T);
    Tensor *f32s[] = {&w.logp, &w.lse, &w.entropy, &w.dlogp, &w.dentropy, &w.old_logp, &w.ref_logp};
    for (size_t i = 0; i < sizeof f32s / sizeof *f32s; i++) *f32s[i] = arena_new(a, F32, T);
    w.seq = arena_new(a, I32, 2 * B + 1);
    w.prefix = arena_new(a, I32, 2 * B);
    w.offsets = arena_new(a, I32, B + 1);
    w.index = arena_new(a, I32, B);
    w.mask = arena_new(a, U8, B);
    w.rewards = arena_new(a, F32, s.score_rows > 0 ? s.score_rows : 1, R);
    w.weights = arena_new(a, F32, R);
    w.advantage = arena_new(a, F32, B);
    if (en->hf.dims.scores) {
        w.score = arena_new(a, F32, T, 1);
        w.dscore = arena_new(a, en->lora.scores ? F32 : dtype_of(en->cfg->dtype), T, 1);
    }
    w.held = arena_new(a, F32, s.held > 0 ? s.held : 1);
    return w;
}

// The bytes that micro_pack and micro_upload send for one micro-batch.
static size_t feed_bytes(const TrainWork *w) {
    const Tensor all[] = {w->ids,  w->pos,      w->seq,      w->prefix, w->rows,    w->target,  w->offsets, w->index,
                          w->mask, w->old_logp, w->ref_logp, w->lse,    w->entropy, w->rewards, w->weights, w->dscore};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) bytes += tensor_bytes(all[i]);
    return bytes;
}

// Carves the second slab, in which rollout and training take turns.
static void carve_work(Engine *en, Learner *l, Arena *a, Plan *p) {
    size_t start = arena_mark(a);
    if (en->shape.rollout.slots) {
        en->rollout = rollout_carve(a, en->hf.dims, dtype_of(en->cfg->dtype), en->shape.rollout);
        plan_add(p, "rollout: KV cache", tensor_bytes(en->rollout.cache.kv));
        plan_add(p, "rollout: activations", a->used - start - tensor_bytes(en->rollout.cache.kv));
    }
    arena_rewind(a, start);
    if (en->shape.train) {
        l->work = carve_train(a, en);
        plan_add(p, "training: activations (in the rollout's memory)", a->used - start);
    }
    arena_rewind(a, start);
    reward_models_carve_work(en->models, a, &p->judges, &p->classifiers);
    plan_add(p, "judges: KV cache and activations (in the same)", p->judges);
    plan_add(p, "reward models: activations (in the same)", p->classifiers);
}

static void free_views(Engine *en, Learner *l) {
    model_free(&en->policy);
    model_free(&l->grad);
    Model *const start[] = {&l->reference, &l->start};
    for (int i = 0; i < 2; i++) {
        if (en->lora.rank) start[i]->params = NULL, start[i]->layer = NULL; // the policy's
        model_free(start[i]);
    }
    rollout_free(&en->rollout);
    activations_free(&l->work.acts);
}

static bool config_json_read(const Config *c, HfConfig *hf, Error *e) {
    if (adapter_is(c->model))
        return error_set(e, EXIT_CONFIG,
                         "model: %s is an adapter; give the model that it was trained beside, and adapter=%s", c->model,
                         c->model);
    return hf_config_read(c->model, hf, e);
}

// Whether the adapter that is there is of such a model as the command runs.
static bool adapter_fits(const Engine *en, Error *e) {
    const char *dir = en->cfg->adapter;
    if (en->lora.scores == en->shape.score_head) return true;
    return en->lora.scores
               ? error_set(e, EXIT_CONFIG,
                           "adapter: %s is a reward model's (it has a score head), which writes no text; `grpo merge` "
                           "makes a reward model of it and %s, for `rewards`",
                           dir, en->cfg->model)
               : error_set(e, EXIT_CONFIG,
                           "adapter: %s has no score head, so it is of a model that writes; `grpo merge` makes a model "
                           "of it and %s, on which reward_model can train an adapter of its own (lora_r)",
                           dir, en->cfg->model);
}

// Describes the adapter that the options ask for: one that is there, or, to train, a new one.
static bool describe_adapter(Engine *en, Error *e) {
    const Config *c = en->cfg;
    if (*c->adapter && (!adapter_describe(c->adapter, &en->lora, e) || !adapter_fits(en, e))) return false;
    if (!*c->adapter && en->shape.train && c->lora_r) {
        en->lora = (AdapterSpec){
            .rank = (int)c->lora_r, .alpha = c->lora_alpha, .rslora = c->use_rslora, .scores = en->shape.score_head};
        for (int t = 0; t < N_TARGETS; t++)
            for (int i = 0; i < c->lora_target.n; i++)
                en->lora.target[t] |= !strcmp(c->lora_target.item[i], lora_target_names[t]) ||
                                      !strcmp(c->lora_target.item[i], "all-linear");
    }
    en->hf.dims.low_rank = en->lora.rank;
    return !*c->adapter || adapter_check(c->adapter, en->hf.dims, &en->lora, e);
}

static size_t scratch_bytes(const Engine *en) { return en->device ? en->device->scratch.cap : DEVICE_SCRATCH; }

static bool describe(Engine *en, Learner *l, Device *d, const Config *c, RunShape shape, Error *e) {
    *en = (Engine){.cfg = c, .device = d, .shape = shape};
    if (!*c->model) return error_set(e, EXIT_CONFIG, "model: not set; give a HF model directory, as model=PATH");
    if (!config_json_read(c, &en->hf, e)) return false;
    if (en->hf.dims.scores && !shape.score_head)
        return error_set(
            e, EXIT_CONFIG,
            "model: %s is a reward model, which writes no text; list it in `rewards` as reward_model:model=%s",
            c->model, c->model);
    en->new_head = shape.score_head && !en->hf.dims.scores;
    if (shape.score_head) hf_scoring(&en->hf);
    if (c->init != INIT_RANDOM && !hf_head_read(c->model, &en->hf.dims, e)) return false;
    if (!describe_adapter(en, e)) return false;
    if (shape.rollout.slots && shape.rollout.max_prompt + shape.rollout.max_completion > en->hf.dims.max_positions)
        return error_set(
            e, EXIT_CONFIG,
            "max_prompt_length %d + max_completion_length %d is more than the model's context of %d tokens "
            "(max_position_embeddings in %s/config.json); lower one of them",
            shape.rollout.max_prompt, shape.rollout.max_completion, en->hf.dims.max_positions, c->model);
    Error none = {0};
    StartModel start = {c->model, *c->tokenizer ? c->tokenizer : c->model, &en->hf};
    en->models = shape.rewards ? reward_models_describe(shape.rewards, dtype_of(c->dtype), &start, &none) : NULL;
    if (none.code != EXIT_OK) return error_set(e, none.code, "%s", none.text);
    Arena params = arena_measure(), work = arena_measure();
    carve_params(en, l, &params, &en->plan);
    carve_work(en, l, &work, &en->plan);
    free_views(en, l);
    plan_add(&en->plan, "kernels' scratch", scratch_bytes(en));
    plan_add(&en->plan, "what ranks send each other", comm_room(en));
    en->plan.params = params.peak;
    en->plan.work = work.peak;
    return true;
}

bool engine_describe(Engine *en, Device *d, const Config *c, RunShape shape, Error *e) {
    Learner none = {0};
    return describe(en, &none, d, c, shape, e);
}
bool learner_describe(Learner *l, Device *d, const Config *c, RunShape shape, Error *e) {
    return describe(&l->engine, l, d, c, shape, e);
}

// The bytes that one rank takes.
static size_t plan_bytes(const Engine *en) {
    return en->plan.params + en->plan.work + scratch_bytes(en) + comm_room(en);
}

bool plan_fits(const Engine *en, size_t *need, MemoryLimit *have) {
    // On the CPU all ranks take their memory from the same place; on a GPU each from its own.
    bool cpu = computes_on_host(en);
    if (en->device && !cpu) *have = (MemoryLimit){en->device->memory(en->device), "this GPU", true};
    else *have = machine_memory(cpu ? (int)en->cfg->gpus : 1);
    *need = plan_bytes(en) * (cpu && !have->own ? (size_t)en->cfg->gpus : 1);
    return *need <= have->bytes;
}

static bool no_memory(const Engine *en, Error *e) {
    char *table = plan_table(en);
    size_t need;
    MemoryLimit have;
    bool fits = plan_fits(en, &need, &have), limited = have.own && computes_on_host(en); // by ulimit
    error_set(e, EXIT_MEMORY, "not enough memory for this run%s\n%s",
              !fits     ? ""
              : limited ? ": it would fit if libraries and threads took nothing of this process's limit; raise it"
                        : ": it would fit if other programs did not hold so much; end them",
              table);
    free(table);
    return false;
}

// If the model directory is a checkpoint of this program, checks its files against their checksums.
static bool model_files_check(const Config *c, Error *e) {
    bool checked;
    if (c->load == LOAD_MMAP) {
        char *manifest = xasprintf("%s/manifest.json", c->model);
        if (!access(manifest, F_OK)) note("load=mmap: %s is not held against its manifest", c->model);
        free(manifest);
        return true;
    }
    return checkpoint_model_check(c->model, &checked, e);
}

// Whether all ranks have the same weights; else each would go on training a model of its own.
static bool weights_agree(Engine *en, Tensor weights, const char *dir, Error *e) {
    int world = comm_world(en->comm);
    if (world == 1) return true;
    uint32_t crc = weights_sum(en->device, weights), *all = xcalloc((size_t)world, sizeof *all);
    bool ok = device_ok(en->device, e) && comm_gather(en->comm, "weights", &crc, sizeof crc, all, e);
    for (int r = 1; ok && r < world; r++)
        if (all[r] != all[0])
            ok =
                error_set(e, EXIT_CONFIG,
                          "rank %d has loaded other weights from %s than rank 0 (crc32c %08x and %08x); give all ranks "
                          "the same files",
                          r, dir, all[r], all[0]);
    free(all);
    return ok;
}

// Reads the policy's weights from its directory. A head that is not there is drawn as transformers does: N(0, 0.02).
static bool read_policy(Engine *en, Error *e) {
    const Config *c = en->cfg;
    if (!en->new_head) return hf_weights_read(c->model, en->device, &en->policy, c->load, e);
    for (int p = 0; p < en->policy.n_params; p++)
        if (en->policy.params[p].spec->of == IN_SCORING)
            model_init_param(en->device, &en->policy, p, (uint64_t)c->seed);
    return hf_weights_read_body(c->model, en->device, &en->policy, c->load, e);
}

// Loads the adapter, and finds out which weights it stands beside.
static bool load_adapter(Engine *en, Error *e) {
    const Config *c = en->cfg;
    Adapter *a = en->policy.adapter;
    bool checked;
    if (a->spec.scores) { // the head moves to the adapter, and is none of what that one is beside
        en->device->cast(en->device, a->head, en->policy.head);
        en->device->fill(en->device, en->policy.head, 0);
    }
    adapter_beside(en->device, &en->policy);
    if (!*c->adapter) adapter_init_random(en->device, a, (uint64_t)c->seed, c->lora_init == LORA_GAUSSIAN);
    else if (!checkpoint_model_check(c->adapter, &checked, e) || !adapter_read(c->adapter, en->device, a, e))
        return false;
    return true;
}

// Fills a model of carve_start, if there is one, with what the policy now has.
static void copy_start(const Engine *en, const Model *to) {
    if (to->adapter) en->device->cast(en->device, to->adapter->slab, en->policy.adapter->slab);
    if (present(to->slab) && !en->lora.rank) en->device->cast(en->device, to->slab, en->policy.slab);
}

static bool load_weights(Engine *en, Learner *l, Error *e) {
    const Config *c = en->cfg;
    if (c->init == INIT_RANDOM) model_init_random(en->device, &en->policy, (uint64_t)c->seed);
    else if (!model_files_check(c, e) || !read_policy(en, e)) return false;
    // A split master begins with nothing that rounding took from it: fresh memory is zero.
    if (present(l->master) && l->master.dtype == F32)
        en->device->cast(en->device, l->master, tensor_rows(en->policy.slab, l->first, l->master.dim[0]));
    if (en->lora.rank && !load_adapter(en, e)) return false;
    if (!reference_turns(en)) copy_start(en, &l->reference);
    copy_start(en, &l->start);
    if (!reward_models_load(en->models, en->device, c->load, e)) return false;
    en->device->sync(en->device);
    if (reference_turns(en)) l->reference_sum = weights_sum(en->device, en->policy.slab);
    bool ok = device_ok(en->device, e) && weights_agree(en, en->policy.slab, c->model, e);
    if (ok && en->policy.adapter) ok = weights_agree(en, en->policy.adapter->slab, c->adapter, e);
    for (int i = 0; i < reward_models_count(en->models) && ok; i++) {
        const char *dir;
        const Model *m = reward_models_model(en->models, i, &dir);
        ok = !m || weights_agree(en, m->slab, dir, e);
        if (ok && m && m->adapter) ok = weights_agree(en, m->adapter->slab, dir, e);
    }
    return ok;
}

bool learner_reference(Learner *l, Error *e) {
    const Engine *en = &l->engine;
    const Config *c = en->cfg;
    Device *d = en->device;
    if (!reference_turns(en)) return true;
    d->fill(d, l->reference.slab, 0); // what lies between its tensors is of a gradient
    if (c->init == INIT_RANDOM) model_init_random(d, &l->reference, (uint64_t)c->seed);
    else if (!hf_weights_again(c->model, d, &l->reference, e))
        return error_prefix(e, "reading the reference's weights again (reference_weights=resident keeps them)");
    d->sync(d);
    if (!device_ok(d, e)) return false;
    return weights_sum(d, l->reference.slab) == l->reference_sum ||
           error_set(
               e, EXIT_INPUT,
               "%s: the weights are no longer those that this run began with, and its reference is read from "
               "there for each generation; bring the files back, or set reference_weights=resident from the start",
               c->model);
}

// Moves an id to the front of the ids that end a text, adding it if it is not among them.
static bool ends_lead(HfConfig *hf, int32_t id, Error *e) {
    const int most = sizeof hf->eos / sizeof *hf->eos;
    int at = 0;
    while (at < hf->n_eos && hf->eos[at] != id) at++;
    if (at == most)
        return error_set(e, EXIT_INPUT,
                         "generation_config.json lists %d tokens that end a text, and the chat template has one more "
                         "(id %d); %d are the most: take one off the list",
                         hf->n_eos, id, most);
    if (at == hf->n_eos) hf->n_eos++;
    memmove(hf->eos + 1, hf->eos, (size_t)at * sizeof *hf->eos);
    hf->eos[0] = id;
    return true;
}

bool chat_end_leads(const char *template, const Tokenizer *t, HfConfig *hf, Error *e) {
    const char *end = chat_end_of_turn(template);
    int32_t id = end ? tokenizer_id(t, end) : -1;
    return id < 0 || ends_lead(hf, id, e);
}

bool engine_find_template(Engine *en, Error *e) {
    const Config *c = en->cfg;
    Error unknown = {0};
    en->template = NULL;
    if (!chat_template_choose(c->chat_template, tokenizer_path(en->tokenizer), &en->template, &unknown))
        return c->raw || error_set(e, unknown.code, "%s", unknown.text);
    return c->raw || chat_end_leads(en->template, en->tokenizer, &en->hf, e);
}

// Refuses a stop string with a special token in it and more: text leaves these tokens out, so none could have it.
static bool stops_can_be(const Engine *en, Error *e) {
    for (int i = 0; i < en->cfg->stop.n; i++) {
        const char *stop = en->cfg->stop.item[i], *token = tokenizer_special_in(en->tokenizer, stop);
        if (token && tokenizer_special_id(en->tokenizer, stop) < 0)
            return error_set(e, EXIT_CONFIG,
                             "stop: no completion could end at \"%.100s\": %s in it is a special token, which a "
                             "completion's text leaves out; give %s alone",
                             stop, token, token);
    }
    return true;
}

bool engine_prepare(Engine *en, const Config *c, Error *e) {
    *en = (Engine){.cfg = c};
    if (!config_json_read(c, &en->hf, e)) return false;
    en->tokenizer = tokenizer_load(*c->tokenizer ? c->tokenizer : c->model, e);
    if (en->tokenizer && hf_tokenizer_fits(&en->hf, c->model, en->tokenizer, e) && stops_can_be(en, e) &&
        engine_find_template(en, e))
        return true;
    engine_close(en);
    return false;
}

static void close_both(Engine *en, Learner *l) {
    if (en->device) {
        staging_close(&l->feed, NULL);
        en->device->free(en->device, en->params_base, en->plan.params);
        en->device->free(en->device, en->work_base, en->plan.work);
        free_views(en, l);
    }
    reward_models_free(en->models);
    comm_close(en->comm);
    device_close(en->device);
    tokenizer_free(en->tokenizer);
    *en = (Engine){0};
    *l = (Learner){0};
}

static bool cannot_open(Engine *en, Learner *l, const Error *e) {
    ranks_tell(e->code, e);
    close_both(en, l);
    return false;
}

// Opens the engine and, where l is not NULL, the learner around it, whose parts are carved out of the same two slabs.
static bool open_both(Engine *en, Learner *l, const Config *c, RunShape shape, Error *e) {
    if (!en->tokenizer && !engine_prepare(en, c, e)) return false;
    Engine prepared = *en;
    Device *d = device_open(c->device, ranks_gpu(), machine_threads((int)c->threads, ranks_here()), c->cpu_isa, e);
    if (!d) return cannot_open(en, l, e);
    bool described = describe(en, l, d, c, shape, e);
    // The ends were chosen with the template; the dims are those described, whose head may have turned out to be its
    // own.
    memcpy(en->hf.eos, prepared.hf.eos, sizeof en->hf.eos);
    en->hf.n_eos = prepared.hf.n_eos, en->tokenizer = prepared.tokenizer, en->template = prepared.template;
    if (!described || !ranks_join(c, d, model_dims_text(en->hf.dims), &en->comm, e)) return cannot_open(en, l, e);
    if (!comm_rank(en->comm) && *en->device->instead)
        note("device=auto: this runs on the CPU; %s", en->device->instead);
    en->device->products = c->matmul == MATMUL_CUBLAS ? PRODUCTS_LIBRARY : PRODUCTS_CHOSEN;
    if (c->matmul == MATMUL_CUBLAS && en->device->on_host)
        note("matmul=cublas has no effect: no GPU answers, and the CPU has its own products only");
    en->params_base = en->device->alloc(en->device, en->plan.params);
    en->work_base = en->device->alloc(en->device, en->plan.work);
    size_t need;
    MemoryLimit have;
    if (!en->params_base || !en->work_base || !plan_fits(en, &need, &have)) {
        no_memory(en, e);
        return cannot_open(en, l, e);
    }
    Plan ignored = {0};
    Arena params = arena_over(en->params_base, en->plan.params), work = arena_over(en->work_base, en->plan.work);
    carve_params(en, l, &params, &ignored);
    carve_work(en, l, &work, &ignored);
    bool fed = !shape.train || staging_open(&l->feed, en->device, feed_bytes(&l->work), e);
    return fed && load_weights(en, l, e) ? true : cannot_open(en, l, e);
}

bool engine_open(Engine *en, const Config *c, RunShape shape, Error *e) {
    if (shape.train || shape.reference) die("an engine alone does not train");
    Learner none = {0};
    return open_both(en, &none, c, shape, e);
}

void engine_close(Engine *en) {
    Learner none = {0};
    close_both(en, &none);
}

bool learner_open(Learner *l, const Config *c, RunShape shape, Error *e) {
    *l = (Learner){.engine = l->engine}; // perhaps prepared
    return open_both(&l->engine, l, c, shape, e);
}

void learner_close(Learner *l) { close_both(&l->engine, l); }

char *plan_table(const Engine *en) {
    Str s = {0};
    const double GiB = 1024.0 * 1024 * 1024;
    str_printf(&s, "%-50s %12s\n", en->cfg->gpus > 1 ? "memory of each rank" : "memory", "GiB");
    for (int i = 0; i < en->plan.n; i++)
        str_printf(&s, "%-50s %12.3f\n", en->plan.row[i].what, (double)en->plan.row[i].bytes / GiB);
    size_t need, one = plan_bytes(en);
    MemoryLimit have;
    bool fits = plan_fits(en, &need, &have);
    size_t ranks = need / one;
    str_printf(&s, "%-50s %12.3f\n", "in all (rollout and training share)", (double)one / GiB);
    char what[64];
    snprintf(what, sizeof what, "%zu ranks in this memory", ranks);
    if (ranks > 1) str_printf(&s, "%-50s %12.3f\n", what, (double)need / GiB);
    snprintf(what, sizeof what, "%s has", have.whose);
    str_printf(&s, "%-50s %12.3f\n", what, (double)have.bytes / GiB);
    const Config *c = en->cfg;
    if (fits) {
        str_puts(&s, "fits");
        return s.s;
    }
    str_printf(&s, "short by %.3f GiB; what helps:", (double)(need - have.bytes) / GiB);
    size_t before = s.n;
    if (ranks > 1) str_printf(&s, " gpus=%zu", ranks / 2);
    if (c->dtype == DTYPE_F32) str_puts(&s, " dtype=bf16");
    if (en->shape.train && !en->lora.rank && c->dtype == DTYPE_BF16 && c->optim_dtype == DTYPE_F32)
        str_puts(&s, " optim_dtype=f32_split");
    if (en->shape.train && c->optim_dtype != DTYPE_BF16) str_puts(&s, " optim_dtype=bf16");
    if (en->shape.train && !en->lora.rank && c->grad_dtype == DTYPE_F32) str_puts(&s, " grad_dtype=bf16");
    if (en->shape.train && !c->recompute && !c->gradient_checkpointing) str_puts(&s, " recompute=true");
    if (en->shape.train && !c->gradient_checkpointing) str_puts(&s, " gradient_checkpointing=true");
    if (en->shape.score_rows && !c->share_prompts && c->num_generations > 1) str_puts(&s, " share_prompts=true");
    if (en->shape.reference && !en->lora.rank && !c->sync_ref_model && !reference_turns(en))
        str_puts(&s, " reference_weights=reload");
    if (en->shape.reference && !en->lora.rank) str_puts(&s, " beta=0");
    if (en->shape.train && c->per_device_train_batch_size > 1)
        str_printf(&s, " per_device_train_batch_size=%" PRId64, c->per_device_train_batch_size / 2);
    if (en->shape.rollout.slots > 1) str_printf(&s, " rollout_batch=%d", en->shape.rollout.slots / 2);
    if (en->plan.judges == en->plan.work) str_puts(&s, " judge_model's parallel, max_prompt or max_tokens lower");
    if (en->plan.classifiers == en->plan.work) str_puts(&s, " reward_model's batch_tokens lower");
    if (s.n == before) str_puts(&s, " a smaller model, or more memory");
    return s.s;
}

bool engine_score(Engine *en, Batch *b, Error *e) {
    return !en->models || reward_models_score(en->models, en->device, b, e);
}

bool engine_grade(Engine *en, const Rewards *rw, const Batch *b, float *score, Error *e) {
    if (rw->grader.info->by_model) {
        if (!reward_models_grade(en->models, en->device, b, score, e)) return false;
    } else rewards_grade(rw, b, score);
    if (stop_requested()) return error_set(e, EXIT_STOPPED, "stopped by a signal"); // the grader may have given up
    return true;
}

bool engine_prompter_bare(const Engine *en, Prompter *p, Error *e) {
    if (prompter_open(p, en->cfg, &en->hf, en->tokenizer, en->template, e)) return true;
    prompter_close(p);
    return false;
}

bool engine_prompter(const Engine *en, Prompter *p, Error *e) {
    if (!engine_prompter_bare(en, p, e)) return false;
    if (prompter_show(p, e)) return true;
    prompter_close(p);
    return false;
}

StopRule engine_stop_rule(const Engine *en) {
    return (StopRule){en->hf.eos, en->hf.n_eos, en->cfg->stop, en->cfg->include_stop};
}
