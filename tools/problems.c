// Writes GSM8K-format word problems, seeded, for the demo and the tests: one or two additions or subtractions of small
// numbers told as a short story; or, with --thanks, gifts and what is said to them, which no rule can judge, with pairs
// of a polite and a plain reply for a reward model. `problems --help` lists the options.
//
// Train and eval never share a question: a hash of its text decides the side, one in eight is for eval, whatever the
// seeds, counts and ranges. With --hold-out sums the hash is of the arithmetic alone (12+5, 12+5-3; 5+12 counts as
// 12+5): then no sum in an eval file was ever told in a train file, in any wording. That asks for more than a tiny
// model can learn in minutes.
#include "program.h"
#include "random.h"
#include "str.h"
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"Tom", "Ann", "Sam", "Mia", "Ben", "Eva", "Max", "Zoe"};
static const char *const objects[] = {"apples", "books", "coins", "cards", "eggs", "pens", "cups", "keys"};

// A story: its opening, its events (each adds or takes away), its question, and a line of the solution. In the texts,
// %N and %M are two names, %O objects, %A and %B numbers, %E the sum with its result.
typedef struct {
    const char *opening, *more[3], *less[3], *question, *line;
} Story;

static const Story stories[] = {
    {"%N has %A %O.",
     {"%M gives %N %B more.", "%N buys %B more.", "%N finds %B more."},
     {"%N gives %M %B.", "%N sells %B.", "%N loses %B."},
     "How many %O does %N have now?",
     "%N now has %E %O."},
    {"There are %A %O in a box.",
     {"%N puts in %B more.", "%M puts in %B more.", "%N and %M put in %B more."},
     {"%N takes out %B.", "%M takes out %B.", "%N and %M take out %B."},
     "How many %O are in the box?",
     "The box holds %E %O."},
};
// Comparisons have one step and no events.
static const Story sum_story = {
    "%N has %A %O. %M has %B %O.", {0}, {0}, "How many %O do they have in all?", "They have %E %O."};
static const Story difference_story = {
    "%N has %A %O. %M has %B %O.", {0}, {0}, "How many more %O does %N have?", "%N has %E more %O."};

// A gift, and replies to it: polite ones, and plain ones, of which some are in another language.
static const char gift[] = "%N gives %M %A %O. What does %M say?";
static const char *const polite[] = {"Thank you, %N!", "How kind, %N. Thank you for the %O!",
                                     "Thanks a lot for the %A %O!"};
static const char *const plain[] = {"Now I have %A %O.", "I wanted more than %A %O.", "Jetzt habe ich %A %O.",
                                    "Ich wollte mehr als %A %O."};
enum { POLITE_IN = 3 }; // of the replies that are written to learn from, one in so many is polite

typedef struct {
    uint64_t seed;
    long count, min, max, min_steps, max_steps;
    bool eval, solutions, hold_out_sums, thanks, pairs;
} Options;

enum { MOST_STEPS = 2 };
typedef struct {
    int steps;
    char op[MOST_STEPS];         // '+' or '-'
    long number[MOST_STEPS + 1]; // the first number, then one a step
    long total[MOST_STEPS + 1];  // after 0, 1, 2 steps
} Problem;

static uint64_t draw(uint64_t *state) { return random_mix(*state += RANDOM_STEP); }
static long between(uint64_t *state, long lo, long hi) { return lo + (long)(draw(state) % (uint64_t)(hi - lo + 1)); }

static Problem problem_draw(uint64_t *state, const Options *o) {
    Problem p = {.steps = (int)between(state, o->min_steps, o->max_steps)};
    p.total[0] = p.number[0] = between(state, o->min, o->max);
    for (int s = 0; s < p.steps && s < MOST_STEPS; s++) { // gcc 15 does not see that there are no more
        long have = p.total[s];
        p.op[s] = have < o->min || draw(state) % 2 ? '+' : '-';
        long most = p.op[s] == '-' && have < o->max ? have : o->max;
        p.number[s + 1] = between(state, o->min, most);
        p.total[s + 1] = p.op[s] == '+' ? have + p.number[s + 1] : have - p.number[s + 1];
    }
    return p;
}

static bool question_is_for_eval(const Str *question) {
    uint64_t h = 0;
    for (size_t i = 0; i < question->n; i++) h = random_mix(h + (unsigned char)question->s[i] + 1);
    return h % 8 == 0;
}

static bool sum_is_for_eval(const Problem *p) {
    long a = p->number[0], b = p->number[1];
    bool swap = p->op[0] == '+' && b < a;
    uint64_t h = random_mix((uint64_t)(swap ? b : a) + 1) + (uint64_t)p->op[0];
    h = random_mix(h + (uint64_t)(swap ? a : b));
    if (p->steps == 2) h = random_mix(random_mix(h + (uint64_t)p->op[1]) + (uint64_t)p->number[2]);
    return h % 8 == 0;
}

typedef struct {
    const char *n, *m, *object;
    long a, b;
    const char *sum;
} Words;

static Words words_draw(uint64_t *state) {
    size_t n_names = sizeof names / sizeof *names, first = draw(state) % n_names;
    size_t second = (first + 1 + draw(state) % (n_names - 1)) % n_names;
    return (Words){names[first], names[second], objects[draw(state) % (sizeof objects / sizeof *objects)], 0, 0, NULL};
}

static void tell(Str *out, const char *text, const Words *w) {
    if (out->n && out->s[out->n - 1] != '\n') str_puts(out, " ");
    for (; *text; text++) {
        if (*text != '%') {
            str_add(out, text, 1);
            continue;
        }
        switch (*++text) {
        case 'N': str_puts(out, w->n); break;
        case 'M': str_puts(out, w->m); break;
        case 'O': str_puts(out, w->object); break;
        case 'A': str_printf(out, "%ld", w->a); break;
        case 'B': str_printf(out, "%ld", w->b); break;
        case 'E': str_puts(out, w->sum); break;
        default: die("no word for %%%c", *text);
        }
    }
}

// Fills the question, GSM8K's answer, and the completion in the recipe's strict format.
static void problem_tell(const Problem *p, uint64_t *state, Str *question, Str *answer, Str *completion) {
    Words w = words_draw(state);
    w.a = p->number[0], w.b = p->number[1];
    size_t which = draw(state) % 3;
    const Story *story = which < 2 ? &stories[which] : p->op[0] == '+' ? &sum_story : &difference_story;
    if (p->steps > 1) story = &stories[which % 2];

    str_puts(completion, "<think>\n");
    tell(question, story->opening, &w);
    for (int s = 0; s < p->steps; s++) {
        long have = p->total[s], total = p->total[s + 1];
        w.b = p->number[s + 1];
        const char *event = (p->op[s] == '+' ? story->more : story->less)[draw(state) % 3];
        if (event) tell(question, event, &w);
        char step[64], sum[160];
        snprintf(step, sizeof step, "%ld%c%ld", have, p->op[s], w.b);
        snprintf(sum, sizeof sum, "%s=<<%s=%ld>>%ld", step, step, total, total);
        w.sum = sum;
        tell(answer, story->line, &w);
        str_puts(answer, "\n");
        str_printf(completion, "%s%s=%ld", s ? ", " : "", step, total);
    }
    tell(question, story->question, &w);
    str_printf(answer, "#### %ld", p->total[p->steps]);
    str_printf(completion, "\n</think>\n<answer>\n%ld\n</answer>\n", p->total[p->steps]);
}

// Fills a row about a gift: its question, a polite reply and a plain one.
static void thanks_tell(const Options *o, uint64_t *state, Str *question, Str *good, Str *bad) {
    Words w = words_draw(state);
    w.a = between(state, o->min, o->max);
    tell(question, gift, &w);
    tell(good, polite[draw(state) % (sizeof polite / sizeof *polite)], &w);
    tell(bad, plain[draw(state) % (sizeof plain / sizeof *plain)], &w);
}

static void put_field(Str *line, const char *name, const Str *text) {
    str_puts(line, line->n ? ", " : "{");
    str_printf(line, "\"%s\": ", name);
    str_json(line, text->s, text->n);
}

// Hashes of the questions written so far, open addressing: no question comes twice in one file.
typedef struct {
    uint64_t *hash;
    size_t cap;
} Seen;

static bool seen_before(Seen *seen, const Str *question) {
    uint64_t h = 0;
    for (size_t i = 0; i < question->n; i++) h = random_mix(h + (unsigned char)question->s[i] + 1);
    h |= 1; // 0 marks a free place
    size_t i = h & (seen->cap - 1);
    while (seen->hash[i] && seen->hash[i] != h) i = (i + 1) & (seen->cap - 1);
    bool found = seen->hash[i] == h;
    seen->hash[i] = h;
    return found;
}

static bool write_problems(const Options *o, FILE *f) {
    uint64_t state = random_mix(o->seed + 1);
    Seen seen = {.cap = 64};
    while (seen.cap < 2 * (size_t)o->count) seen.cap *= 2;
    seen.hash = xcalloc(seen.cap, sizeof *seen.hash);
    Str question = {0}, answer = {0}, completion = {0}, line = {0};
    long written = 0;
    for (long misses = 0; written < o->count && misses < 100000; misses++) {
        str_clear(&question), str_clear(&answer), str_clear(&completion), str_clear(&line);
        bool good = true; // of the two replies to a gift, the polite one
        if (o->thanks) {
            thanks_tell(o, &state, &question, &completion, &answer);
            good = draw(&state) % POLITE_IN == 0;
        } else {
            Problem p = problem_draw(&state, o);
            if (o->hold_out_sums && sum_is_for_eval(&p) != o->eval) continue;
            problem_tell(&p, &state, &question, &answer, &completion);
        }
        if (!o->hold_out_sums && question_is_for_eval(&question) != o->eval) continue;
        if (seen_before(&seen, &question)) continue;
        put_field(&line, o->solutions || o->pairs ? "prompt" : "question", &question);
        if (o->pairs) {
            put_field(&line, "chosen", &completion);
            put_field(&line, "rejected", &answer);
        } else if (o->solutions) put_field(&line, "completion", good ? &completion : &answer);
        else {
            // No rule reads the gold of a gift; a row has one.
            if (o->thanks) str_clear(&answer), str_puts(&answer, "#### thanks");
            put_field(&line, "answer", &answer);
        }
        fprintf(f, "%s}\n", line.s);
        written++;
        misses = 0;
    }
    str_free(&question), str_free(&answer), str_free(&completion), str_free(&line);
    free(seen.hash);
    if (written < o->count)
        fprintf(stderr, "problems: %ld were asked for, but only %ld different questions were found; widen --max%s\n",
                o->count, written, o->thanks ? "" : " or --steps");
    return written == o->count;
}

static void usage(FILE *f) {
    fputs("problems --count N [options]: N word problems as JSONL on standard output\n"
          "  --seed S        which problems (default 1)\n"
          "  --split SIDE    train or eval (default train); no question is in both, whatever the seeds\n"
          "  --hold-out sums the same of sums: what is added or taken away in one was never in the other\n"
          "  --level L       1: operands to 9, one step   2: to 20, one step   3: to 50, one or two   4: to 99, two\n"
          "                  (default 2)\n"
          "  --min A --max B operands of A to B, instead of the level's\n"
          "  --steps K       1, 2, or 1-2 steps, instead of the level's\n"
          "  --thanks        gifts and what is said to them, instead: {question, answer}, the answer without meaning\n"
          "  --pairs         with --thanks: rows of {prompt, chosen, rejected}, a polite and a plain reply\n"
          "  --solutions     rows of {prompt, completion}, the completion correct and in the strict format\n"
          "                  <think>\\n...\\n</think>\\n<answer>\\n...\\n</answer>\\n, instead of GSM8K's {question, "
          "answer}; with\n                  --thanks one reply in three is polite\n",
          f);
}

static _Noreturn void complain(const char *option, const char *value, const char *wanted) {
    fprintf(stderr, "problems: %s%s%s: %s; see --help\n", option, value ? " " : "", value ? value : "", wanted);
    exit(EXIT_CONFIG);
}

static long number(const char *option, const char *value, long lo, long hi) {
    char *end = NULL, wanted[80];
    errno = 0;
    long n = value ? strtol(value, &end, 10) : 0;
    snprintf(wanted, sizeof wanted, "expected a number from %ld to %ld", lo, hi);
    if (!value || !*value || *end || errno || n < lo || n > hi) complain(option, value, wanted);
    return n;
}

int main(int argc, char **argv) {
    static const struct { long max, min_steps, max_steps; } levels[] = {{9, 1, 1}, {20, 1, 1}, {50, 1, 2}, {99, 2, 2}};
    Error e = {0};
    if (!program_begin(argv, &e)) return program_end("problems", e.code, &e);
    Options o = {.seed = 1};
    long level = 2, min = -1, max = -1, min_steps = 0, max_steps = 0;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = argv[i + 1];
        if (!strcmp(a, "--help")) return usage(stdout), EXIT_OK;
        if (!strcmp(a, "--solutions")) {
            o.solutions = true;
            continue;
        }
        if (!strcmp(a, "--thanks") || !strcmp(a, "--pairs")) {
            *(a[2] == 't' ? &o.thanks : &o.pairs) = true;
            continue;
        }
        if (!strcmp(a, "--seed")) o.seed = (uint64_t)number(a, v, 0, 1000000000);
        else if (!strcmp(a, "--count")) o.count = number(a, v, 1, 10000000);
        else if (!strcmp(a, "--level")) level = number(a, v, 1, 4);
        else if (!strcmp(a, "--min")) min = number(a, v, 0, 1000000);
        else if (!strcmp(a, "--max")) max = number(a, v, 0, 1000000);
        else if (!strcmp(a, "--split")) {
            if (!v || (strcmp(v, "train") && strcmp(v, "eval"))) complain(a, v, "expected train or eval");
            o.eval = !strcmp(v, "eval");
        } else if (!strcmp(a, "--hold-out")) {
            if (!v || strcmp(v, "sums")) complain(a, v, "expected sums");
            o.hold_out_sums = true;
        } else if (!strcmp(a, "--steps")) {
            bool both = v && !strcmp(v, "1-2");
            min_steps = both ? 1 : number(a, v, 1, MOST_STEPS);
            max_steps = both ? MOST_STEPS : min_steps;
        } else complain(a, NULL, "unknown option");
        i++;
    }
    if (!o.count) complain("--count", NULL, "missing");
    o.min = min < 0 ? 2 : min;
    o.max = max < 0 ? levels[level - 1].max : max;
    o.min_steps = min_steps ? min_steps : levels[level - 1].min_steps;
    o.max_steps = max_steps ? max_steps : levels[level - 1].max_steps;
    if (o.pairs && (!o.thanks || o.solutions)) complain("--pairs", NULL, "wants --thanks, and no --solutions");
    if (o.thanks && o.hold_out_sums) complain("--hold-out", "sums", "--thanks has none");
    if (o.min > o.max) complain("--min", NULL, "larger than --max");
    if (!write_problems(&o, stdout)) return EXIT_CONFIG;
    return program_end("problems", program_flush(EXIT_OK, &e), &e);
}
