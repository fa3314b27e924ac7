// A run: what a command has open. Memory is two slabs whose sizes come from running the carving code once from a null
// base; `grpo plan` prints that table.
#include "chat.h"
#include "device.h"
#include "ranks.h"
#include "run.h"
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

static DType dtype_of(int choice) { return choice == DTYPE_F32 ? F32 : BF16; }

// Weights, and all that lives as long as the run.
static void carve_params(Run *r, Arena *a, Plan *p) {
    const Config *c = r->cfg;
    DType t = dtype_of(c->dtype), state = dtype_of(c->optim_dtype);
    size_t at = a->used;
    r->policy = model_carve(a, r->hf.dims, t);
    plan_add(p, "weights", a->used - at);
    int64_t n = r->policy.slab.dim[0];
    if (r->shape.train) {
        at = a->used;
        r->grad = model_carve(a, r->hf.dims, dtype_of(c->grad_dtype));
        plan_add(p, "gradients", a->used - at);
        at = a->used;
        comm_slice(n, ranks_rank(), (int)c->gpus, &r->first, &n); // of the optimizer's state a rank keeps its slice
        if (t == BF16 && state == F32) r->master = arena_new(a, F32, n);
        r->moment1 = arena_new(a, state, n);
        r->moment2 = arena_new(a, state, n);
        r->norms = arena_new(a, I64, 1);
        plan_add(p, c->gpus > 1 ? "optimizer state (this rank's slice)" : "optimizer state", a->used - at);
    }
    at = a->used;
    if (r->shape.reference) r->reference = model_carve(a, r->hf.dims, t);
    plan_add(p, "reference weights", a->used - at);
}

static TrainWork carve_train(Arena *a, const Run *r) {
    const RunShape s = r->shape;
    int64_t T = s.train_tokens, B = s.train_seqs, R = s.n_rewards > 0 ? s.n_rewards : 1;
    TrainWork w = {.acts = activations_carve(a, r->hf.dims, dtype_of(r->cfg->dtype), T, true, r->cfg->recompute)};
    Tensor *i32s[] = {&w.ids, &w.pos, &w.rows, &w.target};
    for (size_t i = 0; i < sizeof i32s / sizeof *i32s; i++) *i32s[i] = arena_new(a, I32, T);
    Tensor *f32s[] = {&w.logp, &w.lse, &w.entropy, &w.dlogp, &w.dentropy, &w.old_logp, &w.ref_logp};
    for (size_t i = 0; i < sizeof f32s / sizeof *f32s; i++) *f32s[i] = arena_new(a, F32, T);
    w.seq = arena_new(a, I32, B + 1);
    w.offsets = arena_new(a, I32, B + 1);
    w.index = arena_new(a, I32, B);
    w.mask = arena_new(a, U8, B);
    w.rewards = arena_new(a, F32, s.score_rows > 0 ? s.score_rows : 1, R);
    w.weights = arena_new(a, F32, R);
    w.advantage = arena_new(a, F32, B);
    w.kept = arena_new(a, F32, s.kept > 0 ? s.kept : 1);
    return w;
}

// What micro_pack and micro_upload send for one micro-batch.
static size_t feed_bytes(const TrainWork *w) {
    const Tensor all[] = {w->ids,  w->pos,      w->seq,      w->rows, w->target,  w->offsets, w->index,
                          w->mask, w->old_logp, w->ref_logp, w->lse,  w->entropy, w->rewards, w->weights};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) bytes += tensor_bytes(all[i]);
    return bytes;
}

// Rollout and training take turns in the same memory.
static void carve_work(Run *r, Arena *a, Plan *p) {
    size_t start = arena_mark(a);
    if (r->shape.rollout.slots) {
        r->rollout = rollout_carve(a, r->hf.dims, dtype_of(r->cfg->dtype), r->shape.rollout);
        plan_add(p, "rollout: KV cache", tensor_bytes(r->rollout.cache.kv));
        plan_add(p, "rollout: activations", a->used - start - tensor_bytes(r->rollout.cache.kv));
    }
    arena_rewind(a, start);
    if (r->shape.train) {
        r->work = carve_train(a, r);
        plan_add(p, "training: activations (in the rollout's memory)", a->used - start);
    }
}

static void free_views(Run *r) {
    model_free(&r->policy);
    model_free(&r->grad);
    model_free(&r->reference);
    rollout_free(&r->rollout);
    activations_free(&r->work.acts);
}

bool run_describe(Run *r, const Config *c, RunShape shape, Error *e) {
    *r = (Run){.cfg = c, .shape = shape};
    if (!*c->model) return error_set(e, EXIT_CONFIG, "model: not set; give a HF model directory, as model=PATH");
    if (!hf_config_read(c->model, &r->hf, e)) return false;
    if (c->init != INIT_RANDOM && !hf_head_read(c->model, &r->hf.dims, e)) return false;
    if (shape.rollout.slots && shape.rollout.max_prompt + shape.rollout.max_completion > r->hf.dims.max_positions)
        return error_set(
            e, EXIT_CONFIG,
            "max_prompt_length %d + max_completion_length %d is more than the model's context of %d tokens "
            "(max_position_embeddings in %s/config.json); lower one of them",
            shape.rollout.max_prompt, shape.rollout.max_completion, r->hf.dims.max_positions, c->model);
    Arena params = arena_measure(), work = arena_measure();
    carve_params(r, &params, &r->plan);
    carve_work(r, &work, &r->plan);
    free_views(r);
    plan_add(&r->plan, "kernels' scratch", DEVICE_SCRATCH);
    r->plan.params = params.peak;
    r->plan.work = work.peak;
    return true;
}

// Of one rank.
static size_t plan_bytes(const Run *r) { return r->plan.params + r->plan.work + DEVICE_SCRATCH; }

bool run_fits(const Run *r, size_t *need, MemoryLimit *have) {
    // On the CPU all ranks take their memory from the same place; on a GPU each from its own.
    bool cpu = r->device ? on_host(r->device) : r->cfg->device == DEVICE_CPU;
    if (r->device && !cpu) *have = (MemoryLimit){r->device->memory(r->device), "this GPU", true};
    else *have = machine_memory(cpu ? (int)r->cfg->gpus : 1);
    *need = plan_bytes(r) * (cpu && !have->own ? (size_t)r->cfg->gpus : 1);
    return *need <= have->bytes;
}

static bool no_memory(const Run *r, Error *e) {
    char *table = plan_table(r);
    size_t need;
    MemoryLimit have;
    error_set(e, EXIT_MEMORY, "not enough memory for this run%s\n%s",
              run_fits(r, &need, &have) ? ": it would fit if other programs did not hold so much; end them" : "",
              table);
    free(table);
    return false;
}

static bool load_weights(Run *r, Error *e) {
    const Config *c = r->cfg;
    if (c->init == INIT_RANDOM) model_init_random(r->device, &r->policy, (uint64_t)c->seed);
    else if (!hf_weights_read(c->model, r->device, &r->policy, c->load, e)) return false;
    if (present(r->master))
        r->device->cast(r->device, r->master, tensor_rows(r->policy.slab, r->first, r->master.dim[0]));
    if (r->shape.reference) r->device->cast(r->device, r->reference.slab, r->policy.slab);
    r->device->sync(r->device);
    return device_ok(r->device, e);
}

static bool join_ranks(Run *r, Error *e) {
    ModelDims n = r->hf.dims;
    char *facts = xasprintf("V=%d D=%d F=%d L=%d H=%d K=%d d=%d max_positions=%d eps=%.9g theta=%.9g tied=%d", n.V, n.D,
                            n.F, n.L, n.H, n.K, n.d, n.max_positions, (double)n.rms_eps, (double)n.rope_theta, n.tied);
    bool ok = ranks_join(r->cfg, r->device, facts, &r->comm, e);
    free(facts);
    return ok;
}

// Puts an id before the others that end a text; where it is one of them already, it only moves.
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

bool run_find_template(Run *r, Error *e) {
    const Config *c = r->cfg;
    Error unknown = {0};
    r->template = NULL;
    if (!chat_template_choose(c->chat_template, tokenizer_path(r->tokenizer), &r->template, &unknown))
        return c->raw || error_set(e, unknown.code, "%s", unknown.text);
    const char *end = chat_end_of_turn(r->template);
    int32_t id = end && !c->raw ? tokenizer_id(r->tokenizer, end) : -1;
    return id < 0 || ends_lead(&r->hf, id, e);
}

bool run_prepare(Run *r, const Config *c, Error *e) {
    *r = (Run){.cfg = c};
    if (!hf_config_read(c->model, &r->hf, e)) return false;
    r->tokenizer = tokenizer_load(*c->tokenizer ? c->tokenizer : c->model, e);
    bool ok = r->tokenizer != NULL;
    if (ok && tokenizer_size(r->tokenizer) > r->hf.dims.V)
        ok = error_set(
            e, EXIT_INPUT,
            "%s has ids up to %d, but the model in %s has a vocabulary of %d rows; use the model's own tokenizer",
            tokenizer_path(r->tokenizer), tokenizer_size(r->tokenizer) - 1, c->model, r->hf.dims.V);
    if (ok && run_find_template(r, e)) return true;
    run_close(r);
    return false;
}

bool run_open(Run *r, const Config *c, RunShape shape, Error *e) {
    if (!r->tokenizer && !run_prepare(r, c, e)) return false;
    Run prepared = *r;
    bool described = run_describe(r, c, shape, e);
    r->hf = prepared.hf, r->tokenizer = prepared.tokenizer, r->template = prepared.template;
    if (!described) {
        run_close(r);
        return false;
    }
    r->device = device_open(c->device, ranks_gpu(), machine_threads((int)c->threads, ranks_here()), c->cpu_isa, e);
    if (!r->device || !join_ranks(r, e)) {
        run_close(r);
        return false;
    }
    if (!comm_rank(r->comm) && device_fell_back(c->device, r->device))
        note("device=auto: no GPU answers, this runs on the CPU; device=cuda says why");
    r->device->library_products = c->matmul == MATMUL_CUBLAS;
    if (r->device->library_products && !strcmp(r->device->name, "cpu"))
        note("matmul=cublas has no effect: no GPU answers, and the CPU has its own products only");
    r->params_base = r->device->alloc(r->device, r->plan.params);
    r->work_base = r->device->alloc(r->device, r->plan.work);
    size_t need;
    MemoryLimit have;
    if (!r->params_base || !r->work_base || !run_fits(r, &need, &have)) {
        no_memory(r, e);
        run_close(r);
        return false;
    }
    Plan ignored = {0};
    Arena params = arena_over(r->params_base, r->plan.params), work = arena_over(r->work_base, r->plan.work);
    carve_params(r, &params, &ignored);
    carve_work(r, &work, &ignored);
    bool fed = !shape.train || staging_open(&r->feed, r->device, feed_bytes(&r->work), e);
    if (fed && load_weights(r, e)) return true;
    run_close(r);
    return false;
}

void run_close(Run *r) {
    if (r->device) {
        staging_close(&r->feed, NULL);
        r->device->free(r->device, r->params_base, r->plan.params);
        r->device->free(r->device, r->work_base, r->plan.work);
        free_views(r);
    }
    comm_close(r->comm);
    device_close(r->device);
    tokenizer_free(r->tokenizer);
    *r = (Run){0};
}

char *plan_table(const Run *r) {
    Str s = {0};
    const double GiB = 1024.0 * 1024 * 1024;
    str_printf(&s, "%-50s %12s\n", r->cfg->gpus > 1 ? "memory of each rank" : "memory", "GiB");
    for (int i = 0; i < r->plan.n; i++)
        str_printf(&s, "%-50s %12.3f\n", r->plan.row[i].what, (double)r->plan.row[i].bytes / GiB);
    size_t need, one = plan_bytes(r);
    MemoryLimit have;
    bool fits = run_fits(r, &need, &have);
    size_t ranks = need / one;
    str_printf(&s, "%-50s %12.3f\n", "in all (rollout and training share)", (double)one / GiB);
    char what[64];
    snprintf(what, sizeof what, "%zu ranks in this memory", ranks);
    if (ranks > 1) str_printf(&s, "%-50s %12.3f\n", what, (double)need / GiB);
    snprintf(what, sizeof what, "%s has", have.whose);
    str_printf(&s, "%-50s %12.3f\n", what, (double)have.bytes / GiB);
    const Config *c = r->cfg;
    if (fits) {
        str_puts(&s, "fits");
        return s.s;
    }
    str_printf(&s, "short by %.3f GiB; what helps:", (double)(need - have.bytes) / GiB);
    size_t before = s.n;
    if (ranks > 1) str_printf(&s, " gpus=%zu", ranks / 2);
    if (c->dtype == DTYPE_F32) str_puts(&s, " dtype=bf16");
    if (r->shape.train && c->optim_dtype == DTYPE_F32) str_puts(&s, " optim_dtype=bf16");
    if (r->shape.train && c->grad_dtype == DTYPE_F32) str_puts(&s, " grad_dtype=bf16");
    if (r->shape.train && !c->recompute) str_puts(&s, " recompute=true");
    if (r->shape.reference) str_puts(&s, " beta=0");
    if (r->shape.train && c->per_device_train_batch_size > 1)
        str_printf(&s, " per_device_train_batch_size=%" PRId64, c->per_device_train_batch_size / 2);
    if (r->shape.rollout.slots > 1) str_printf(&s, " rollout_batch=%d", r->shape.rollout.slots / 2);
    if (s.n == before) str_puts(&s, " a smaller model, or more memory");
    return s.s;
}

RunShape shape_for_rollout(const Config *c, int64_t sequences, int64_t prompts) {
    int slots = c->rollout_batch > 0 ? (int)c->rollout_batch : 64;
    if (slots > sequences) slots = (int)sequences;
    if (prompts > slots) prompts = slots; // more are never held at a time
    return (RunShape){.rollout =
                          rollout_shape(slots, (int)prompts, (int)c->max_prompt_length, (int)c->max_completion_length)};
}

RunShape shape_for_train(const Config *c, int n_rewards) {
    int64_t a_rank = c->per_device_train_batch_size *
                     (c->steps_per_generation ? c->steps_per_generation : c->gradient_accumulation_steps);
    int n = (int)(a_rank * c->gpus), groups = n / (int)c->num_generations;
    int held = (groups + (int)c->gpus - 1) / (int)c->gpus; // groups that one rank answers, at most
    RunShape s = shape_for_rollout(c, held * c->num_generations, held);
    s.train = true;
    s.reference = c->beta != 0;
    s.train_seqs = (int)c->per_device_train_batch_size;
    s.train_tokens = c->per_device_train_batch_size * (c->max_prompt_length + c->max_completion_length);
    s.score_rows = n;
    s.n_rewards = n_rewards;
    s.kept = (int64_t)n * (c->max_completion_length > GM_COUNT ? c->max_completion_length : GM_COUNT);
    return s;
}

RunShape shape_for_sft(const Config *c) {
    int64_t tokens = c->per_device_train_batch_size * c->max_length;
    return (RunShape){.train = true,
                      .train_tokens = tokens,
                      .train_seqs =
                          (int)(c->per_device_train_batch_size * (c->packing ? c->gradient_accumulation_steps : 1)),
                      .kept = 2 * c->gradient_accumulation_steps * tokens};
}

bool run_prompter(const Run *r, Prompter *p, Error *e) {
    return prompter_open(p, r->cfg, &r->hf, r->tokenizer, r->template, e);
}

StopRule run_stop_rule(const Run *r) { return (StopRule){r->hf.eos, r->hf.n_eos, r->cfg->stop}; }
