// Runs that learn from rows of files. See supervised.h.
#include "supervised.h"
#include "clock.h"
#include "device.h"
#include "notes.h"
#include "optim.h"
#include "ranks.h"
#include "signals.h"
#include <math.h>
#include <stdlib.h>

bool supervised_update(Supervised *s, double start, double loss, double accuracy, int64_t tokens, bool *log, Error *e) {
    Learner *l = &s->learner;
    const char *bad = NULL;
    double norm, rate = optim_learning_rate(s->cfg, s->at.step, s->total_steps);
    profile_phase(&s->profile, "optimizer");
    if (!optim_grad_norm(l, &norm, &bad, e)) return false;
    bool good = isfinite(loss) && isfinite(norm);
    if (good && !optim_step(l, rate, norm, ++s->at.updates, e)) return false;
    l->engine.device->sync(l->engine.device);
    if (!device_ok(l->engine.device, e)) return false; // what was computed since is void
    s->at.skipped = good ? 0 : s->at.skipped + 1;
    s->at.step++;
    s->at.seen_tokens += tokens;
    s->at.cursor = mix_cursor(s->data);
    ProgressStep shown = {.reward = NAN,
                          .accuracy = accuracy,
                          .kl = NAN,
                          .length = NAN,
                          .loss = loss,
                          .tokens_per_second = (double)tokens / (clock_seconds() - start)};
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
    *log = s->metrics && (s->at.step % s->cfg->logging_steps == 0 || s->at.step == s->total_steps || !good);
    if (!*log) return true;
    metrics_add_int(s->metrics, "step", s->at.step);
    metrics_add(s->metrics, "epoch", (double)s->at.step / (double)s->steps_per_epoch);
    metrics_add(s->metrics, "loss", loss);
    metrics_add(s->metrics, "grad_norm", norm);
    metrics_add(s->metrics, "learning_rate", rate);
    return true;
}

// Brings an open learner to the first step that is not made yet.
static bool resume(Supervised *s, const SupervisedKind *kind, Error *e) {
    const Config *c = s->cfg;
    Engine *en = &s->learner.engine;
    int64_t rows = mix_rows(s->data), n = optim_step_rows(c);
    s->at.command = kind->command;
    s->steps_per_epoch = rows > n ? rows / n : 1;
    s->total_steps = optim_total_steps(c, s->steps_per_epoch);
    if (!comm_rank(en->comm)) s->progress = progress_open(stdout, c->progress, 0, s->total_steps);
    progress_say(s->progress, "%s%s; %lld %s checked%s, %lld steps of %lld", ranks_about(c), en->device->about,
                 (long long)rows, kind->rows, mix_about(s->data), (long long)s->total_steps, (long long)n);
    s->profile = profile_open(en->device, c, s->progress);
    if (!run_resume(&s->learner, &s->at, s->progress, &s->metrics, e)) return false;
    if (s->metrics) s->hooks = hooks_open(c);
    s->live = live_open(c->output_dir, s->metrics, c->report);
    run_record(&s->learner, &s->at, rows, s->total_steps);
    mix_seek(s->data, &s->at.cursor);
    return true;
}

static ExitCode train(Supervised *s, const SupervisedKind *kind, Error *e) {
    const Config *c = s->cfg;
    int64_t saved = s->at.step;
    run_say_done(&s->at, s->total_steps, s->progress);
    while (s->at.step < s->total_steps) {
        e->code = EXIT_OK;
        profile_step(&s->profile, s->at.step + 1);
        bool ok = kind->step(s, e) && (!s->metrics || metrics_commit(s->metrics, e));
        profile_phase(&s->profile, NULL);
        if (!ok && e->code != EXIT_OK) return e->code;
        bool last = s->at.step == s->total_steps;
        bool evaluate = last || (c->eval_steps > 0 && s->at.step % c->eval_steps == 0);
        if (ok && evaluate && kind->evaluate && !kind->evaluate(s, e)) return e->code;
        bool due = c->save_steps > 0 && s->at.step % c->save_steps == 0;
        if ((!ok || due || last) && saved != s->at.step) {
            if (!run_save(&s->learner, &s->at, s->metrics, s->hooks, e)) return e->code;
            saved = s->at.step;
            progress_say(s->progress, "saved %s/step_%lld", c->output_dir, (long long)s->at.step);
        }
        live_step(s->live);
        hooks_look(s->hooks);
        if (ok) continue;
        error_set(e, EXIT_STOPPED, "stopped after step %lld; the same command goes on from there",
                  (long long)s->at.step);
        return EXIT_STOPPED;
    }
    return EXIT_OK;
}

static void close_run(Supervised *s) {
    profile_close(&s->profile);
    hooks_close(s->hooks);
    live_close(s->live);
    metrics_close(s->metrics);
    progress_close(s->progress);
    free(s->at.batch);
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
    if (s->hooks)
        hooks_start(
            s->hooks, HOOK_END,
            &(HookCall){c.output_dir, s->at.step, metrics_last(s->metrics), metrics_last_eval(s->metrics), (int)code});
    if (*e->text) notes_add(e->text);
    kind->close(s);
    close_run(s);
    notes_close();
    config_free(&c);
    return code;
}
