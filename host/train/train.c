// grpo train: open, resume, step, log, evaluate, save, until done or told to stop.
#include "eval.h"
#include "optim.h"
#include "ranks.h"
#include "signals.h"
#include "train.h"
#include <stdlib.h>

static int steps_per_generation(const Config *c) {
    return (int)(c->steps_per_generation ? c->steps_per_generation : c->gradient_accumulation_steps);
}

// Sizes that follow from the configuration and the data set.
static void count_steps(Trainer *t) {
    const Config *c = t->cfg;
    int64_t per_generation = c->per_device_train_batch_size * c->gpus * steps_per_generation(c) / c->num_generations;
    t->steps_per_pass = steps_per_generation(c) / (int)c->gradient_accumulation_steps;
    int64_t generations = dataset_rows(t->data) / per_generation;
    if (generations < 1) generations = 1;
    t->steps_per_epoch = generations * t->steps_per_pass * c->num_iterations;
    t->total_steps = optim_total_steps(c, t->steps_per_epoch);
}

// The rows to train on, and those to evaluate on now and then; all that each must be is seen here, not in step 900.
static bool open_data(Trainer *t, Error *e) {
    const Config *c = t->cfg;
    t->data = dataset_open(c->train_file, c, &(RowCheck){prompter_check, &t->prompter}, e);
    if (!t->data || c->eval_steps <= 0) return t->data;
    t->held_out = dataset_open(c->eval_file, c, &(RowCheck){prompter_check_eval, &t->prompter}, e);
    return t->held_out != NULL;
}

bool trainer_open(Trainer *t, const Config *c, Error *e) {
    *t = (Trainer){.cfg = c, .at.command = "train"};
    if (!rewards_select(c, &t->rewards, e) || !rewards_open(&t->rewards, e)) return false;
    t->scorer = scorer_open(&t->rewards, (int)c->reward_threads, e);
    for (int k = 0; k < t->rewards.n; k++) t->weights[k] = (float)t->rewards.reward[k].weight;
    RunShape shape = shape_for_train(c, t->rewards.n);
    if (!t->scorer || !engine_prepare(&t->learner.engine, c, e) ||
        !engine_prompter(&t->learner.engine, &t->prompter, e) || !open_data(t, e) ||
        !learner_open(&t->learner, c, shape, e)) {
        trainer_close(t);
        return false;
    }
    t->batch = batch_new(shape.score_rows / (int)c->num_generations, (int)c->num_generations,
                         (int)c->max_completion_length, t->rewards.n);
    t->packing = packing_new(shape.train_tokens, shape.train_seqs);
    t->order = xcalloc((size_t)t->batch.n, sizeof *t->order);
    t->metric = xcalloc((size_t)t->batch.n, sizeof *t->metric);
    t->joined = xcalloc((size_t)(c->max_prompt_length + c->max_completion_length), sizeof *t->joined);
    t->scored = xcalloc((size_t)shape.kept, sizeof *t->scored);
    t->exact = !t->learner.engine.device->library_products;
    count_steps(t);
    return true;
}

void trainer_close(Trainer *t) {
    profile_close(&t->profile);
    metrics_close(t->metrics);
    progress_close(t->progress);
    packing_free(&t->packing);
    batch_free(&t->batch);
    free(t->order);
    free(t->metric);
    free(t->joined);
    free(t->scored);
    free(t->at.batch);
    dataset_free(t->data);
    dataset_free(t->held_out);
    prompter_close(&t->prompter);
    learner_close(&t->learner);
    scorer_close(t->scorer);
    rewards_note(&t->rewards);
    rewards_close(&t->rewards);
    *t = (Trainer){0};
}

bool trainer_save(Trainer *t, Error *e) {
    free(t->at.batch);
    t->at.batch = NULL;
    t->at.batch_bytes = 0;
    if (t->at.part && !comm_rank(t->learner.engine.comm))
        t->at.batch = batch_pack(&t->batch, t->cfg->beta != 0, &t->at.batch_bytes);
    return run_save(&t->learner, &t->at, t->metrics, e);
}

bool trainer_resume(Trainer *t, Error *e) {
    if (!run_resume(&t->learner, &t->at, t->progress, &t->metrics, e)) return false;
    if (t->at.part && !batch_unpack(&t->batch, t->cfg->beta != 0, t->at.batch, t->at.batch_bytes))
        return error_set(
            e, EXIT_CONFIG,
            "the checkpoint's half-used generation does not fit this configuration, of %lld completions on "
            "%lld rank%s; resume with the gpus, batch sizes, rewards and beta in the checkpoint's "
            "state/config.yaml",
            (long long)t->batch.n, (long long)t->cfg->gpus, t->cfg->gpus == 1 ? "" : "s");
    if (t->at.part)
        grpo_order(t->order, t->batch.n, t->steps_per_pass > 1, (uint64_t)t->cfg->seed, (uint64_t)t->batch.key[0]);
    t->next_key = t->at.next_key;
    dataset_seek(t->data, t->at.cursor);
    return true;
}

static bool due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

// Held-out accuracy in the middle of a run: one line of metrics.jsonl.
static bool evaluate(Trainer *t, Error *e) {
    EvalResult r;
    progress_phase(t->progress, "eval", 0, 0);
    ranks_phase("eval", t->at.step);
    if (!eval_run(&t->learner.engine, &t->prompter, t->held_out, &t->rewards, t->cfg->eval_limit, 1, &r, e))
        return false;
    t->at.evaluated = t->at.step;
    if (comm_rank(t->learner.engine.comm)) return true;
    metrics_add_int(t->metrics, "step", t->at.step);
    metrics_add(t->metrics, "eval/accuracy", r.strict);
    metrics_add(t->metrics, "eval/lenient_accuracy", r.lenient);
    metrics_add(t->metrics, "eval/reward", r.reward);
    metrics_add(t->metrics, "eval/mean_length", r.length);
    progress_say(t->progress, "step %lld: eval accuracy %.1f %%, lenient %.1f %%, reward %.3f (%lld questions)",
                 (long long)t->at.step, 100 * r.strict, 100 * r.lenient, r.reward, (long long)r.questions);
    return metrics_commit(t->metrics, e);
}

static bool evaluation_due(const Trainer *t) {
    return t->held_out && t->at.step > 0 && t->at.evaluated != t->at.step && due(t->cfg->eval_steps, t->at.step);
}

static ExitCode give_up(const Trainer *t, Error *e) {
    error_set(e, EXIT_NUMERIC,
              "%lld steps in a row were not finite (the last: %s) and changed nothing; lower learning_rate, or look at "
              "the data of step %lld; the same command goes on from the last checkpoint, if one was saved",
              (long long)t->at.skipped, t->stats.bad, (long long)t->at.step);
    return EXIT_NUMERIC;
}

static ExitCode stop(Trainer *t, bool saved, Error *e) {
    if (!saved && !trainer_save(t, e)) return e->code;
    error_set(e, EXIT_STOPPED, "stopped after step %lld%s%s; the same command goes on from there",
              (long long)t->at.step, t->at.step ? "; saved in " : "", t->at.step ? t->cfg->output_dir : "");
    return EXIT_STOPPED;
}

// The loop. An evaluation that a signal cut short is made first thing after resuming.
static ExitCode train(Trainer *t, Error *e) {
    const Config *c = t->cfg;
    int64_t saved = t->at.step;
    bool resumed = evaluation_due(t);
    if (!resumed) run_say_done(&t->at, t->total_steps, t->progress);
    while (t->at.step < t->total_steps || resumed) {
        if (!resumed) {
            profile_step(&t->profile, t->at.step + 1);
            StepResult s = grpo_step(t, e);
            profile_phase(&t->profile, NULL);
            if (s == STEP_FAILED) return e->code;
            if (s == STEP_STOPPED) return stop(t, saved == t->at.step, e);
            if (!train_log(t, s, e)) return e->code;
            if (t->at.skipped >= c->max_bad_steps) return give_up(t, e);
        }
        if (evaluation_due(t) && !evaluate(t, e))
            return e->code == EXIT_STOPPED ? stop(t, saved == t->at.step, e) : e->code;
        if (resumed || due(c->save_steps, t->at.step) || t->at.step == t->total_steps) {
            if (!trainer_save(t, e)) return e->code;
            saved = t->at.step;
            progress_say(t->progress, "saved %s/step_%lld", c->output_dir, (long long)t->at.step);
        }
        resumed = false;
    }
    return EXIT_OK;
}

ExitCode command_train(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "train", argc, argv, e)) return e->code;
    signals_install(true);
    Trainer t = {0};
    ExitCode code = EXIT_OK;
    if (!ranks_start(&c, &code, e)) {
        config_free(&c);
        return code;
    }
    if (!disk_mkdir(c.output_dir, e) || !trainer_open(&t, &c, e)) code = e->code;
    else {
        if (!comm_rank(t.learner.engine.comm)) t.progress = progress_open(stdout, c.progress, 0, t.total_steps);
        progress_say(t.progress, "%s%s; %lld questions checked%s, %lld steps of %lld completions", ranks_about(&c),
                     t.learner.engine.device->about, (long long)dataset_rows(t.data), dataset_about(t.data),
                     (long long)t.total_steps,
                     (long long)(c.per_device_train_batch_size * c.gradient_accumulation_steps * c.gpus));
        t.profile = profile_open(t.learner.engine.device, &c, t.progress);
        code = trainer_resume(&t, e) ? train(&t, e) : e->code;
        trainer_close(&t);
    }
    config_free(&c);
    return code;
}
