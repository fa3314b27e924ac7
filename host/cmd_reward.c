// grpo reward: scores JSON lines, one line out for each line in. And the table of all rewards.
#include "host.h"
#include <stdlib.h>
#include <unistd.h>

static const char usage[] =
    "usage: grpo reward NAME[:key=value,...] [FILE]\n"
    "       grpo reward --list\n"
    "FILE (or standard input) holds JSON lines with `completion`, with `answer` where the reward "
    "compares with it,\nand optional `prompt`, `ids` (tokens) and `group`. Each gives a line "
    "{\"reward\": number}, the score times the weight, null where the reward abstains.\n"
    "Lines with the same `group` answer the same prompt; lines without one are one group.\n";

// What was read of the lines to be scored together; the samples' strings live in the JSON values.
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

static bool read_sample(const json_t *j, const Reward *r, const char *where, Sample *s, Ids *ids, Error *e) {
    if (!json_is_object(j)) return error_set(e, EXIT_INPUT, "%s: not a JSON object", where);
    *s = (Sample){.prompt = "", .answer = ""};
    const json_t *completion = json_object_get(j, "completion");
    if (!json_is_string(completion)) return error_set(e, EXIT_INPUT, "%s: no string \"completion\"", where);
    s->completion = json_string_value(completion);
    s->completion_len = json_string_length(completion);
    if ((r->info->reads & REWARD_READS_ANSWER) || json_object_get(j, "answer"))
        if (!(s->answer = json_field_string(j, "answer", where, e))) return false;
    if (json_object_get(j, "prompt") && !(s->prompt = json_field_string(j, "prompt", where, e))) return false;
    const json_t *list = json_object_get(j, "ids"), *group = json_object_get(j, "group");
    if (list && !read_ids(list, where, ids, e)) return false;
    if (list) s->ids = ids->id ? ids->id : (const int32_t[]){0}, s->n_ids = (int)ids->n;
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

// Sorts by group, keeping the order of lines: sample i goes to place[i].
typedef struct {
    int group, line;
} Place;

static int place_compare(const void *a, const void *b) {
    const Place *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return x->line < y->line ? -1 : 1;
}

static void score_lines(const Reward *r, Lines *l) {
    size_t n = (size_t)l->n;
    Place *place = xmalloc(n * sizeof *place);
    Sample *sorted = xmalloc(n * sizeof *sorted);
    float *score = xmalloc(n * sizeof *score), *in_order = xmalloc(n * sizeof *in_order);
    for (int i = 0; i < l->n; i++) place[i] = (Place){l->sample[i].group, i};
    qsort(place, n, sizeof *place, place_compare);
    for (int i = 0; i < l->n; i++) sorted[i] = l->sample[place[i].line];
    r->info->fn(r, sorted, l->n, score);
    for (int i = 0; i < l->n; i++) in_order[place[i].line] = reward_total(r, 1, &score[i]);
    for (int i = 0; i < l->n; i++) print_score(in_order[i]);
    free(place);
    free(sorted);
    free(score);
    free(in_order);
}

// A reward that looks at groups waits for all lines; any other scores each line as it comes.
static bool score_file(const Reward *r, const char *path, Error *e) {
    LineReader reader;
    if (!line_reader_open(&reader, path, e)) return false;
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
        if (whole) continue;
        score_lines(r, &lines);
        lines_clear(&lines);
        if (interactive) fflush(stdout);
    }
    if (got == 0 && lines.n > 0) score_lines(r, &lines);
    lines_free(&lines);
    line_reader_close(&reader);
    return got == 0;
}

enum { LIST_COLUMNS = 5 };

static void list_row(const RewardInfo *info, Str cell[LIST_COLUMNS]) {
    str_puts(&cell[0], info->name);
    str_puts(&cell[1], info->help);
    for (int i = 0; i < info->n_params; i++) {
        const RewardParam *p = &info->params[i];
        str_printf(&cell[2], "%s%s=%g (%g..%g): %s", i ? "; " : "", p->name, p->value, p->min, p->max, p->help);
    }
    static const char *const what[] = {"answer", "ids", "group"};
    str_puts(&cell[3], "completion");
    for (unsigned i = 0; i < 3; i++)
        if (info->reads >> i & 1) str_printf(&cell[3], ", %s", what[i]);
    str_puts(&cell[4], info->source);
}

// The registry as a table, aligned for a terminal and valid as Markdown.
static void list_rewards(void) {
    static const char *const head[] = {"reward", "score", "parameters: default (range)", "reads", "defined by"};
    Str(*cell)[LIST_COLUMNS] = xcalloc((size_t)reward_count, sizeof *cell);
    size_t width[LIST_COLUMNS];
    for (int c = 0; c < LIST_COLUMNS; c++) width[c] = strlen(head[c]);
    for (int i = 0; i < reward_count; i++) {
        list_row(&reward_registry[i], cell[i]);
        for (int c = 0; c < LIST_COLUMNS; c++)
            if (cell[i][c].n > width[c]) width[c] = cell[i][c].n;
    }
    for (int i = -2; i < reward_count; i++) {
        for (int c = 0; c < LIST_COLUMNS; c++) {
            const char *text = i == -2 ? head[c] : i == -1 || !cell[i][c].s ? "" : cell[i][c].s;
            printf("| %s", text);
            for (size_t k = strlen(text); k < width[c]; k++) putchar(i == -1 ? '-' : ' ');
            putchar(' ');
        }
        puts("|");
    }
    for (int i = 0; i < reward_count; i++)
        for (int c = 0; c < LIST_COLUMNS; c++) str_free(&cell[i][c]);
    free(cell);
}

ExitCode command_reward(int argc, char **argv, Error *e) {
    if (argc == 1 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        fputs(usage, stdout);
        return EXIT_OK;
    }
    Reward r;
    if (argc == 1 && strcmp(argv[0], "--list") == 0) list_rewards();
    else if (argc < 1 || argc > 2)
        return error_set(e, EXIT_CONFIG, "reward: one reward and at most one file are needed; see grpo reward --help"),
               EXIT_CONFIG;
    else if (!reward_parse(argv[0], &r, e) || !score_file(&r, argc == 2 ? argv[1] : "-", e)) return e->code;
    if (fflush(stdout) != 0 || ferror(stdout))
        return error_set(e, EXIT_DISK, "reward: writing to standard output failed"), EXIT_DISK;
    return EXIT_OK;
}
