// grpo sft: supervised fine-tuning on what the assistant says. Loss: mean negative log-likelihood of the tokens of the
// answers, over an optimizer step; prompts are read, not learned.
#include "chat.h"
#include "clock.h"
#include "commands.h"
#include "device.h"
#include "optim.h"
#include "ranks.h"
#include "signals.h"
#include "train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// An example as ids, and which of them are learned.
typedef struct {
    Ids ids;
    uint8_t *wanted; // [ids.n]
    size_t cap;
} Example;

// Says of the ids from `first` on whether they are learned.
static void example_mark(Example *x, size_t first, bool wanted) {
    if (x->ids.n > x->cap) x->wanted = xrealloc(x->wanted, x->cap = x->ids.n * 2);
    memset(x->wanted + first, wanted, x->ids.n - first);
}

static void example_add(Example *x, const Tokenizer *t, const char *text, size_t n, bool special, bool wanted) {
    size_t first = x->ids.n;
    tokenizer_encode(t, text, n, special, &x->ids);
    example_mark(x, first, wanted);
}

static void example_end(Example *x, int32_t eos) {
    ids_add(&x->ids, eos);
    example_mark(x, x->ids.n - 1, true);
}

// Prompt through the chat template (or as it is), then the completion and the token that ends an answer. They are
// tokenized apart, as they will be when the model answers.
static bool read_pair(const Prompter *p, const json_t *row, Example *x, Error *e) {
    const Config *c = p->run->cfg;
    const char *prompt = json_string_value(json_object_get(row, c->prompt_field));
    const char *completion = json_string_value(json_object_get(row, c->completion_field));
    if (!prompter_ids(p, prompt, &x->ids, e)) return false;
    example_mark(x, 0, false);
    example_add(x, p->run->tokenizer, completion, strlen(completion), false, true);
    example_end(x, p->run->hf.eos[0]);
    return true;
}

// Special tokens have no text.
static bool is_special(const Tokenizer *t, int32_t id) {
    Str text = {0};
    tokenizer_decode(t, &id, 1, true, &text);
    bool special = !text.n;
    str_free(&text);
    return special;
}

static size_t last_answer(const json_t *messages) {
    size_t i = json_array_size(messages);
    while (i-- > 0 && strcmp(json_string_value(json_object_get(json_array_get(messages, i), "role")), "assistant")) {
    }
    return i;
}

// A conversation: every turn of the assistant is learned, with the special token that ends it. Plain templates have no
// such token: there the last turn is followed by the one that ends sampling, as after a completion.
static bool read_messages(const Prompter *p, const json_t *messages, Example *x, Error *e) {
    const char *template = p->run->cfg->chat_template;
    const Tokenizer *tok = p->run->tokenizer;
    Str done = {0}, before = {0}, after = {0}; // rendered: what is tokenized so far, up to this turn, with this turn
    json_t *so_far = json_array();
    const json_t *m;
    size_t i, last = last_answer(messages);
    bool ok = true;
    json_array_foreach(messages, i, m) {
        bool answer = !strcmp(json_string_value(json_object_get(m, "role")), "assistant");
        const char *content = json_string_value(json_object_get(m, "content"));
        size_t n = strlen(content);
        str_clear(&before);
        str_clear(&after);
        if (answer && !i)
            ok = error_set(e, EXIT_INPUT, "messages[0] is of the assistant: nothing comes before it to answer");
        ok = ok && (!answer || chat_render(template, so_far, NULL, true, &before, e));
        json_array_append(so_far, (json_t *)(uintptr_t)m);
        if (!ok) break;
        if (!answer) continue;
        ok = chat_render(template, so_far, NULL, false, &after, e);
        if (ok && (before.n < done.n || after.n < before.n + n || memcmp(before.s, done.s ? done.s : "", done.n) ||
                   memcmp(after.s, before.s, before.n) || memcmp(after.s + before.n, content, n)))
            ok = error_set(e, EXIT_INPUT,
                           "messages[%zu]: the %s template does not render this conversation turn by turn; "
                           "use plain role and content messages",
                           i, template);
        if (!ok) break;
        example_add(x, tok, before.s + done.n, before.n - done.n, true, false);
        example_add(x, tok, content, n, false, true);
        size_t first_tail = x->ids.n;
        example_add(x, tok, after.s + before.n + n, after.n - before.n - n, true, false);
        if (x->ids.n > first_tail && is_special(tok, x->ids.id[first_tail])) x->wanted[first_tail] = 1;
        else if (i == last) {
            x->ids.n = first_tail;
            example_end(x, p->run->hf.eos[0]);
        }
        str_clear(&done);
        str_add(&done, after.s, after.n);
    }
    json_decref(so_far);
    str_free(&done);
    str_free(&before);
    str_free(&after);
    return ok;
}

// The next example with something to learn within max_length; longer ones are cut at the end.
static bool next_example(const Prompter *p, Dataset *data, Example *x, Error *e) {
    const Config *c = p->run->cfg;
    for (int64_t tried = 0; tried <= dataset_rows(data); tried++) {
        Row row;
        if (!dataset_next(data, &row, e)) return false;
        ids_clear(&x->ids);
        const json_t *messages = json_object_get(row.example, c->messages_field);
        bool ok = messages ? read_messages(p, messages, x, e) : read_pair(p, row.example, x, e);
        if (!ok) error_prefix(e, "%s:%lld", c->train_file, (long long)row.line);
        row_free(&row);
        if (!ok) return false;
        if ((int64_t)x->ids.n > c->max_length) x->ids.n = (size_t)c->max_length;
        for (size_t j = 1; j < x->ids.n; j++)
            if (x->wanted[j]) return true;
    }
    return error_set(e, EXIT_INPUT, "%s: no answer begins within max_length=%lld tokens; raise it", c->train_file,
                     (long long)c->max_length);
}

typedef struct {
    const Config *cfg;
    Run run;
    Prompter prompter;
    Dataset *data;
    Example example;
    Packing *packing; // [gradient_accumulation_steps] the micro-batches of one optimizer step
    int micros;       // those in use
    float *scored;    // [RunShape.kept] staging
    TrainState at;
    int64_t total_steps, steps_per_epoch;
    Metrics *metrics;
    Progress *progress;
    Profile profile;
} Sft;

// Draws the examples of one optimizer step, and packs this rank's share of them into micro-batches: as few as they fit in,
// or per_device_train_batch_size each. Which examples a step sees depends neither on packing nor on ranks.
static bool draw_step(Sft *s, int64_t *targets, Error *e) {
    const Config *c = s->cfg;
    int n = (int)(c->per_device_train_batch_size * c->gradient_accumulation_steps * c->gpus);
    RankShare own = rank_share(s->run.comm, n);
    s->micros = 0;
    *targets = 0;
    for (int i = 0; i < n; i++) {
        if (!next_example(&s->prompter, s->data, &s->example, e)) return false;
        const Ids *ids = &s->example.ids;
        for (size_t j = 1; j < ids->n; j++) *targets += s->example.wanted[j] != 0;
        if (i < own.first || i >= own.end) continue;
        bool fits =
            s->micros && packing_add(&s->packing[s->micros - 1], ids->id, (int64_t)ids->n, 0, s->example.wanted);
        if (!fits) {
            packing_clear(&s->packing[s->micros++]);
            if (!packing_add(&s->packing[s->micros - 1], ids->id, (int64_t)ids->n, 0, s->example.wanted))
                die("an example does not fit its micro-batch");
        }
    }
    return true;
}

// One micro-batch's gradients, asked for; its log-probs and entropies are kept from element `at` on.
static void train_micro(Sft *s, const Packing *p, double per_token, int64_t at) {
    Run *r = &s->run;
    TrainWork w = micro_pack(r, p);
    micro_forward(r, &r->policy, &w, 1);
    r->device->fill(r->device, w.dlogp, (float)-per_token);
    micro_backward(r, &w, 1, false);
    micro_keep(r, at, w.logp);
    micro_keep(r, at + p->N, w.entropy);
}

// Once the device is done: the step's sums of loss and entropy.
static void take_sums(Sft *s, double per_token, double *loss, double *entropy) {
    int64_t end = 0;
    for (int k = 0; k < s->micros; k++) end += 2 * s->packing[k].N;
    micro_kept(&s->run, end, s->scored);
    const float *at = s->scored;
    for (int k = 0; k < s->micros; k++) {
        for (int64_t j = 0; j < s->packing[k].N; j++) *loss -= *at++ * per_token;
        for (int64_t j = 0; j < s->packing[k].N; j++) *entropy += *at++ * per_token;
    }
}

// One optimizer step. False: stopped by a signal (e->code EXIT_OK), or an error.
static bool sft_step(Sft *s, Error *e) {
    Run *r = &s->run;
    double start = clock_seconds(), loss = 0, entropy = 0;
    int64_t targets, tokens = 0, kept = 0;
    if (!draw_step(s, &targets, e)) return false;
    r->device->fill(r->device, r->grad.slab, 0);
    bool stopped = false;
    for (int k = 0; k < s->micros && !(stopped = stop_requested()); k++) {
        progress_phase(s->progress, "train", k, s->micros);
        ranks_phase("train", s->at.step + 1);
        profile_phase(&s->profile, "train");
        train_micro(s, &s->packing[k], 1 / (double)targets, kept);
        kept += 2 * s->packing[k].N;
        tokens += s->packing[k].T;
    }
    if (!stopped) take_sums(s, 1 / (double)targets, &loss, &entropy);
    double sums[] = {loss, entropy, (double)tokens, stopped}; // of all ranks
    if (!comm_all_reduce(r->comm, "loss", sums, 4, e) || sums[3] > 0) return false;
    loss = sums[0], entropy = sums[1], tokens = (int64_t)sums[2];
    const char *bad = NULL;
    double norm, rate = optim_learning_rate(s->cfg, s->at.step, s->total_steps);
    profile_phase(&s->profile, "optimizer");
    if (!optim_grad_norm(r, &norm, &bad, e)) return false;
    bool good = isfinite(loss) && isfinite(norm);
    if (good && !optim_step(r, rate, norm, ++s->at.updates, e)) return false;
    r->device->sync(r->device);
    if (!device_ok(r->device, e)) return false; // what was computed since is void
    s->at.skipped = good ? 0 : s->at.skipped + 1;
    s->at.step++;
    s->at.seen_tokens += tokens;
    s->at.cursor = dataset_cursor(s->data);
    double seconds = clock_seconds() - start;
    if (!comm_rank(r->comm) && (s->at.step % s->cfg->logging_steps == 0 || s->at.step == s->total_steps || !good)) {
        metrics_add_int(s->metrics, "step", s->at.step);
        metrics_add(s->metrics, "epoch", (double)s->at.step / (double)s->steps_per_epoch);
        metrics_add(s->metrics, "loss", loss);
        metrics_add(s->metrics, "grad_norm", norm);
        metrics_add(s->metrics, "learning_rate", rate);
        metrics_add(s->metrics, "entropy", entropy);
        metrics_add_int(s->metrics, "num_tokens", s->at.seen_tokens);
        metrics_add(s->metrics, "step_time", seconds);
    }
    ProgressStep shown = {.reward = NAN,
                          .accuracy = NAN,
                          .kl = NAN,
                          .length = NAN,
                          .loss = loss,
                          .tokens_per_second = (double)tokens / seconds};
    progress_step(s->progress, s->at.step, &shown);
    if (!good)
        progress_say(s->progress, "step %lld skipped: %s is not finite; weights and optimizer are as before",
                     (long long)s->at.step,
                     !isfinite(loss) ? "the loss"
                     : bad           ? bad
                                     : "the gradient's norm");
    if (s->at.skipped >= s->cfg->max_bad_steps)
        return error_set(e, EXIT_NUMERIC, "%lld steps in a row were not finite; lower learning_rate",
                         (long long)s->at.skipped);
    return comm_rank(r->comm) || metrics_commit(s->metrics, e);
}

static bool sft_open(Sft *s, const Config *c, Error *e) {
    s->cfg = c;
    s->at.command = "sft";
    s->data = dataset_open_sft(c->train_file, c, e);
    RunShape shape = shape_for_sft(c);
    if (!s->data || !run_open(&s->run, c, shape, e) || !prompter_open(&s->prompter, &s->run, e)) return false;
    if (c->max_length > s->run.hf.dims.max_positions)
        return error_set(e, EXIT_CONFIG, "max_length %lld is more than the model's context of %d tokens; lower it",
                         (long long)c->max_length, s->run.hf.dims.max_positions);
    if (!s->run.hf.n_eos)
        return error_set(e, EXIT_INPUT,
                         "%s: no eos_token_id in generation_config.json or config.json; without it no answer ends",
                         c->model);
    s->packing = xcalloc((size_t)c->gradient_accumulation_steps, sizeof *s->packing);
    for (int64_t k = 0; k < c->gradient_accumulation_steps; k++)
        s->packing[k] = packing_new(shape.train_tokens, shape.train_seqs);
    s->scored = xcalloc((size_t)shape.kept, sizeof *s->scored);
    int64_t n = c->per_device_train_batch_size * c->gradient_accumulation_steps * c->gpus;
    s->steps_per_epoch = dataset_rows(s->data) > n ? dataset_rows(s->data) / n : 1;
    s->total_steps = optim_total_steps(c, s->steps_per_epoch);
    if (!comm_rank(s->run.comm)) s->progress = progress_open(stdout, c->progress, 0, s->total_steps);
    progress_say(s->progress, "%s%s; %lld examples, %lld steps of %lld", ranks_about(c), s->run.device->about,
                 (long long)dataset_rows(s->data), (long long)s->total_steps, (long long)n);
    s->profile = profile_open(s->run.device, c, s->progress);
    if (!run_resume(&s->run, &s->at, s->progress, &s->metrics, e)) return false;
    dataset_seek(s->data, s->at.cursor);
    return true;
}

static void sft_close(Sft *s) {
    profile_close(&s->profile);
    metrics_close(s->metrics);
    progress_close(s->progress);
    for (int64_t k = 0; s->packing && k < s->cfg->gradient_accumulation_steps; k++) packing_free(&s->packing[k]);
    free(s->packing);
    free(s->scored);
    ids_free(&s->example.ids);
    free(s->example.wanted);
    free(s->at.batch);
    dataset_free(s->data);
    prompter_close(&s->prompter);
    run_close(&s->run);
}

static ExitCode sft(Sft *s, Error *e) {
    const Config *c = s->cfg;
    int64_t saved = s->at.step;
    run_say_done(&s->at, s->total_steps, s->progress);
    while (s->at.step < s->total_steps) {
        e->code = EXIT_OK;
        profile_step(&s->profile, s->at.step + 1);
        bool ok = sft_step(s, e);
        profile_phase(&s->profile, NULL);
        if (!ok && e->code != EXIT_OK) return e->code;
        bool due = c->save_steps > 0 && s->at.step % c->save_steps == 0;
        if ((!ok || due || s->at.step == s->total_steps) && saved != s->at.step) {
            if (!run_save(&s->run, &s->at, s->metrics, e)) return e->code;
            saved = s->at.step;
            progress_say(s->progress, "saved %s/step_%lld", c->output_dir, (long long)s->at.step);
        }
        if (ok) continue;
        error_set(e, EXIT_STOPPED, "stopped after step %lld; the same command goes on from there",
                  (long long)s->at.step);
        return EXIT_STOPPED;
    }
    return EXIT_OK;
}

ExitCode command_sft(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "sft", argc, argv, e)) return e->code;
    signals_install(true);
    Sft s = {0};
    ExitCode code;
    if (!ranks_start(&c, &code, e)) {
        config_free(&c);
        return code;
    }
    code = sft_open(&s, &c, e) ? sft(&s, e) : e->code;
    sft_close(&s);
    config_free(&c);
    return code;
}
