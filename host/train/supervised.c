// Runs that learn from rows of files. See supervised.h.
#include "supervised.h"
#include "clock.h"
#include "device.h"
#include "notes.h"
#include "optim.h"
#include "ranks.h"
#include "signals.h"
#include "train_commands.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

bool max_length_fits(const Config *c, const HfConfig *hf, Error *e) {
    return c->max_length <= hf->dims.max_positions ||
           error_set(e, EXIT_CONFIG, "max_length %lld is more than the model's context of %d tokens; lower it",
                     (long long)c->max_length, hf->dims.max_positions);
}

bool supervised_update(Supervised *s, double start, double loss, double accuracy, int64_t tokens, bool *log, Error *e) {
    Learner *l = &s->learner;
    const char *bad = NULL;
    double norm, rate = optim_learning_rate(s->cfg, s->state.step, s->total_steps);
    profile_phase(&s->report.profile, "optimizer");
    if (!optim_grad_norm(l, &norm, &bad, e)) return false;
    bool good = isfinite(loss) && isfinite(norm);
    if (good && !optim_step(l, rate, norm, ++s->state.updates, e)) return false;
    l->engine.device->sync(l->engine.device);
    if (!device_ok(l->engine.device, e)) return false; // what was computed since is void
    s->state.skipped = good ? 0 : s->state.skipped + 1;
    s->state.step++;
    s->state.seen_tokens += tokens;
    s->state.cursor = mix_cursor(s->data);
    ProgressStep shown = {.reward = NAN,
                          .accuracy = accuracy,
                          .kl = NAN,
                          .length = NAN,
                          .loss = loss,
                          .tokens_per_second = (double)tokens / (clock_seconds() - start)};
    progress_step(s->report.progress, s->state.step, &shown);
    if (!good) {
        bool gradient = !isfinite(norm);
        snprintf(s->bad, sizeof s->bad, "%s%s%s%s%s", isfinite(loss) ? "" : "the loss",
                 !isfinite(loss) && gradient ? ", and " : "", gradient ? "the gradient" : "",
                 gradient && bad ? " of "
                 : gradient      ? "'s norm"
                                 : "",
                 gradient && bad ? bad : "");
        run_say_skipped(&s->state, s->bad, s->report.progress);
    }
    *log =
        s->report.metrics && (s->state.step % s->cfg->logging_steps == 0 || s->state.step == s->total_steps || !good);
    if (!*log) return true;
    metrics_add_int(s->report.metrics, "step", s->state.step);
    metrics_add(s->report.metrics, "epoch", (double)s->state.step / (double)s->steps_per_epoch);
    metrics_add(s->report.metrics, "loss", loss);
    metrics_add(s->report.metrics, "grad_norm", norm);
    metrics_add(s->report.metrics, "learning_rate", rate);
    if (!good) metrics_add_int(s->report.metrics, "skipped", s->state.skipped);
    return true;
}

static ExitCode give_up(const Supervised *s, Error *e) {
    error_set(e, EXIT_NUMERIC,
              "%lld steps in a row were not finite (the last: %s) and changed nothing; lower learning_rate, or look at "
              "the data of step %lld; the same command goes on from the last checkpoint, if one was saved",
              (long long)s->state.skipped, s->bad, (long long)s->state.step);
    return EXIT_NUMERIC;
}

// Brings an open learner to the first step that is not made yet.
static bool resume(Supervised *s, const SupervisedKind *kind, Error *e) {
    const Config *c = s->cfg;
    Engine *en = &s->learner.engine;
    int64_t rows = mix_rows(s->data), n = optim_step_rows(c);
    s->state.command = kind->command;
    s->steps_per_epoch = rows > n ? rows / n : 1;
    s->total_steps = optim_total_steps(c, s->steps_per_epoch);
    if (!comm_rank(en->comm)) s->report.progress = progress_open(stdout, c->progress, 0, s->total_steps);
    progress_say(s->report.progress, "%s%s; %lld %s checked%s, %lld steps of %lld", ranks_about(c), en->device->about,
                 (long long)rows, kind->rows, mix_about(s->data), (long long)s->total_steps, (long long)n);
    s->report.profile = profile_open(en->device, c, s->report.progress);
    if (!run_resume(&s->learner, &s->state, s->report.progress, &s->report.metrics, e)) return false;
    if (s->report.metrics) s->report.hooks = hooks_open(c);
    s->report.live = live_open(c->output_dir, s->report.metrics, c->report);
    run_record(&s->learner.engine, &s->state, rows, s->total_steps);
    mix_seek(s->data, &s->state.cursor);
    return true;
}

// A failure between steps: what was learned since the last checkpoint is saved where it is not at fault.
static ExitCode fail(Supervised *s, bool saved, Error *e) {
    Error why = {0};
    if (saved || !run_saves_first(&s->learner.engine, e)) return e->code;
    bool ok = run_save(&s->learner, &s->state, s->report.metrics, s->report.hooks, &why);
    run_say_saved(&s->state, s->cfg->output_dir, ok, &why, e);
    return e->code;
}

static ExitCode train(Supervised *s, const SupervisedKind *kind, Error *e) {
    const Config *c = s->cfg;
    int64_t saved = s->state.step;
    run_say_done(&s->state, s->total_steps, s->report.progress);
    while (s->state.step < s->total_steps) {
        e->code = EXIT_OK;
        profile_step(&s->report.profile, s->state.step + 1);
        bool ok = kind->step(s, e) && (!s->report.metrics || metrics_commit(s->report.metrics, e));
        profile_phase(&s->report.profile, NULL);
        if (!ok && e->code != EXIT_OK) return fail(s, saved == s->state.step, e);
        if (ok && s->state.skipped >= c->max_bad_steps) return give_up(s, e);
        bool last = s->state.step == s->total_steps;
        bool evaluate = last || (c->eval_steps > 0 && s->state.step % c->eval_steps == 0);
        if (ok && evaluate && kind->evaluate && !kind->evaluate(s, e)) return fail(s, saved == s->state.step, e);
        bool due = c->save_steps > 0 && s->state.step % c->save_steps == 0;
        if ((!ok || due || last) && saved != s->state.step) {
            if (!run_save(&s->learner, &s->state, s->report.metrics, s->report.hooks, e)) return e->code;
            saved = s->state.step;
            progress_say(s->report.progress, "saved %s/step_%lld", c->output_dir, (long long)s->state.step);
        }
        live_step(s->report.live);
        hooks_look(s->report.hooks);
        if (ok) continue;
        error_set(e, EXIT_STOPPED, "stopped after step %lld; the same command goes on from there",
                  (long long)s->state.step);
        return EXIT_STOPPED;
    }
    return EXIT_OK;
}

static void close_run(Supervised *s) {
    run_report_close(&s->report);
    free(s->state.batch);
    hf_files_free(s->state.files);
    mix_free(s->data);
    learner_close(&s->learner);
}

ExitCode supervised_command(const SupervisedKind *kind, Supervised *s, int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, kind->command, argc, argv, e)) return e->code;
    signals_install(true);
    notes_begin();
    s->cfg = &c;
    ExitCode code;
    if (!ranks_start(&c, &code, e)) {
        config_free(&c);
        return code;
    }
    code = kind->open(s, e) && resume(s, kind, e) ? train(s, kind, e) : e->code;
    run_say_end(&s->report, &c, s->state.step, code, e);
    run_report_close(&s->report); // hooks may take longer than ranks have once a failure is told
    ranks_tell(code, e);
    kind->close(s);
    close_run(s);
    notes_close();
    config_free(&c);
    return code;
}
