// The command `select`: completions of a model for the questions of a file, scored by rewards, and of them those that
// rules allow, as a file for supervised tuning: rejection sampling.
//
// What is drawn is written to samples.jsonl as it comes, and what is kept is made from that file alone. So a stopped
// run goes on where it was and ends in the same bytes, and another choice among the samples costs no sampling.
#include "exchange.h"
#include "select.h"
#include "clock.h"
#include "eval.h"
#include "output.h"
#include "progress.h"
#include "ranks.h"
#include "signals.h"
#include "train.h"
#include "train_commands.h"
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    const Config *cfg;
    Engine engine;
    Prompter prompter;
    Rewards rewards;
    Scorer *scorer;
    SelectRules *rules;
    Dataset *data;
    Log samples; // rank 0's
    Progress *progress;
    int64_t rows, done; // questions to ask; of them in samples.jsonl
    int64_t lacking;    // completions there that lack a score which may come; rank 0's
} Select;

// The counts of a chunk of questions, over all ranks.
enum { CAME_STOPPED, CAME_RIGHT, CAME_REWARD, CAME_REWARDED, CAME_TOKENS, CAME_COMPLETIONS, CAME };

static void add_prompt(const Select *s, const Batch *b, int p, int64_t row, double *sums, Str *lines) {
    select_put(b, p, &s->rewards, s->cfg->train_file.n > 1 ? dataset_path(s->data, row) : NULL, lines);
    for (int i = p * b->group; i < (p + 1) * b->group && b->prompt[p].n; i++) {
        Drawn d = {.truncated = b->finish[i] == FINISH_LENGTH, .reward = b->reward[i]};
        for (int k = 0; k < s->rewards.n; k++) d.score[k] = b->score[i * b->n_rewards + k];
        sums[CAME_RIGHT] += select_right(s->rules, &d);
        if (!isnan(d.reward)) sums[CAME_REWARD] += (double)d.reward, sums[CAME_REWARDED]++;
        sums[CAME_TOKENS] += b->len[i];
        sums[CAME_COMPLETIONS]++;
    }
}

// Draws and scores questions [first, first + n) into *lines.
static bool draw(Select *s, Batch *b, int64_t first, int n, double *sums, Str *lines, Error *e) {
    Engine *en = &s->engine;
    if (!prompter_rows(&s->prompter, s->data, first, n, false, b, e)) return false;
    scorer_begin(s->scorer, b);
    bool ok = rollout_run(&en->rollout, en->device, &en->policy, en->tokenizer, engine_stop_rule(en),
                          sample_params(s->cfg), b, scorer_watch(s->scorer), e) &&
              rollout_finite(b, e) && engine_score(en, b, e);
    ok = scorer_end(s->scorer, ok, e);
    for (int p = 0; p < n && ok; p++) add_prompt(s, b, p, first + p, sums, lines);
    return ok;
}

// Rank 0 writes what all ranks drew, in the order of the questions.
static bool write_lines(Select *s, Str *mine, Error *e) {
    Comm *comm = s->engine.comm;
    uint64_t *end = xcalloc((size_t)comm_world(comm), sizeof *end);
    char *all = NULL;
    bool ok = true;
    if (comm) ok = comm_collect(comm, "samples", mine->s ? mine->s : "", mine->n, &all, end, e);
    if (ok && !comm_rank(comm)) {
        str_add(&s->samples.pending, comm ? all : mine->s, comm ? end[comm_world(comm) - 1] : mine->n);
        ok = log_commit(&s->samples, e);
    }
    if (ok) free(all);
    free(end);
    return ok;
}

static void show(Select *s, const double *sums, double seconds) {
    ProgressStep shown = {.reward = sums[CAME_REWARDED] ? sums[CAME_REWARD] / sums[CAME_REWARDED] : NAN,
                          .accuracy = sums[CAME_COMPLETIONS] ? sums[CAME_RIGHT] / sums[CAME_COMPLETIONS] : NAN,
                          .length = sums[CAME_COMPLETIONS] ? sums[CAME_TOKENS] / sums[CAME_COMPLETIONS] : NAN,
                          .kl = NAN,
                          .loss = NAN,
                          .tokens_per_second = sums[CAME_TOKENS] / seconds};
    progress_step(s->progress, s->done, &shown);
}

// Draws chunk after chunk: enough questions at a time to keep every slot of every rank busy.
static bool draw_all(Select *s, Error *e) {
    Comm *comm = s->engine.comm;
    int64_t chunk = 4 * s->engine.shape.rollout.slots / s->cfg->select_samples;
    if (chunk < 1) chunk = 1;
    s->scorer = scorer_open(&s->rewards, (int)s->cfg->reward_threads, e);
    if (!s->scorer) return false;
    if (chunk > s->rows) chunk = s->rows;
    Batch b = batch_new((int)chunk, (int)s->cfg->select_samples, (int)s->cfg->max_completion_length, s->rewards.n);
    Str lines = {0};
    bool ok = true;
    while (ok && s->done < s->rows) {
        double sums[CAME] = {0}, start = clock_seconds();
        int64_t all = chunk * comm_world(comm), n = s->rows - s->done < all ? s->rows - s->done : all;
        RankRange own = rank_range(comm, (int)n);
        ranks_phase("select", s->done);
        progress_phase(s->progress, "sampling", s->done, s->rows);
        str_clear(&lines);
        ok = draw(s, &b, s->done + own.first, own.end - own.first, sums, &lines, e);
        bool stopped = !ok && e->code == EXIT_STOPPED;
        sums[CAME_STOPPED] = stopped;
        if (comm && (ok || stopped)) ok = comm_all_reduce(comm, "select", sums, CAME, e);
        if (ok && sums[CAME_STOPPED] > 0) stopped = true;
        if (ok && !stopped) ok = ranks_exchange_rewards(comm, &s->rewards, e);
        if (stopped)
            ok = error_set(e, EXIT_STOPPED, "stopped after %lld of %lld questions; the same command goes on from there",
                           (long long)s->done, (long long)s->rows);
        if (!ok || !(ok = write_lines(s, &lines, e))) break;
        s->done += n;
        show(s, sums, clock_seconds() - start);
    }
    str_free(&lines);
    batch_free(&b);
    return ok;
}

// Finds how far an earlier run came: rank 0 looks and tells all.
static bool resume(Select *s, Error *e) {
    Comm *comm = s->engine.comm;
    int64_t lines = 0;
    bool ok = true;
    if (!comm_rank(comm)) {
        char *head = select_drawn_with(s->cfg, e);
        ok = head && disk_mkdir(s->cfg->select_output, e) &&
             select_resume(s->cfg, &s->rewards, s->data, head, &lines, &s->done, &s->lacking, e) &&
             log_open(&s->samples, s->cfg->select_output, "samples.jsonl", lines, e);
        if (ok && !lines) {
            str_printf(&s->samples.pending, "%s\n", head);
            ok = log_commit(&s->samples, e);
        }
        free(head);
    }
    if (!ok) return false;
    return !comm || comm_broadcast(comm, "samples.jsonl", &s->done, sizeof s->done, 0, e);
}

// Asks again for scores that an earlier run did not get, as where a judge was away. Rank 0 does that while the others
// begin to draw. The file is locked until its successor is there.
static bool ask_again(Select *s, Error *e) {
    if (!s->lacking) return true;
    int64_t lines = s->samples.lines, came;
    progress_say(s->progress, "%lld completions there lack a score: their rewards are asked again",
                 (long long)s->lacking);
    bool ok = select_again(s->cfg, &s->rewards, &came, e);
    progress_say(s->progress, "%lld of them have it now", (long long)came);
    if (!ok) return false;
    log_close(&s->samples);
    return log_open(&s->samples, s->cfg->select_output, "samples.jsonl", lines, e);
}

// The questions of all files, one behind the other.
static bool open_questions(Select *s, Error *e) {
    const FileList *files = &s->cfg->train_file;
    for (int f = 0; f < files->n; f++) {
        Dataset *one = dataset_open(files->item[f].path, s->cfg, &(RowCheck){prompter_check, &s->prompter}, e);
        if (!one) return false;
        s->data = dataset_join(s->data, one);
    }
    return true;
}

static bool select_open(Select *s, const Config *c, Error *e) {
    s->cfg = c;
    s->samples.fd = -1;
    if (!engine_prepare(&s->engine, c, e) || !engine_prompter(&s->engine, &s->prompter, e)) return false;
    if (!open_questions(s, e) || !rewards_select(c, &s->rewards, e) || !rewards_open(&s->rewards, e)) return false;
    s->rules = select_rules_open(c, &s->rewards, e);
    if (!s->rules) return false;
    rewards_note_stops(&s->rewards, c);
    s->rows = dataset_rows(s->data);
    if (c->select_limit && c->select_limit < s->rows) s->rows = c->select_limit;
    RunShape shape = shape_for_rollout(c, s->rows * c->select_samples, s->rows);
    shape.rewards = &s->rewards;
    if (!engine_open(&s->engine, c, shape, e) || !resume(s, e)) return false;
    if (!comm_rank(s->engine.comm)) {
        s->progress = progress_open(stderr, PROGRESS_AUTO, s->done, s->rows);
        progress_say(s->progress, "%s%s; %lld questions checked%s, %lld completions each%s", ranks_about(c),
                     s->engine.device->about, (long long)s->rows, dataset_skipped_text(dataset_skipped(s->data)),
                     (long long)c->select_samples, s->done ? "" : ", all to be drawn");
        if (s->done)
            progress_say(s->progress, "%s/samples.jsonl has those of %lld questions", c->select_output,
                         (long long)s->done);
        return ask_again(s, e);
    }
    return true;
}

// Makes kept.jsonl and says what was dropped.
static bool keep(Select *s, Error *e) {
    SelectCount count;
    if (!log_sync(&s->samples, e) ||
        !select_keep(s->cfg, &s->rewards, s->prompter.system, s->rules, s->rows, &count, e))
        return false;
    Str table = {0};
    select_table(s->rules, &count, &table);
    str_printf(&table, "%s/kept.jsonl\n", s->cfg->select_output);
    progress_close(s->progress);
    s->progress = NULL;
    bool ok = output_write(STDOUT_FILENO, table.s, table.n) || output_flush(e);
    str_free(&table);
    if (!ok || count.kept) return ok;
    if (!count.completions)
        return error_set(
            e, EXIT_INPUT,
            "no question was asked: the prompt of each of the %lld is longer than max_prompt_length, which "
            "is %lld tokens; raise it, with another select_output",
            (long long)count.long_prompts, (long long)s->cfg->max_prompt_length);
    Str why = {0};
    select_dropped(s->rules, &count, &why);
    error_set(e, EXIT_INPUT, "no completion is kept of %lld%s%s; the samples are in %s/samples.jsonl, %s",
              (long long)count.completions, why.n ? ": " : "", why.n ? why.s : "", s->cfg->select_output,
              select_lacks(s->rules, &count) ? "the same command asks for the scores that they lack again"
                                             : "looser rules need no new ones");
    str_free(&why);
    return false;
}

static void select_close(Select *s) {
    progress_close(s->progress);
    scorer_close(s->scorer);
    log_close(&s->samples);
    select_rules_close(s->rules);
    rewards_note(&s->rewards);
    rewards_close(&s->rewards);
    prompter_close(&s->prompter);
    dataset_free(s->data);
    engine_close(&s->engine);
}

ExitCode command_select(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "select", argc, argv, e)) return e->code;
    signals_install(true);
    ExitCode code;
    if (!ranks_start(&c, &code, e)) {
        config_free(&c);
        return code;
    }
    Select s = {0};
    bool ok = select_open(&s, &c, e) && draw_all(&s, e) && (comm_rank(s.engine.comm) || keep(&s, e));
    code = ok ? EXIT_OK : e->code;
    ranks_tell(code, e);
    select_close(&s);
    config_free(&c);
    return code;
}
