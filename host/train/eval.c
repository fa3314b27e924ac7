// GSM8K accuracy: greedy, or pass@k and majority over several completions; graded strictly (the answer between the
// tags, as a string) and leniently (the last number, as a number), so that learning the format cannot pass for
// learning. For other questions eval_grader names the reward that judges: `accuracy:gold=latex` for MATH-500,
// `binary_code` for code.
#include "exchange.h"
#include "eval.h"
#include "output.h"
#include "ranks.h"
#include "signals.h"
#include "train.h"
#include "train_commands.h"
#include "whole.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <string.h>

// Bytes of a space that may stand between groups of three digits: plain, no-break, thin, narrow no-break. 0: none.
static size_t group_space(const char *p) {
    return *p == ' '                                                          ? 1
           : !strncmp(p, "\xc2\xa0", 2)                                       ? 2
           : !strncmp(p, "\xe2\x80\x89", 3) || !strncmp(p, "\xe2\x80\xaf", 3) ? 3
                                                                              : 0;
}

static size_t digits_at(const char *p) { return strspn(p, "0123456789"); }

// Appends the text with U+2212 as the minus sign it is; `grouped`: and without the spaces of "1 250 000".
static void plain_numbers(const char *text, bool grouped, Str *out) {
    size_t group = 0; // digits of a number so far that could be its first groups
    for (const char *p = text; *p;) {
        size_t space = grouped && group ? group_space(p) : 0, n = digits_at(p);
        if (space && digits_at(p + space) == 3) p += space;
        else if (!strncmp(p, "\xe2\x88\x92", 3)) str_puts(out, "-"), p += 3, group = 0;
        else if (n) {
            bool begins = p == text || !strchr(".,", p[-1]);
            group = group ? group : begins && n <= 3;
            str_add(out, p, n);
            p += n;
        } else str_add(out, p++, 1), group = 0;
    }
}

// The last number of a text: digits, with inner commas and one decimal point, which may come first, a minus sign before
// them. Puts it into *out, which is empty, without commas, a trailing point or leading zeros; false where there is
// none.
static bool last_number(const char *text, Str *out) {
    const char *end = text + strlen(text);
    while (end > text && !isdigit((unsigned char)end[-1])) end--;
    const char *p = end;
    while (p > text && (isdigit((unsigned char)p[-1]) ||
                        ((p[-1] == ',' || p[-1] == '.') && p - 1 > text && isdigit((unsigned char)p[-2]))))
        p--;
    if (p == end) return false;
    // A point with nothing before it that it could end, as in ".5" and "$.50".
    bool bare = p > text && p[-1] == '.' && (p - 1 == text || strchr(" \t\n\r-+=$~:>([{*", p[-2]));
    const char *sign = p - bare;
    if (sign > text && sign[-1] == '-' && !(sign - 1 > text && isdigit((unsigned char)sign[-2]))) str_puts(out, "-");
    bool point = bare || memchr(p, '.', (size_t)(end - p)) != NULL, leading = !bare;
    if (bare) str_puts(out, "0.");
    size_t start = out->n - (bare ? 2 : 0);
    for (; p < end; p++) {
        if (*p == ',' || (leading && *p == '0' && p + 1 < end && p[1] != '.')) continue;
        leading = false;
        str_add(out, p, 1);
    }
    while (point && out->n > start + 1 && out->s[out->n - 1] == '0') out->s[--out->n] = 0;
    if (point && out->n > start && out->s[out->n - 1] == '.') out->s[--out->n] = 0;
    if (!strcmp(out->s + start, "0")) str_clear(out), str_puts(out, "0"); // also where a minus sign stands before it
    return true;
}

static bool same_reading(const char *a, const char *b, bool grouped) {
    Str x = {0}, y = {0}, plain_a = {0}, plain_b = {0};
    plain_numbers(a, grouped, &plain_a);
    plain_numbers(b, grouped, &plain_b);
    bool same = plain_a.n && plain_b.n && last_number(plain_a.s, &x) && last_number(plain_b.s, &y) && !strcmp(x.s, y.s);
    str_free(&x), str_free(&y);
    str_free(&plain_a), str_free(&plain_b);
    return same;
}

// Lenient grading. "1 250" may be one number or two: either reading may equal the gold answer.
static bool same_number(const char *a, const char *b) { return same_reading(a, b, false) || same_reading(a, b, true); }

int grade_lenient(const char *text, const char *gold) { return same_number(text, gold); }

static int strict_reward(const char *text, const char *gold) {
    Reward r;
    Sample s = {.prompt = "", .completion = text, .completion_len = strlen(text), .answer = gold};
    float score = 0;
    if (!reward_parse("correctness", &r, NULL)) die("the correctness reward is gone");
    r.info->fn(&r, &s, 1, &score);
    return score > 0;
}

int grade_strict(const char *text, const char *gold) { return strict_reward(text, gold); }

// Index of the completion whose last number is the most frequent in the group (the earliest among equals).
static int majority(const Batch *b, int p) {
    int best = p * b->group, best_votes = 0;
    for (int i = p * b->group; i < (p + 1) * b->group; i++) {
        int votes = 0;
        for (int j = p * b->group; j < (p + 1) * b->group; j++) votes += same_number(b->text[i], b->text[j]);
        if (votes > best_votes) {
            best_votes = votes;
            best = i;
        }
    }
    return best;
}

// The unbiased estimate of pass@k from n completions of which c are right (Chen et al. 2021): 1 - C(n-c, k) / C(n, k).
static double pass_at(int n, int c, int k) {
    double miss = 1;
    for (int i = 0; i < k; i++) miss *= n - c - i > 0 ? (double)(n - c - i) / (n - i) : 0;
    return 1 - miss;
}

// Adds a score to a mean, unless it is an abstention (NaN): those are left out, as in training.
static void add_score(double *sum, double *n, float score) {
    if (!isnan(score)) *sum += score, ++*n;
}

// Adds the sums of one decoded and scored batch of `prompts` questions. graded: the scores of a grader; NULL: there is
// none.
static void tally(const Batch *b, int prompts, const float *graded, int n_rewards, EvalResult *out) {
    for (int p = 0; p < prompts; p++) {
        int right = 0, verdicts = 0;
        for (int i = p * b->group; i < (p + 1) * b->group; i++) {
            if (!graded || !isnan(graded[i])) {
                bool lenient = graded ? rewards_right(graded[i]) : grade_lenient(b->text[i], b->answer[p]);
                verdicts++;
                right += lenient;
                out->strict += graded ? lenient : grade_strict(b->text[i], b->answer[p]);
                out->lenient += lenient;
            }
            out->length += b->len[i];
            out->truncated += b->finish[i] == FINISH_LENGTH;
            add_score(&out->reward, &out->rewarded, b->reward[i]);
            for (int k = 0; k < n_rewards; k++)
                add_score(&out->each[k], &out->scored[k], b->score[i * b->n_rewards + k]);
        }
        out->graded += verdicts;
        for (int k = 1, j = 0; j < PASS_POINTS && k <= verdicts; k *= 2, j++)
            out->pass[j] += pass_at(verdicts, right, k), out->passable[j]++;
        out->majority += grade_lenient(b->text[majority(b, p)], b->answer[p]);
    }
}

// Adds up the ranks' sums. A signal that one rank got stops all.
static bool add_ranks(Comm *comm, EvalResult *out, bool stopped, Error *e) {
    double *const sums[] = {&out->strict, &out->lenient,   &out->graded,   &out->reward,
                            &out->length, &out->truncated, &out->majority, &out->rewarded};
    enum { SUMS = sizeof sums / sizeof *sums, STOPPED = SUMS, EACH, SCORED = EACH + MAX_REWARDS };
    double all[SCORED + MAX_REWARDS + 2 * PASS_POINTS], *each = all + EACH, *scored = all + SCORED,
                                                        *pass = scored + MAX_REWARDS, *passable = pass + PASS_POINTS;
    for (int i = 0; i < SUMS; i++) all[i] = *sums[i];
    all[STOPPED] = stopped;
    memcpy(each, out->each, sizeof out->each);
    memcpy(scored, out->scored, sizeof out->scored);
    memcpy(pass, out->pass, sizeof out->pass);
    memcpy(passable, out->passable, sizeof out->passable);
    if (!comm_all_reduce(comm, "evaluation", all, (int)(sizeof all / sizeof *all), e)) return false;
    for (int i = 0; i < SUMS; i++) *sums[i] = all[i];
    memcpy(out->each, each, sizeof out->each);
    memcpy(out->scored, scored, sizeof out->scored);
    memcpy(out->pass, pass, sizeof out->pass);
    memcpy(out->passable, passable, sizeof out->passable);
    return all[STOPPED] == 0 || error_set(e, EXIT_STOPPED, "stopped by a signal during evaluation");
}

bool eval_run(Engine *en, const Prompter *pr, Dataset *data, const Rewards *rw, int64_t limit, int samples,
              EvalResult *out, Error *e) {
    int64_t rows = dataset_rows(data);
    if (limit > 0 && limit < rows) rows = limit;
    *out = (EvalResult){.questions = rows, .samples = samples};
    SampleParams params = sample_params(en->cfg);
    if (samples == 1) params.temperature = 0;
    int chunk = 4 * en->shape.rollout.slots / samples; // enough to keep every slot busy
    chunk = chunk < 1 ? 1 : chunk;
    RankRange own = rank_range(en->comm, (int)rows);
    int mine = own.end - own.first;
    Scorer *scorer = scorer_open(rw, (int)en->cfg->reward_threads, e);
    if (!scorer) return false;
    Batch b = batch_new(chunk < mine ? chunk : mine, samples, (int)en->cfg->max_completion_length, rw->n);
    bool ok = true;
    for (int at = own.first; at < own.end && ok; at += b.prompts) {
        int n = own.end - at < b.prompts ? own.end - at : b.prompts;
        ok = prompter_rows(pr, data, at, n, true, &b, e); // every question counts in an accuracy
        if (!ok) break;
        scorer_begin(scorer, &b);
        ok = rollout_run(&en->rollout, en->device, &en->policy, en->tokenizer, engine_stop_rule(en), params, &b,
                         scorer_watch(scorer), e) &&
             rollout_finite(&b, e) && engine_score(en, &b, e);
        ok = scorer_end(scorer, ok, e);
        if (!ok) {
            error_prefix(e, "evaluation");
            break;
        }
        ranks_phase("eval", at);
        Batch asked = batch_slice(&b, 0, n); // the columns that are in use
        float *graded = rw->grader.info ? xcalloc((size_t)asked.n, sizeof *graded) : NULL;
        if (graded) ok = engine_grade(en, rw, &asked, graded, e) || error_prefix(e, "evaluation");
        if (ok) tally(&asked, n, graded, rw->n, out);
        free(graded);
        if (ok && !rewards_go_on(rw, NULL)) break; // the ranks say so together
    }
    batch_free(&b);
    scorer_close(scorer);
    bool stopped = !ok && e->code == EXIT_STOPPED;
    if (en->comm && (ok || stopped)) ok = add_ranks(en->comm, out, stopped, e);
    if (ok) ok = ranks_exchange_rewards(en->comm, rw, e) || error_prefix(e, "evaluation");
    double per_question = 1 / (double)rows, per_completion = per_question / samples;
    out->strict /= out->graded, out->lenient /= out->graded;
    out->length *= per_completion, out->truncated *= per_completion;
    out->reward /= out->rewarded;
    for (int k = 0; k < rw->n; k++) out->each[k] /= out->scored[k];
    for (int j = 0; j < PASS_POINTS; j++) out->pass[j] /= out->passable[j];
    out->majority *= per_question;
    return ok;
}

int64_t eval_ungraded(const EvalResult *res) { return res->questions * res->samples - (int64_t)res->graded; }

static void put_mean(Str *out, const char *before, double mean) {
    if (isnan(mean)) str_printf(out, "%snull", before);
    else str_printf(out, "%s%.6g", before, mean);
}

void eval_json(const EvalResult *res, const Rewards *rw, Str *out) {
    str_printf(out, "{\"questions\": %lld, \"samples\": %d", (long long)res->questions, res->samples);
    put_mean(out, ", \"accuracy\": ", res->strict);
    if (rw->grader.info) str_printf(out, ", \"ungraded\": %lld", (long long)eval_ungraded(res));
    else put_mean(out, ", \"lenient_accuracy\": ", res->lenient);
    for (int k = 1, at = 0; res->samples > 1 && at < PASS_POINTS && k <= res->samples; k *= 2, at++) {
        str_printf(out, ", \"pass@%d\"", k);
        put_mean(out, ": ", res->pass[at]);
    }
    if (res->samples > 1 && !rw->grader.info) // a vote is taken among numbers
        str_printf(out, ", \"maj@%d\": %.6g", res->samples, res->majority);
    put_mean(out, ", \"reward\": ", res->reward);
    str_printf(out, ", \"mean_length\": %.6g, \"clipped_ratio\": %.6g, \"rewards\": {", res->length, res->truncated);
    for (int k = 0; k < rw->n; k++) {
        str_printf(out, "%s\"%s\"", k ? ", " : "", rw->reward[k].name);
        put_mean(out, ": ", res->each[k]);
    }
    str_puts(out, "}}\n");
}

// Writes the results, whole or not at all. If their file cannot be written they go to standard output, so that a long
// evaluation is not lost.
static bool write_result(const char *path, const Str *json, Error *e) {
    if (!*path) return output_write(STDOUT_FILENO, json->s, json->n) || output_flush(e);
    bool ok;
    if (whole_is_fixed(path)) ok = whole_write_into(path, json->s, json->n, e);
    else {
        char *place = whole_place(path);
        ok = whole_write(place, json->s, json->n, false, e);
        free(place);
    }
    if (ok) return true;
    output_write(STDOUT_FILENO, json->s, json->n);
    return error_prefix(e, "the results cannot be written (they are on standard output)");
}

bool eval_replaces(const char *path, Error *e) {
    return whole_replaces(path, "{\"questions\": ", "the result of an evaluation", e);
}

// Checks that the output file can be written, and that it is no other file of the user's, before the evaluation starts.
// *held is a descriptor to close once it is written, or -1: the reader of a pipe would else see its end here.
static bool output_writable(const char *path, int *held, Error *e) {
    if (!*path) return true;
    if (!eval_replaces(path, e)) return error_prefix(e, "eval_output");
    if (whole_is_fixed(path)) {
        *held = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK); // no reader: no wait
        return *held >= 0 || error_set(e, EXIT_DISK, "eval_output: cannot write %s: %s", path, error_write(errno));
    }
    char *place = whole_place(path);
    WholeFile w;
    bool ok = whole_open(&w, place, false, e);
    whole_close(&w, false, e);
    free(place);
    return ok || error_prefix(e, "eval_output");
}

ExitCode command_eval(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "eval", argc, argv, e)) return e->code;
    signals_install(false);
    ExitCode code;
    if (!ranks_start(&c, &code, e)) {
        config_free(&c);
        return code;
    }
    Engine r = {0};
    Prompter pr = {0};
    Rewards rw = {0};
    EvalResult res;
    Str json = {0};
    Dataset *data = NULL;
    int held = -1;
    if (engine_prepare(&r, &c, e) && engine_prompter(&r, &pr, e))
        data = dataset_open(c.eval_file, &c, &(RowCheck){prompter_check_eval, &pr}, e);
    bool ok = data && rewards_select(&c, &rw, e) && rewards_open(&rw, e) && output_writable(c.eval_output, &held, e);
    if (ok) rewards_note_stops(&rw, &c);
    if (ok) {
        int64_t rows = dataset_rows(data);
        if (c.eval_limit > 0 && c.eval_limit < rows) rows = c.eval_limit;
        RunShape shape = shape_for_rollout(&c, rows * c.eval_samples, rows);
        shape.rewards = &rw;
        ok = engine_open(&r, &c, shape, e);
        if (ok && !comm_rank(r.comm)) prompter_note_long(&pr, "eval_file", dataset_rows(data), true);
        ok = ok && eval_run(&r, &pr, data, &rw, rows, (int)c.eval_samples, &res, e);
    }
    if (ok && !comm_rank(r.comm)) {
        eval_json(&res, &rw, &json);
        ok = write_result(c.eval_output, &json, e);
    }
    if (held >= 0) close(held);
    ranks_tell(ok ? EXIT_OK : e->code, e);
    str_free(&json);
    prompter_close(&pr);
    dataset_free(data);
    engine_close(&r);
    rewards_note(&rw);
    rewards_close(&rw);
    config_free(&c);
    return ok ? EXIT_OK : e->code;
}
