// grpo reward: scores JSON lines, one line out for each line in; or prints the table of all rewards.
#include "config.h"
#include "commands.h"
#include "device.h"
#include "json.h"
#include "jsonl.h"
#include "machine.h"
#include "output.h"
#include "reward_models.h"
#include "reward_set.h"
#include <stdlib.h>
#include <unistd.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: grpo reward NAME[:key=value,...] [FILE] [option=value ...]\n"
    "       grpo reward --list\n"
    "FILE (or standard input) holds JSON lines with `completion`, with `answer` where the reward "
    "compares with it,\nand optional `prompt`, `ids` (tokens) and `group`. Each gives a line "
    "{\"reward\": number}, the score times the weight, null where the reward abstains.\n"
    "Lines with the same `group` answer the same prompt; lines without one are one group.\n"
    "think_markers=OPEN,CLOSE is for every reward; other options (device, threads, dtype, load) are for rewards that a "
    "model on\nthis machine gives.\n";

// The lines that are scored together, as read; the samples' strings live in the JSON values.
typedef struct {
    json_t **json;
    Sample *sample;
    Ids *ids;
    int n, cap;
} Lines;

static void lines_clear(Lines *l) {
    for (int i = 0; i < l->n; i++) {
        json_decref(l->json[i]);
        ids_free(&l->ids[i]);
    }
    l->n = 0;
}

static void lines_free(Lines *l) {
    lines_clear(l);
    free(l->json);
    free(l->sample);
    free(l->ids);
}

static bool read_ids(const json_t *list, const char *where, Ids *ids, Error *e) {
    if (!json_is_array(list)) return error_set(e, EXIT_INPUT, "%s: \"ids\" is not a list", where);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return error_set(e, EXIT_INPUT, "%s: ids[%zu] is not a token id", where, i);
        ids_add(ids, (int32_t)json_integer_value(id));
    }
    return true;
}

static const int32_t no_ids[1]; // what an empty list points at

static bool read_sample(json_t *j, const Reward *r, const char *where, Sample *s, Ids *ids, Error *e) {
    if (!json_is_object(j)) return error_set(e, EXIT_INPUT, "%s: not a JSON object", where);
    *s = (Sample){.prompt = "", .answer = ""};
    const json_t *completion = json_object_get(j, "completion");
    if (!json_is_written_string(completion)) return error_set(e, EXIT_INPUT, "%s: no string \"completion\"", where);
    s->completion = json_string_value(completion);
    s->completion_len = json_string_length(completion);
    json_field_to_text(j, "answer");
    if ((r->info->reads & REWARD_READS_ANSWER) || json_object_get(j, "answer"))
        if (!(s->answer = json_field_string(j, "answer", where, e))) return false;
    if (json_object_get(j, "prompt") && !(s->prompt = json_field_string(j, "prompt", where, e))) return false;
    const json_t *list = json_object_get(j, "ids"), *group = json_object_get(j, "group");
    if (list && !read_ids(list, where, ids, e)) return false;
    if (list) s->ids = ids->id ? ids->id : no_ids, s->n_ids = (int)ids->n;
    if (!list && (r->info->reads & REWARD_READS_IDS))
        return error_set(e, EXIT_INPUT, "%s: reward %s counts tokens: the line needs \"ids\"", where, r->info->name);
    if (group && (!json_is_integer(group) || llabs(json_integer_value(group)) > INT32_MAX))
        return error_set(e, EXIT_INPUT, "%s: \"group\" is not a whole number", where);
    s->group = (int)json_integer_value(group);
    return true;
}

static bool lines_add(Lines *l, const char *text, size_t n, const Reward *r, const char *where, Error *e) {
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->json = xrealloc(l->json, (size_t)l->cap * sizeof *l->json);
        l->sample = xrealloc(l->sample, (size_t)l->cap * sizeof *l->sample);
        l->ids = xrealloc(l->ids, (size_t)l->cap * sizeof *l->ids);
    }
    json_t *j = json_parse(text, n, where, e);
    if (!j) return false;
    l->json[l->n] = j;
    l->ids[l->n] = (Ids){0};
    l->n++;
    return read_sample(j, r, where, &l->sample[l->n - 1], &l->ids[l->n - 1], e);
}

// The shortest decimal that reads back as the same float.
static void print_score(float score) {
    char text[32] = "null";
    for (int digits = 6; !isnan(score) && digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)score);
        if (strtof(text, NULL) == score) break;
    }
    printf("{\"reward\": %s}\n", text);
}

// What lines are sorted by, so that those of a group stand side by side in their own order.
typedef struct {
    int group, line;
} Turn;

static int turn_compare(const void *a, const void *b) {
    const Turn *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return x->line < y->line ? -1 : 1;
}

// The samples' scores, by the reward's function or its model.
typedef struct {
    const Reward *reward;
    Device *device;
    RewardModels *model; // NULL: none
} Grader;

static bool grade(const Grader *g, const Sample *samples, int n, float *score, Error *e) {
    if (g->model)
        return reward_models_samples(g->model, g->device, samples, n, score, e) && reward_goes_on(g->reward, e);
    g->reward->info->fn(g->reward, samples, n, score);
    return reward_goes_on(g->reward, e);
}

static bool score_lines(const Grader *g, Lines *l, Error *e) {
    size_t n = (size_t)l->n;
    Turn *turn = xmalloc(n * sizeof *turn);
    Sample *sorted = xmalloc(n * sizeof *sorted);
    float *score = xmalloc(n * sizeof *score), *in_order = xmalloc(n * sizeof *in_order);
    for (int i = 0; i < l->n; i++) turn[i] = (Turn){l->sample[i].group, i};
    qsort(turn, n, sizeof *turn, turn_compare);
    for (int i = 0; i < l->n; i++) sorted[i] = l->sample[turn[i].line];
    bool ok = grade(g, sorted, l->n, score, e);
    for (int i = 0; i < l->n && ok; i++) in_order[turn[i].line] = reward_total(g->reward, 1, &score[i]);
    for (int i = 0; i < l->n && ok; i++) print_score(in_order[i]);
    free(turn);
    free(sorted);
    free(score);
    free(in_order);
    return ok;
}

// A reward that looks at groups waits for all lines; one that asks in batches takes some of a file at a time; any other
// scores each line as it comes.
enum { LINES_AT_A_TIME = 4096 };
static bool score_file(const Grader *g, const char *path, Error *e) {
    const Reward *r = g->reward;
    LineReader reader;
    if (!line_reader_open_json(&reader, path, e)) return false;
    bool whole = r->info->reads & REWARD_READS_GROUP, interactive = reader.fd == STDIN_FILENO;
    Lines lines = {0};
    char *text;
    size_t n;
    int got;
    while ((got = line_reader_next(&reader, &text, &n, e)) > 0) {
        char where[4096 + 32];
        snprintf(where, sizeof where, "%s:%lld", reader.path, (long long)reader.line);
        if (!lines_add(&lines, text, n, r, where, e)) {
            got = -1;
            break;
        }
        if (whole || ((r->info->batches || g->model) && !interactive && lines.n < LINES_AT_A_TIME)) continue;
        if (!score_lines(g, &lines, e)) {
            got = -1;
            break;
        }
        lines_clear(&lines);
        if (interactive) fflush(stdout);
    }
    if (got == 0 && lines.n > 0 && !score_lines(g, &lines, e)) got = -1;
    lines_free(&lines);
    line_reader_close(&reader);
    return got == 0;
}

// A table of texts, aligned for a terminal and valid as Markdown.
enum { TABLE_COLUMNS = 5 };
typedef struct {
    int columns, rows;
    Str (*cell)[TABLE_COLUMNS]; // [rows]; row 0 is the head
} Table;

static Str *table_row(Table *t) {
    t->cell = xrealloc(t->cell, (size_t)(t->rows + 1) * sizeof *t->cell);
    memset(t->cell[t->rows], 0, sizeof *t->cell);
    return t->cell[t->rows++];
}

static Table table_new(int columns, const char *const *head) {
    Table t = {.columns = columns};
    Str *row = table_row(&t);
    for (int c = 0; c < columns; c++) str_puts(&row[c], head[c]);
    return t;
}

static void table_print(Table *t) {
    size_t width[TABLE_COLUMNS] = {0};
    for (int i = 0; i < t->rows; i++)
        for (int c = 0; c < t->columns; c++)
            if (t->cell[i][c].n > width[c]) width[c] = t->cell[i][c].n;
    for (int i = 0; i < t->rows; i++) {
        for (int c = 0; c < t->columns; c++) printf("| %-*s ", (int)width[c], t->cell[i][c].s ? t->cell[i][c].s : "");
        puts("|");
        for (int c = 0; i == 0 && c < t->columns; c++) {
            fputs("| ", stdout);
            for (size_t k = 0; k < width[c]; k++) putchar('-');
            fputs(c + 1 < t->columns ? " " : " |\n", stdout);
        }
        for (int c = 0; c < t->columns; c++) str_free(&t->cell[i][c]);
    }
    free(t->cell);
}

static void list_reward(const RewardInfo *info, Str *row) {
    static const char *const reads[] = {"answer", "ids", "group"};
    str_puts(&row[0], info->name);
    str_puts(&row[1], info->help);
    str_puts(&row[2], "completion");
    for (unsigned i = 0; i < 3; i++)
        if (info->reads >> i & 1) str_printf(&row[2], ", %s", reads[i]);
    str_puts(&row[3], info->source);
}

// A default text in one line of the table, shortened.
static void list_text(const char *text, Str *cell) {
    enum { SHOWN = 40 };
    if (!*text) return str_puts(cell, "none");
    str_puts(cell, "`");
    for (const char *p = text; *p && p - text < SHOWN; p++)
        if (*p == '\n') str_puts(cell, "\\n");
        else if (*p == '|') str_puts(cell, "\\|"); // a bar would end the cell
        else str_add(cell, p, 1);
    str_puts(cell, strlen(text) > SHOWN ? "`..." : "`");
}

static void list_param(const RewardInfo *info, const RewardParam *p, Str *row) {
    str_puts(&row[0], info->name);
    str_puts(&row[1], p->name);
    str_puts(&row[4], p->help);
    if (param_is_text(p->kind)) {
        list_text(p->choices, &row[2]);
        str_puts(&row[3], p->kind == PARAM_URL ? "URL" : "text");
        return;
    }
    if (p->kind != PARAM_CHOICE) {
        str_printf(&row[2], "%.10g", p->value);
        str_printf(&row[3], "%.10g to %.10g", p->min, p->max);
        return;
    }
    str_add(&row[2], p->choices, strcspn(p->choices, "|"));
    for (const char *c = p->choices; *c; c++) // a bar would end the cell
        if (*c == '|') str_puts(&row[3], ", ");
        else str_add(&row[3], c, 1);
}

// The registry as two tables: the rewards, and their parameters.
static void list_rewards(void) {
    Table rewards = table_new(4, (const char *const[]){"reward", "score", "reads", "defined by"});
    Table params = table_new(5, (const char *const[]){"reward", "parameter", "default", "range", "meaning"});
    for (int i = 0; i < reward_count; i++) {
        const RewardInfo *info = &reward_registry[i];
        list_reward(info, table_row(&rewards));
        for (int p = 0; p < info->n_params; p++) list_param(info, &info->params[p], table_row(&params));
    }
    table_print(&rewards);
    puts("\nEvery reward has a `weight` (default 1). Other parameters:\n");
    table_print(&params);
}

// Opens the reward as the options say: its markers, and its model where it has one.
static bool grader_open(Grader *g, Rewards *rw, char **options, int n, Error *e) {
    *g = (Grader){.reward = &rw->reward[0]};
    bool by_model = g->reward->info->by_model;
    for (int i = 0; i < n && !by_model; i++)
        if (strncmp(options[i], "think_markers=", strlen("think_markers=")))
            return error_set(e, EXIT_CONFIG, "reward %s is given by no model, and reads no option like %s",
                             g->reward->info->name, options[i]);
    Config c;
    if (!config_read(&c, NULL, options, n, e)) return false;
    bool ok = think_markers_read(&rw->reward[0].think, c.think_markers.item, c.think_markers.n, e);
    if (ok) ok = reward_open(&rw->reward[0], e);
    if (!ok || !by_model) {
        config_free(&c);
        return ok;
    }
    g->device = device_open((int)c.device, 0, machine_threads((int)c.threads, 1), c.cpu_isa, e);
    if (g->device) g->model = reward_models_open(rw, c.dtype == DTYPE_BF16 ? BF16 : F32, g->device, c.load, e);
    config_free(&c);
    return g->model != NULL;
}

static void grader_close(Grader *g) {
    reward_models_free(g->model);
    device_close(g->device);
}

ExitCode command_reward(int argc, char **argv, Error *e) {
    if (argc == 1 && config_asks_help(argv[0])) {
        fputs(usage, stdout);
        return EXIT_OK;
    }
    Rewards rw = {.n = 1};
    Reward *r = &rw.reward[0];
    int options = argc > 1 && strchr(argv[1], '=') && access(argv[1], F_OK) ? 1
                  : argc > 1                                                ? 2
                                                                            : argc; // the first of them
    if (argc == 1 && strcmp(argv[0], "--list") == 0) list_rewards();
    else if (argc < 1)
        return error_set(e, EXIT_CONFIG,
                         "reward: one reward is needed, and a file if not standard input; see grpo reward --help"),
               EXIT_CONFIG;
    else {
        Grader g = {0};
        bool ok = reward_parse(argv[0], r, e) && grader_open(&g, &rw, argv + options, argc - options, e) &&
                  score_file(&g, options > 1 ? argv[1] : "-", e);
        grader_close(&g);
        rewards_note(&rw);
        rewards_close(&rw);
        if (!ok) return e->code;
    }
    return output_flush(e) ? EXIT_OK : e->code;
}
