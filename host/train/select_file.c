// The files of `select`: samples.jsonl with all that was drawn, and kept.jsonl with what is kept of it.
#include "config_table.h"
#include "file.h"
#include "fingerprint.h"
#include "json.h"
#include "jsonl.h"
#include "notes.h"
#include "ranks.h"
#include "reward_threads.h"
#include "select.h"
#include "signals.h"
#include "whole.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <string.h>

// ---- what samples were drawn with -----------------------------------------------------------------------------------

char *select_drawn_with(const Config *c, Error *e) {
    const struct {
        const char *name, *path;
    } read[] = {{"model", c->model},
                {"system_prompt_file", c->system_prompt_file},
                {"adapter", c->adapter},
                {"tokenizer", c->tokenizer},
                {"few_shot_file", c->few_shot_file}};
    enum { READ = sizeof read / sizeof *read };
    uint32_t sum[READ] = {0}, questions = 0;
    for (int f = 0; f < c->train_file.n; f++)
        if (!fingerprint(&questions, c->train_file.item[f].path, e)) return NULL;
    for (int i = 0; i < READ; i++)
        if (*read[i].path && !fingerprint(&sum[i], read[i].path, e)) return NULL;
    char scoring[16];
    Rewards rw;
    if (!rewards_select(c, &rw, e) || !rewards_files_sum(&rw, scoring, e)) return NULL;
    Str s = {0}, value = {0};
    str_puts(&s, "{\"drawn_with\": {");
    for (int i = 0; i < OPTION_COUNT; i++) {
        if (config_options[i].scope != SCOPE_DRAWS) continue;
        str_clear(&value);
        config_put_value(&value, c, &config_options[i]);
        str_printf(&s, "\"%s\": ", config_options[i].name);
        str_json(&s, value.s, value.n);
        str_puts(&s, ", ");
    }
    str_printf(&s, "\"what is in train_file\": \"%08x\"", questions);
    for (int i = 0; i < READ; i++) // the first two have always been there
        if (i < 2 || *read[i].path) str_printf(&s, ", \"what is in %s\": \"%08x\"", read[i].name, sum[i]);
    if (*scoring) str_printf(&s, ", \"what is in the rewards' models and templates\": \"%s\"", scoring);
    str_puts(&s, "}}");
    str_free(&value);
    return s.s;
}

// Adds the values of an option from a little before where they differ.
static void put_values(Str *s, const char *was, const char *is) {
    size_t same = 0;
    while (was[same] && was[same] == is[same]) same++;
    while (same && ((unsigned char)was[same] & 0xc0) == 0x80) same--; // not within a character
    const size_t from = same > 24 && strlen(was) > 80 ? same - 24 : 0;
    size_t at = from;
    while (at && ((unsigned char)was[at] & 0xc0) == 0x80) at--;
    str_printf(s, " (was %s%.80s, is %s%.80s)", at ? "..." : "", was + at, at ? "..." : "", is + at);
}

// Whether the two first lines make the same samples. False after naming in *e what differs.
static bool drawn_alike(const char *path, const json_t *head, const char *now_line, Error *e) {
    json_t *now = json_loads(now_line, 0, NULL), *values = json_object_get(now, "drawn_with"), *value;
    const json_t *then = json_object_get(head, "drawn_with");
    bool alike = json_object_size(then) == json_object_size(values);
    const char *key;
    Str s = {0};
    json_object_foreach(values, key, value) {
        const json_t *old = json_object_get(then, key);
        const char *was = json_string_value(old), *is = json_string_value(value);
        if (json_equal(old, value) || (was && is && config_alike(key, was, is))) continue;
        alike = false;
        str_printf(&s, "%s%s", s.n ? ", " : "", key);
        if (was && strncmp(key, "what", 4)) put_values(&s, was, is);
    }
    json_decref(now);
    if (!alike)
        error_set(e, EXIT_CONFIG,
                  "%s was drawn with other options: %s; choose another select_output, or remove that file to draw anew",
                  path, s.n ? s.s : "of another version");
    str_free(&s);
    return alike;
}

// ---- lines ----------------------------------------------------------------------------------------------------------

static void put_field(Str *s, const char *before, const char *text) {
    str_puts(s, before);
    str_json(s, text, strlen(text));
}

static void put_line(Str *out, const char *file, int64_t line) {
    str_puts(out, "{");
    if (file) put_field(out, "\"file\": ", file);
    str_printf(out, "%s\"line\": %lld", file ? ", " : "", (long long)line);
}

// A completion as a line tells of it; its scores are a row of a batch.
typedef struct {
    const char *file; // NULL: there is one file
    int64_t line;
    int sample, tokens;
    const char *question, *answer, *completion, *finish;
    float reward;
    const float *score;
} Sampled;

static void put_sample(const Sampled *s, const Rewards *rw, Str *out) {
    put_line(out, s->file, s->line);
    str_printf(out, ", \"sample\": %d", s->sample);
    put_field(out, ", \"question\": ", s->question);
    put_field(out, ", \"answer\": ", s->answer);
    put_field(out, ", \"completion\": ", s->completion);
    str_printf(out, ", \"tokens\": %d, \"finish\": \"%s\", \"reward\": ", s->tokens, s->finish);
    str_json_number(out, s->reward);
    str_puts(out, ", \"scores\": {");
    for (int r = 0; r < rw->n; r++) {
        put_field(out, r ? ", " : "", rw->reward[r].name);
        str_puts(out, ": ");
        str_json_number(out, s->score[r]);
    }
    str_puts(out, "}}\n");
}

void select_put(const Batch *b, int p, const Rewards *rw, const char *file, Str *out) {
    if (!b->prompt[p].n) {
        put_line(out, file, b->row[p]);
        str_puts(out, ", \"skipped\": \"long prompt\"}\n");
        return;
    }
    for (int k = 0; k < b->group; k++) {
        int i = p * b->group + k;
        Sampled s = {file,
                     b->row[p],
                     k,
                     b->len[i],
                     b->question[p],
                     b->answer[p],
                     b->text[i],
                     finish_name[b->finish[i]],
                     b->reward[i],
                     b->score + i * b->n_rewards};
        put_sample(&s, rw, out);
    }
}

// A line of samples.jsonl, read back.
typedef struct {
    json_t *json;
    int64_t line;
    int sample;       // -1: its question was not asked
    const char *text; // [n], until the next line is read
    size_t n;
} Line;

static float number_of(const json_t *j) { return json_is_number(j) ? (float)json_number_value(j) : NAN; }

// Reads the next line: 1: it is good; 0: the end; -1: after filling *e. A line that cannot be parsed counts as the end:
// the run that wrote it was stopped.
static int next_line(LineReader *r, Line *out, Error *e) {
    char *text;
    size_t n;
    int found = line_reader_next(r, &text, &n, e);
    if (found <= 0) return found;
    json_t *j = json_parse(text, n, "", NULL);
    const json_t *sample = json_object_get(j, "sample"), *line = json_object_get(j, "line");
    bool whole = json_is_integer(line) &&
                 (json_object_get(j, "skipped") ||
                  (json_is_integer(sample) && json_text(json_object_get(j, "completion")) &&
                   json_text(json_object_get(j, "question")) && json_is_integer(json_object_get(j, "tokens")) &&
                   json_is_object(json_object_get(j, "scores"))));
    *out = (Line){j, json_integer_value(line), sample ? (int)json_integer_value(sample) : -1, text, n};
    if (!whole) json_decref(j);
    return whole;
}

// Opens samples.jsonl behind its first line, which is in *head.
static bool open_samples(LineReader *r, const char *path, json_t **head, Error *e) {
    if (!line_reader_open(r, path, e)) return false;
    char *text;
    size_t n;
    int found = line_reader_next(r, &text, &n, e);
    *head = found > 0 ? json_parse(text, n, "", NULL) : NULL;
    if (json_is_object(json_object_get(*head, "drawn_with"))) return true;
    if (found >= 0)
        error_set(e, EXIT_CONFIG,
                  "%s: its first line does not say what it was drawn with: it is no file of `select`; "
                  "move it away, or choose another select_output",
                  path);
    json_decref(*head);
    line_reader_close(r);
    return false;
}

// Whether samples.jsonl is not there, or ends within its first line: a run was stopped before it could write that.
static bool not_begun(const char *path) {
    static const char head[] = "{\"drawn_with\": {";
    if (access(path, F_OK)) return true;
    size_t n;
    char *text = file_read(path, (size_t)1 << 20, &n, NULL);
    bool begun = !text || memchr(text, '\n', n) || strncmp(text, head, n < sizeof head - 1 ? n : sizeof head - 1) != 0;
    free(text);
    return !begun;
}

bool select_makes(const char *name) {
    return whole_is_of(name, "samples.jsonl") || whole_is_of(name, "kept.jsonl") || whole_is_of(name, "select.json");
}

// Whether a selection that begins writes over nobody else's files: kept.jsonl looks like any training file, but ours
// has select.json beside it.
static bool others_stay(const Config *c, Error *e) {
    char *json = xasprintf("%s/select.json", c->select_output), *kept = xasprintf("%s/kept.jsonl", c->select_output);
    struct stat st;
    bool ok = whole_replaces(json, "{\"questions\": ", "what `select` wrote", e);
    if (ok && stat(json, &st)) ok = whole_replaces(kept, NULL, "what `select` wrote", e);
    free(json), free(kept);
    return ok || error_prefix(e, "select_output");
}

// Whether a line is of question i of the data set. Where *e is filled, that could not be read.
static bool is_of_question(const Config *c, Dataset *data, int64_t i, const Line *line, Error *e) {
    Row row;
    if (i >= dataset_rows(data) || !dataset_row(data, i, &row, e)) return false;
    const char *file = json_string_value(json_object_get(line->json, "file")),
               *question = json_string_value(json_object_get(line->json, "question"));
    bool is = row.line == line->line && (c->train_file.n < 2 || (file && !strcmp(file, dataset_path(data, i)))) &&
              (line->sample < 0 || !strcmp(question, row.question));
    row_free(&row);
    return is;
}

// The rewards that may give a score which a line lacks: a bit each.
static uint32_t lacks(const Line *line, const Rewards *rw) {
    const json_t *scores = json_object_get(line->json, "scores");
    uint32_t bits = 0;
    for (int k = 0; k < rw->n && line->sample >= 0; k++)
        if (reward_may_come(&rw->reward[k]) && !json_is_number(json_object_get(scores, rw->reward[k].name)))
            bits |= 1u << k;
    return bits;
}

bool select_resume(const Config *c, const Rewards *rw, Dataset *data, const char *drawn_with, int64_t *lines,
                   int64_t *questions, int64_t *lacking, Error *e) {
    *lines = *questions = *lacking = 0;
    char *path = xasprintf("%s/samples.jsonl", c->select_output);
    LineReader r;
    json_t *head;
    bool none = not_begun(path);
    if (none || !open_samples(&r, path, &head, e)) {
        free(path);
        return none && others_stay(c, e);
    }
    bool ok = drawn_alike(path, head, drawn_with, e);
    *lines = 1;
    Line line;
    int found = 0, next = 0; // the sample that comes next
    int64_t of_question = 0; // completions of it that lack a score
    while (ok && (found = next_line(&r, &line, e)) > 0) {
        bool skipped = line.sample < 0, expected = skipped ? !next : line.sample == next;
        Error unread = {0};
        expected = expected && is_of_question(c, data, *questions, &line, &unread);
        of_question += lacks(&line, rw) != 0;
        json_decref(line.json);
        if (unread.code != EXIT_OK) ok = error_set(e, unread.code, "%s", unread.text);
        if (!expected) break;
        next = skipped ? 0 : (next + 1) % (int)c->select_samples;
        if (next) continue;
        ++*questions;
        *lines = r.line;
        *lacking += of_question;
        of_question = 0;
    }
    ok = ok && found >= 0;
    // A last line that is not whole is what a stopped run leaves; one with lines behind it is damage.
    char *text;
    size_t n;
    int64_t bad = r.line;
    if (ok && line_reader_next(&r, &text, &n, NULL) > 0)
        note("%s:%lld: this line is damaged; from its question on, samples are drawn again", path, (long long)bad);
    json_decref(head);
    line_reader_close(&r);
    free(path);
    return ok;
}

// ---- asking again ---------------------------------------------------------------------------------------------------

#define AGAIN 64 // questions that are held at a time

// Lines on their way from one samples.jsonl to the next. Those of a question that lacks a score are in the batch.
typedef struct {
    const Config *cfg;
    const Rewards *rw;
    Scorer *scorer;
    Batch batch;
    Line *line;         // [AGAIN * select_samples]
    char **text;        // of each line; NULL: it is in the batch
    uint32_t of[AGAIN]; // the rewards to ask, by prompts of the batch
    int lines, prompts;
    WholeFile next;
    int64_t asked, came; // completions that lacked a score; of them those that lack none now
} Again;

// Puts a question, the last lines that are held, into the batch where some of them lack a score.
static void hold_question(Again *a, int first) {
    uint32_t of = 0;
    for (int i = first; i < a->lines; i++) of |= lacks(&a->line[i], a->rw);
    if (!of) return;
    Batch *b = &a->batch;
    int p = a->prompts++;
    a->of[p] = of;
    b->file[p] = NO_FILE;
    b->question[p] = xstrdup(json_string_value(json_object_get(a->line[first].json, "question")));
    b->answer[p] = xstrdup(json_string_value(json_object_get(a->line[first].json, "answer")) ?: "");
    for (int i = first; i < a->lines; i++) {
        int at = p * b->group + i - first;
        const json_t *j = a->line[i].json, *scores = json_object_get(j, "scores");
        b->text[at] = xstrdup(json_string_value(json_object_get(j, "completion")));
        for (int k = 0; k < b->n_rewards; k++)
            b->score[at * b->n_rewards + k] = number_of(json_object_get(scores, a->rw->reward[k].name));
        free(a->text[i]);
        a->text[i] = NULL;
    }
}

// The line of a completion that was in the batch, with what scores it has now.
static void put_again(Again *a, const Line *line, int at, Str *out) {
    const Batch *b = &a->batch;
    const float *score = b->score + at * b->n_rewards;
    bool lacked = lacks(line, a->rw) != 0, lacking = false;
    for (int k = 0; k < a->rw->n; k++) lacking = lacking || (isnan(score[k]) && reward_may_come(&a->rw->reward[k]));
    a->asked += lacked;
    a->came += lacked && !lacking;
    Sampled s = {json_string_value(json_object_get(line->json, "file")),
                 line->line,
                 line->sample,
                 (int)json_integer_value(json_object_get(line->json, "tokens")),
                 b->question[at / b->group],
                 b->answer[at / b->group],
                 b->text[at],
                 json_string_value(json_object_get(line->json, "finish")) ?: "",
                 reward_total(a->rw->reward, a->rw->n, score),
                 score};
    put_sample(&s, a->rw, out);
}

// Asks about what is held, unless that is not `wanted`, and writes it. *ended is filled where nothing more is to be
// asked: a stop is requested, or a reward ends the run.
static bool ask_held(Again *a, Error *ended, Error *e) {
    if (a->prompts && ended->code == EXIT_OK) {
        scorer_begin(a->scorer, &a->batch);
        for (int p = 0; p < a->prompts; p++) scorer_again(a->scorer, p, a->of[p]);
        if (scorer_end(a->scorer, true, ended)) rewards_go_on(a->rw, ended);
    }
    Str out = {0};
    for (int i = 0, at = 0; i < a->lines; i++) {
        if (a->text[i]) str_printf(&out, "%s\n", a->text[i]);
        else put_again(a, &a->line[i], at++, &out);
        free(a->text[i]);
        json_decref(a->line[i].json);
    }
    bool ok = !out.n || whole_add(&a->next, out.s, out.n, e);
    str_free(&out);
    batch_clear(&a->batch);
    a->lines = a->prompts = 0;
    return ok;
}

// Copies samples.jsonl behind its first line. Only whole questions are in it.
static bool copy_asking(Again *a, LineReader *r, Error *ended, Error *e) {
    Line line;
    int found = 0, questions = 0, first = 0;
    bool ok = true;
    while (ok && (found = next_line(r, &line, e)) > 0) {
        a->text[a->lines] = xstrndup(line.text, line.n);
        a->line[a->lines++] = line;
        if (line.sample >= 0 && a->lines - first < a->batch.group) continue;
        hold_question(a, first);
        ranks_phase("scores", r->line);
        if (++questions == AGAIN) ok = ask_held(a, ended, e), questions = 0;
        first = a->lines;
    }
    return ask_held(a, ended, ok ? e : NULL) && ok && found >= 0;
}

bool select_again(const Config *c, const Rewards *rw, int64_t *came, Error *e) {
    Again a = {.cfg = c, .rw = rw, .batch = batch_new(AGAIN, (int)c->select_samples, 1, rw->n)};
    size_t most = AGAIN * (size_t)c->select_samples;
    a.line = xcalloc(most, sizeof *a.line), a.text = xcalloc(most, sizeof *a.text);
    char *name = xasprintf("%s/samples.jsonl", c->select_output), *path = whole_place(name), *text;
    size_t n;
    LineReader r;
    Error ended = {0};
    bool ok = (a.scorer = scorer_open(rw, (int)c->reward_threads, e)) && line_reader_open(&r, path, e);
    if (ok) {
        ok = whole_open(&a.next, path, true, e) && line_reader_next(&r, &text, &n, e) > 0 &&
             whole_add(&a.next, text, n, e) && whole_add(&a.next, "\n", 1, e) && copy_asking(&a, &r, &ended, e);
        ok = whole_close(&a.next, ok, e);
        line_reader_close(&r);
    }
    *came = a.came;
    scorer_close(a.scorer);
    batch_free(&a.batch);
    free(a.line), free(a.text), free(path), free(name);
    if (!ok || ended.code == EXIT_OK || ended.code == EXIT_STOPPED) return ok;
    *e = ended;
    return false;
}

// ---- kept.jsonl -----------------------------------------------------------------------------------------------------

static void put_message(Str *s, const char *before, const char *role, const char *text) {
    str_printf(s, "%s{\"role\": \"%s\"", before, role);
    put_field(s, ", \"content\": ", text);
    str_puts(s, "}");
}

// Writes a line of kept.jsonl: what sft reads, and which sample it comes from.
static void put_kept(Str *s, const Config *c, const char *system, const Line *line, const Drawn *d) {
    const char *question = json_string_value(json_object_get(line->json, "question"));
    const char *answer = json_string_value(json_object_get(line->json, "answer"));
    if (c->raw) {
        put_field(s, "{\"prompt\": ", question);
        put_field(s, ", \"completion\": ", d->text);
    } else {
        str_puts(s, "{\"messages\": [");
        if (system) put_message(s, "", "system", system);
        put_message(s, system ? ", " : "", "user", question);
        put_message(s, ", ", "assistant", d->text);
        str_puts(s, "]");
    }
    if (answer) put_field(s, ", \"answer\": ", answer);
    str_printf(s, ", \"tokens\": %d, \"reward\": ", d->tokens);
    str_json_number(s, d->reward);
    char *scores = json_dumps(json_object_get(line->json, "scores"), JSON_REAL_PRECISION(9));
    str_printf(s, ", \"scores\": %s", scores ? scores : "{}");
    free(scores);
    const char *file = json_string_value(json_object_get(line->json, "file")); // there where several are
    put_field(s, ", \"origin\": {\"file\": ", file ? file : c->train_file.item[0].path);
    str_printf(s, ", \"line\": %lld, \"sample\": %d}}\n", (long long)line->line, line->sample);
}

// The completions of one question, as they come from samples.jsonl.
typedef struct {
    Line *line;   // [n]
    Drawn *drawn; // [n]
    Drop *drop;
    int n;
} Group;

static void group_add(Group *g, Line line, const Rewards *rw) {
    json_t *scores = json_object_get(line.json, "scores");
    Drawn d = {.text = json_string_value(json_object_get(line.json, "completion")),
               .tokens = (int)json_integer_value(json_object_get(line.json, "tokens")),
               .truncated =
                   !strcmp(json_string_value(json_object_get(line.json, "finish")) ?: "", finish_name[FINISH_LENGTH]),
               .reward = number_of(json_object_get(line.json, "reward"))};
    for (int k = 0; k < rw->n; k++) d.score[k] = number_of(json_object_get(scores, rw->reward[k].name));
    g->line[g->n] = line;
    g->drawn[g->n++] = d;
}

static bool group_keep(Group *g, const Config *c, const char *system, SelectRules *s, SelectCount *count,
                       WholeFile *kept, Error *e) {
    if (!g->n) return true;
    const char *question = json_string_value(json_object_get(g->line[0].json, "question"));
    select_question(s, g->line[0].line, question, g->drawn, g->n, g->drop, count);
    Str text = {0};
    for (int i = 0; i < g->n; i++)
        if (g->drop[i] == DROP_NONE) put_kept(&text, c, system, &g->line[i], &g->drawn[i]);
    bool ok = whole_add(kept, text.s, text.n, e);
    str_free(&text);
    while (g->n) json_decref(g->line[--g->n].json);
    return ok;
}

static bool keep_all(LineReader *r, const Config *c, const Rewards *rw, const char *system, SelectRules *s,
                     int64_t questions, SelectCount *count, WholeFile *kept, Error *e) {
    size_t n = (size_t)c->select_samples;
    Group g = {xcalloc(n, sizeof *g.line), xcalloc(n, sizeof *g.drawn), xcalloc(n, sizeof *g.drop), 0};
    Line line;
    int found = 0;
    bool ok = true;
    while (ok && count->questions < questions && (found = next_line(r, &line, e)) > 0) {
        if (line.sample < 0) {
            count->questions++;
            count->long_prompts++;
            json_decref(line.json);
            continue;
        }
        group_add(&g, line, rw);
        if (g.n == (int)n) ok = group_keep(&g, c, system, s, count, kept, e);
        if (ok && stop_requested()) ok = error_set(e, EXIT_STOPPED, "stopped by a signal; the same command goes on");
    }
    while (g.n) json_decref(g.line[--g.n].json);
    free(g.line), free(g.drawn), free(g.drop);
    return ok && found >= 0;
}

bool select_keep(const Config *c, const Rewards *rw, const char *system, SelectRules *s, int64_t questions,
                 SelectCount *count, Error *e) {
    *count = (SelectCount){0};
    char *path = xasprintf("%s/samples.jsonl", c->select_output);
    LineReader r;
    json_t *head;
    bool ok = open_samples(&r, path, &head, e);
    free(path);
    if (!ok) return false;
    WholeFile kept;
    path = xasprintf("%s/kept.jsonl", c->select_output);
    ok = whole_open(&kept, path, true, e) && keep_all(&r, c, rw, system, s, questions, count, &kept, e);
    ok = whole_close(&kept, ok, e);
    free(path);
    line_reader_close(&r);
    json_decref(head);
    Str json = {0};
    select_json(s, count, &json);
    path = xasprintf("%s/select.json", c->select_output);
    ok = ok && whole_write(path, json.s, json.n, true, e);
    free(path);
    str_free(&json);
    return ok;
}
