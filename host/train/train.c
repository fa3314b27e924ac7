// grpo train: open, resume, step, log, evaluate, save, until done or told to stop.
#include "eval.h"
#include "notes.h"
#include "optim.h"
#include "ranks.h"
#include "signals.h"
#include "train.h"
#include "train_commands.h"
#include <stdlib.h>

// Sizes that follow from the configuration and the data set.
static void count_steps(Trainer *t) {
    const Config *c = t->cfg;
    int64_t questions = config_generation_size(c) / c->num_generations; // of one generation
    t->generation.steps_per_pass = (int)(config_steps_per_generation(c) / c->gradient_accumulation_steps);
    int64_t generations = mix_rows(t->questions.data) / questions;
    if (generations < 1) generations = 1;
    t->questions.steps_per_epoch = generations * t->generation.steps_per_pass * c->num_iterations;
    t->total_steps = optim_total_steps(c, t->questions.steps_per_epoch);
}

// Opens the rows to train on, and those to evaluate on during the run. Every row is checked now, so that a bad one does
// not end the run in step 900.
static bool open_data(Trainer *t, Error *e) {
    const Config *c = t->cfg;
    t->questions.data = mix_open(c, dataset_open, &(RowCheck){prompter_check, &t->questions.prompter}, e);
    if (!t->questions.data || c->eval_steps <= 0) return t->questions.data;
    t->questions.held_out = dataset_open(c->eval_file, c, &(RowCheck){prompter_check_eval, &t->questions.prompter}, e);
    return t->questions.held_out != NULL;
}

// What becomes of prompts that are too long: said once the ranks know that they were given the same.
static void note_long(const Trainer *t) {
    const Prompter *p = &t->questions.prompter;
    if (comm_rank(t->learner.engine.comm)) return;
    prompter_note_long(p, "train_file", mix_rows(t->questions.data), false);
    if (t->questions.held_out) prompter_note_long(p, "eval_file", dataset_rows(t->questions.held_out), true);
}

bool trainer_open(Trainer *t, const Config *c, Error *e) {
    *t = (Trainer){.cfg = c, .state = {.command = "train", .entropy_coef = c->entropy_coef, .last_entropy = -1}};
    if (!rewards_select_training(c, &t->scoring.rewards, e) || !rewards_open(&t->scoring.rewards, e)) return false;
    rewards_note_stops(&t->scoring.rewards, c);
    t->scoring.scorer = scorer_open(&t->scoring.rewards, (int)c->reward_threads, e);
    for (int k = 0; k < t->scoring.rewards.n; k++) t->scoring.weights[k] = (float)t->scoring.rewards.reward[k].weight;
    RunShape shape = shape_for_train(c, &t->scoring.rewards);
    if (!t->scoring.scorer || !engine_prepare(&t->learner.engine, c, e) ||
        !engine_prompter(&t->learner.engine, &t->questions.prompter, e) || !open_data(t, e) ||
        !learner_open(&t->learner, c, shape, e)) {
        trainer_close(t);
        return false;
    }
    t->generation.batch = batch_new(shape.score_rows / (int)c->num_generations, (int)c->num_generations,
                                    (int)c->max_completion_length, t->scoring.rewards.n);
    t->generation.packing = packing_new(shape.train_tokens, shape.train_seqs);
    t->generation.order = xcalloc((size_t)t->generation.batch.n, sizeof *t->generation.order);
    t->generation.metric = xcalloc((size_t)t->generation.batch.n, sizeof *t->generation.metric);
    t->generation.joined =
        xcalloc((size_t)(c->max_prompt_length + c->max_completion_length), sizeof *t->generation.joined);
    t->generation.scored = xcalloc((size_t)shape.held, sizeof *t->generation.scored);
    t->generation.exact = t->learner.engine.device->products != PRODUCTS_LIBRARY;
    count_steps(t);
    note_long(t);
    return true;
}

void trainer_close(Trainer *t) {
    run_report_close(&t->report);
    packing_free(&t->generation.packing);
    batch_free(&t->generation.batch);
    free(t->generation.order);
    free(t->generation.metric);
    free(t->generation.joined);
    free(t->generation.scored);
    free(t->state.batch);
    hf_files_free(t->state.files);
    mix_free(t->questions.data);
    dataset_free(t->questions.held_out);
    prompter_close(&t->questions.prompter);
    learner_close(&t->learner);
    scorer_close(t->scoring.scorer);
    rewards_note(&t->scoring.rewards);
    rewards_close(&t->scoring.rewards);
    *t = (Trainer){0};
}

bool trainer_save(Trainer *t, Error *e) {
    free(t->state.batch);
    t->state.batch = NULL;
    t->state.batch_bytes = 0;
    if (t->state.fed && !comm_rank(t->learner.engine.comm))
        t->state.batch = batch_pack(&t->generation.batch, t->cfg->beta != 0, &t->state.batch_bytes);
    return run_save(&t->learner, &t->state, t->report.metrics, t->report.hooks, e);
}

bool trainer_resume(Trainer *t, Error *e) {
    if (!run_resume(&t->learner, &t->state, t->report.progress, &t->report.metrics, e)) return false;
    if (t->state.fed && !batch_unpack(&t->generation.batch, t->cfg->beta != 0, t->state.batch, t->state.batch_bytes))
        return error_set(
            e, EXIT_CONFIG,
            "the checkpoint's half-used generation does not fit this configuration, of %lld completions on "
            "%lld rank%s; resume with the gpus, batch sizes, rewards and beta in the checkpoint's "
            "state/config.yaml",
            (long long)t->generation.batch.n, (long long)t->cfg->gpus, t->cfg->gpus == 1 ? "" : "s");
    if (t->state.fed)
        grpo_order(t->generation.order, t->generation.batch.n, t->generation.steps_per_pass, (uint64_t)t->cfg->seed,
                   (uint64_t)t->generation.batch.key[0]);
    if (t->report.metrics) t->report.hooks = hooks_open(t->cfg);
    t->report.live = live_open(t->cfg->output_dir, t->report.metrics, t->cfg->report);
    run_record(&t->learner.engine, &t->state, mix_rows(t->questions.data), t->total_steps);
    t->generation.next_key = t->state.next_key;
    mix_seek(t->questions.data, &t->state.cursor);
    return true;
}

static bool due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

// Held-out accuracy in the middle of a run: one line of metrics.jsonl.
static bool evaluate(Trainer *t, Error *e) {
    EvalResult r;
    progress_phase(t->report.progress, "eval", 0, 0);
    ranks_phase("eval", t->state.step);
    if (!eval_run(&t->learner.engine, &t->questions.prompter, t->questions.held_out, &t->scoring.rewards,
                  t->cfg->eval_limit, 1, &r, e))
        return false;
    t->state.evaluated = t->state.step;
    if (comm_rank(t->learner.engine.comm)) return true;
    metrics_add_int(t->report.metrics, "step", t->state.step);
    metrics_add(t->report.metrics, "eval/accuracy", r.strict);
    const bool graded = t->scoring.rewards.grader.info;
    if (graded) metrics_add_int(t->report.metrics, "eval/ungraded", eval_ungraded(&r));
    else metrics_add(t->report.metrics, "eval/lenient_accuracy", r.lenient);
    metrics_add(t->report.metrics, "eval/reward", r.reward);
    metrics_add(t->report.metrics, "eval/mean_length", r.length);
    Str said = {0};
    str_printf(&said, "step %lld: eval accuracy ", (long long)t->state.step);
    str_printf(&said, r.graded > 0 ? "%.1f %%" : "unknown", 100 * r.strict);
    if (!graded) str_printf(&said, ", lenient %.1f %%", 100 * r.lenient);
    str_printf(&said, ", reward %.3f (%lld questions", r.reward, (long long)r.questions);
    if (eval_ungraded(&r)) str_printf(&said, ", %lld answers without a verdict left out", (long long)eval_ungraded(&r));
    progress_say(t->report.progress, "%s)", said.s);
    str_free(&said);
    if (!metrics_commit(t->report.metrics, e)) return false;
    HookCall call = {t->cfg->output_dir, t->state.step, metrics_last(t->report.metrics),
                     metrics_last_eval(t->report.metrics), 0};
    hooks_start(t->report.hooks, HOOK_EVAL, &call);
    return true;
}

static bool evaluation_due(const Trainer *t) {
    return t->questions.held_out && t->state.step > 0 && t->state.evaluated != t->state.step &&
           due(t->cfg->eval_steps, t->state.step);
}

static ExitCode give_up(const Trainer *t, Error *e) {
    error_set(e, EXIT_NUMERIC,
              "%lld steps in a row were not finite (the last: %s) and changed nothing; lower learning_rate, or look at "
              "the data of step %lld; the same command goes on from the last checkpoint, if one was saved",
              (long long)t->state.skipped, t->stats.bad, (long long)t->state.step);
    return EXIT_NUMERIC;
}

static ExitCode stop(Trainer *t, bool saved, Error *e) {
    if (!saved && !trainer_save(t, e)) return e->code;
    error_set(e, EXIT_STOPPED, "stopped after step %lld%s%s; the same command goes on from there",
              (long long)t->state.step, t->state.step ? "; saved in " : "", t->state.step ? t->cfg->output_dir : "");
    return EXIT_STOPPED;
}

// A failure between steps: what was learned since the last checkpoint is saved where it is not at fault.
static ExitCode fail(Trainer *t, bool saved, Error *e) {
    Error why = {0};
    if (saved || !run_saves_first(&t->learner.engine, e)) return e->code;
    run_say_saved(&t->state, t->cfg->output_dir, trainer_save(t, &why), &why, e);
    return e->code;
}

// The loop. An evaluation that a signal cut short is made first thing after resuming.
static ExitCode train(Trainer *t, Error *e) {
    const Config *c = t->cfg;
    int64_t saved = t->state.step;
    bool resumed = evaluation_due(t);
    if (!resumed) run_say_done(&t->state, t->total_steps, t->report.progress);
    while (t->state.step < t->total_steps || resumed) {
        if (!resumed) {
            profile_step(&t->report.profile, t->state.step + 1);
            StepResult s = grpo_step(t, e);
            profile_phase(&t->report.profile, NULL);
            if (s == STEP_FAILED) return fail(t, saved == t->state.step, e);
            if (s == STEP_STOPPED) return stop(t, saved == t->state.step, e);
            if (!train_log(t, s, e)) return e->code;
            if (t->state.skipped >= c->max_bad_steps) return give_up(t, e);
        }
        if (evaluation_due(t) && !evaluate(t, e))
            return e->code == EXIT_STOPPED ? stop(t, saved == t->state.step, e) : fail(t, saved == t->state.step, e);
        if (resumed || due(c->save_steps, t->state.step) || t->state.step == t->total_steps) {
            if (!trainer_save(t, e)) return e->code;
            saved = t->state.step;
            progress_say(t->report.progress, "saved %s/step_%lld", c->output_dir, (long long)t->state.step);
        }
        live_step(t->report.live);
        hooks_look(t->report.hooks);
        resumed = false;
    }
    return EXIT_OK;
}

ExitCode command_train(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "train", argc, argv, e)) return e->code;
    signals_install(true);
    notes_begin();
    Trainer t = {0};
    ExitCode code = EXIT_OK;
    if (!ranks_start(&c, &code, e)) {
        config_free(&c);
        return code;
    }
    if (!disk_mkdir(c.output_dir, e) || !trainer_open(&t, &c, e)) code = e->code;
    else {
        if (!comm_rank(t.learner.engine.comm)) t.report.progress = progress_open(stdout, c.progress, 0, t.total_steps);
        progress_say(t.report.progress, "%s%s; %lld questions checked%s, %lld steps of %lld completions%s",
                     ranks_about(&c), t.learner.engine.device->about, (long long)mix_rows(t.questions.data),
                     mix_about(t.questions.data), (long long)t.total_steps, (long long)optim_step_rows(&c),
                     c.share_prompts && c.per_device_train_batch_size > 1
                         ? ", which share their prompt's rows in training"
                         : "");
        t.report.profile = profile_open(t.learner.engine.device, &c, t.report.progress);
        code = trainer_resume(&t, e) ? train(&t, e) : e->code;
        run_say_end(&t.report, &c, t.state.step, code, e);
        run_report_close(&t.report); // hooks may take longer than ranks have once a failure is told
        ranks_tell(code, e);
        trainer_close(&t);
    }
    notes_close();
    config_free(&c);
    return code;
}
