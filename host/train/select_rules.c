// Which completions of a question are kept: rules, duplicates, and how many at most.
#include "config_table.h"
#include "random.h"
#include "select.h"
#include "text.h"
#include <stdlib.h>
#include <utf8proc.h>

#define RUN_OF_WORDS 3 // words of the runs that overlap is counted in

typedef struct {
    uint64_t *item; // ascending, each once
    int n;
} Hashes;

// A question of which completions are kept.
typedef struct {
    uint64_t hash; // 0: a free slot
    int kept;
    Hashes *runs; // [kept], of those that are kept, where overlap counts; else NULL
} Asked;

struct SelectRules {
    const Config *cfg;
    const Rewards *rewards;
    ThinkMarkers think;
    SelectRule *rule; // [cfg->select_rules.n]
    uint64_t *seen;   // [slots], 0: free; question and answer of what was kept
    size_t slots, used;
    Asked *asked; // [asked_slots]
    size_t asked_slots, asked_used;
};

SelectRules *select_rules_open(const Config *c, const Rewards *rw, Error *e) {
    SelectRules *s = xcalloc(1, sizeof *s);
    *s = (SelectRules){.cfg = c, .rewards = rw, .slots = 1024, .asked_slots = 1024};
    s->asked = xcalloc(s->asked_slots, sizeof *s->asked);
    s->rule = xcalloc((size_t)c->select_rules.n + 1, sizeof *s->rule);
    s->seen = xcalloc(s->slots, sizeof *s->seen);
    if (!think_markers_read(&s->think, c->think_markers.item, c->think_markers.n, e))
        return select_rules_close(s), NULL;
    for (int i = 0; i < c->select_rules.n; i++) {
        if (config_select_rule(c, i, &s->rule[i], e)) continue;
        error_prefix(e, "select_rules");
        select_rules_close(s);
        return NULL;
    }
    return s;
}

void select_rules_close(SelectRules *s) {
    if (!s) return;
    free(s->rule);
    free(s->seen);
    for (size_t i = 0; i < s->asked_slots; i++) {
        for (int k = 0; s->asked[i].runs && k < s->asked[i].kept; k++) free(s->asked[i].runs[k].item);
        free(s->asked[i].runs);
    }
    free(s->asked);
    free(s);
}

// ---- one completion by itself ---------------------------------------------------------------------------------------

// The first rule whose range does not contain the completion's score, or -1. No range contains an abstention.
static int rule_failed(const SelectRules *s, const Drawn *d) {
    for (int i = 0; i < s->cfg->select_rules.n; i++) {
        float x = s->rule[i].reward < 0 ? d->reward : d->score[s->rule[i].reward];
        if (!(x >= s->rule[i].min && x <= s->rule[i].max)) return i;
    }
    return -1;
}

bool select_right(const SelectRules *s, const Drawn *d) { return !d->truncated && rule_failed(s, d) < 0; }

// Characters of the longest paragraph; paragraphs are separated by blank lines.
static size_t longest_paragraph(Text t) {
    size_t longest = 0, from = 0, end = 0; // of the paragraph so far
    for (size_t at = 0; at < t.n;) {
        size_t newline = text_find(t, at, text_of("\n")), stop = newline == TEXT_NONE ? t.n : newline;
        bool white = !text_strip(text_slice(t, at, stop)).n;
        if (white) from = stop + 1;
        else end = stop;
        size_t n = white ? 0 : text_length(text_slice(t, from, end));
        if (n > longest) longest = n;
        at = stop + 1;
    }
    return longest;
}

// ---- what is the same -----------------------------------------------------------------------------------------------

// Normalizes a text: case and compatibility forms folded, white space between words made one space. Heap memory.
static char *normalized(const char *text) {
    utf8proc_uint8_t *folded = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, 0, &folded,
                     UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD);
    Text t = n < 0 ? text_of(text) : (Text){(const char *)folded, (size_t)n}; // not UTF-8: as it is
    Str out = {0};
    str_puts(&out, "");
    for (size_t at = text_skip_space(t, 0); at < t.n; at = text_skip_space(t, at)) {
        if (out.n) str_puts(&out, " ");
        uint32_t c;
        for (size_t step; at < t.n && (step = text_char(t, at, &c), !text_is_space(c)); at += step)
            str_add(&out, t.s + at, step);
    }
    free(folded);
    return out.s;
}

static uint64_t hash_bytes(uint64_t h, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) h = random_mix(h ^ (uint64_t)(unsigned char)s[i]) + RANDOM_STEP;
    return h;
}

static int hash_compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// The hashes of the runs of RUN_OF_WORDS words of a normalized text; a shorter text is one run.
static Hashes runs_of(const char *text) {
    size_t n = strlen(text), words = 1;
    for (const char *p = text; *p; p++) words += *p == ' ';
    Hashes h = {.item = xmalloc(words * sizeof *h.item)};
    const char *begin[RUN_OF_WORDS] = {text}; // of the last words, in a ring
    size_t word = 0;
    for (const char *p = text;; p++) {
        if (*p && *p != ' ') continue;
        const char *first = words < RUN_OF_WORDS ? text : begin[(word + 1) % RUN_OF_WORDS];
        if (word + 1 >= RUN_OF_WORDS || (!*p && words < RUN_OF_WORDS))
            h.item[h.n++] = hash_bytes(0, first, (size_t)(p - first));
        if (p == text + n) break;
        begin[++word % RUN_OF_WORDS] = p + 1;
    }
    qsort(h.item, (size_t)h.n, sizeof *h.item, hash_compare);
    int kept = 0;
    for (int i = 0; i < h.n; i++)
        if (!kept || h.item[kept - 1] != h.item[i]) h.item[kept++] = h.item[i];
    h.n = kept;
    return h;
}

// The overlap of two texts: the share of their runs of words that both have (Jaccard index).
static double overlap(Hashes a, Hashes b) {
    int both = 0;
    for (int i = 0, j = 0; i < a.n && j < b.n;) {
        both += a.item[i] == b.item[j];
        bool step_a = a.item[i] <= b.item[j], step_b = b.item[j] <= a.item[i];
        i += step_a;
        j += step_b;
    }
    return (double)both / (a.n + b.n - both);
}

// The slot where the hash is in the table, or belongs.
static size_t slot_of(const SelectRules *s, uint64_t hash) {
    size_t at = hash & (s->slots - 1);
    while (s->seen[at] && s->seen[at] != hash) at = (at + 1) & (s->slots - 1);
    return at;
}

static void remember(SelectRules *s, uint64_t hash) {
    s->seen[slot_of(s, hash)] = hash;
    if (2 * ++s->used < s->slots) return;
    uint64_t *old = s->seen;
    size_t n = s->slots;
    s->slots *= 4;
    s->seen = xcalloc(s->slots, sizeof *s->seen);
    for (size_t i = 0; i < n; i++)
        if (old[i]) s->seen[slot_of(s, old[i])] = old[i];
    free(old);
}

// The entry of a question; made where there is none. Valid until the next call.
static Asked *asked_of(SelectRules *s, uint64_t hash) {
    size_t at = hash & (s->asked_slots - 1);
    while (s->asked[at].hash && s->asked[at].hash != hash) at = (at + 1) & (s->asked_slots - 1);
    if (s->asked[at].hash) return &s->asked[at];
    if (2 * ++s->asked_used >= s->asked_slots) {
        Asked *old = s->asked;
        size_t n = s->asked_slots;
        s->asked_slots *= 4, s->asked_used = 1;
        s->asked = xcalloc(s->asked_slots, sizeof *s->asked);
        for (size_t i = 0; i < n; i++)
            if (old[i].hash) *asked_of(s, old[i].hash) = old[i];
        free(old);
        at = hash & (s->asked_slots - 1);
        while (s->asked[at].hash) at = (at + 1) & (s->asked_slots - 1);
    }
    s->asked[at].hash = hash;
    return &s->asked[at];
}

// ---- a question's completions ---------------------------------------------------------------------------------------

typedef struct {
    int i;
    double first; // sort key, ascending; ties are sorted by i
} Candidate;

static int compare_candidates(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    return x->first != y->first ? (x->first > y->first) - (x->first < y->first) : x->i - y->i;
}

static double chosen_by(const Config *c, int64_t line, int i, const Drawn *d) {
    switch (c->select_choose) {
    case CHOOSE_HIGHEST: return isnan(d->reward) ? (double)INFINITY : -(double)d->reward;
    case CHOOSE_SEED: return (double)(random_bits((uint64_t)c->seed, (uint64_t)line, (uint64_t)i) >> 11);
    default: return d->tokens;
    }
}

static Drop drop_by_itself(const SelectRules *s, const Drawn *d) {
    const Config *c = s->cfg;
    Text text = text_of(d->text);
    if (d->truncated) return DROP_TRUNCATED;
    if (rule_failed(s, d) >= 0) return DROP_SCORE;
    if (c->select_drop_code && text_find(thoughts_of(&s->think, text), 0, text_of("```")) != TEXT_NONE)
        return DROP_CODE;
    if (c->select_max_paragraph && longest_paragraph(text) > (size_t)c->select_max_paragraph) return DROP_PARAGRAPH;
    return c->select_max_tokens && d->tokens > c->select_max_tokens ? DROP_TOKENS : DROP_NONE;
}

// Keeps candidates in their order, up to the number wanted, and leaves out those too much like one that was kept.
static void take_candidates(SelectRules *s, const char *question, const Drawn *drawn, const Candidate *candidate, int n,
                            Drop *drop) {
    const Config *c = s->cfg;
    char *words = normalized(question);
    uint64_t question_hash = hash_bytes(1, words, strlen(words));
    Asked *asked = n ? asked_of(s, question_hash | 1) : NULL;
    bool overlaps = c->select_max_overlap < 1;
    for (int k = 0; k < n; k++) {
        Drop *fate = &drop[candidate[k].i];
        char *text = normalized(drawn[candidate[k].i].text);
        uint64_t hash = hash_bytes(question_hash, text, strlen(text)) | 1; // 0 is a free slot
        Hashes runs = overlaps ? runs_of(text) : (Hashes){NULL, 0};
        if (s->seen[slot_of(s, hash)]) *fate = DROP_DUPLICATE;
        for (int j = 0; j < asked->kept && overlaps && *fate == DROP_NONE; j++)
            if (overlap(runs, asked->runs[j]) > c->select_max_overlap) *fate = DROP_OVERLAP;
        bool enough = c->select_per_question && asked->kept >= c->select_per_question;
        if (*fate == DROP_NONE && enough) *fate = DROP_ENOUGH;
        if (*fate == DROP_NONE) {
            remember(s, hash);
            if (overlaps) {
                asked->runs = xrealloc(asked->runs, (size_t)(asked->kept + 1) * sizeof *asked->runs);
                asked->runs[asked->kept] = runs;
            }
            asked->kept++;
        } else free(runs.item);
        free(text);
    }
    free(words);
}

void select_question(SelectRules *s, int64_t line, const char *question, const Drawn *drawn, int n, Drop *drop,
                     SelectCount *count) {
    Candidate *candidate = xcalloc((size_t)n + 1, sizeof *candidate);
    int right = 0, candidates = 0;
    for (int i = 0; i < n; i++) {
        drop[i] = drop_by_itself(s, &drawn[i]);
        right += select_right(s, &drawn[i]);
    }
    for (int i = 0; i < n; i++) {
        if (drop[i] == DROP_NONE && s->cfg->select_drop_easy && right == n) drop[i] = DROP_EASY;
        if (drop[i] == DROP_NONE) candidate[candidates++] = (Candidate){i, chosen_by(s->cfg, line, i, &drawn[i])};
    }
    qsort(candidate, (size_t)candidates, sizeof *candidate, compare_candidates);
    take_candidates(s, question, drawn, candidate, candidates, drop);
    free(candidate);
    int kept = 0;
    for (int i = 0; i < n; i++) {
        kept += drop[i] == DROP_NONE;
        count->dropped[drop[i]] += drop[i] != DROP_NONE;
        for (int k = 0; k < s->rewards->n; k++) count->unscored[k] += isnan(drawn[i].score[k]);
        if (drop[i] != DROP_SCORE) continue;
        int rule = rule_failed(s, &drawn[i]), of = s->rule[rule].reward;
        count->by_rule[rule]++;
        count->unruled[rule] += isnan(of < 0 ? drawn[i].reward : drawn[i].score[of]);
    }
    count->questions++;
    count->completions += n;
    count->kept += kept;
    count->questions_kept += kept > 0;
    count->always_right += n && right == n;
    count->never_right += n && !right;
}

// ---- what was dropped, and why --------------------------------------------------------------------------------------

static const char *const reasons[DROP_REASONS][2] = {
    // in select.json, in the table
    [DROP_TRUNCATED] = {"truncated", "cut at max_completion_length"},
    [DROP_CODE] = {"code_in_thoughts", "code block in the thoughts"},
    [DROP_PARAGRAPH] = {"long_paragraph", "paragraph over select_max_paragraph"},
    [DROP_TOKENS] = {"many_tokens", "more tokens than select_max_tokens"},
    [DROP_EASY] = {"easy_question", "question with right answers only"},
    [DROP_DUPLICATE] = {"duplicate", "kept already, the same text"},
    [DROP_OVERLAP] = {"near_duplicate", "much like one that is kept"},
    [DROP_ENOUGH] = {"enough", "select_per_question are kept"},
};

static const char *rule_name(const SelectRules *s, int i) {
    return s->rule[i].reward < 0 ? "reward" : s->rewards->reward[s->rule[i].reward].name;
}

void select_json(const SelectRules *s, const SelectCount *n, Str *out) {
    str_printf(out,
               "{\"questions\": %lld, \"long_prompts\": %lld, \"always_right\": %lld, \"never_right\": %lld, "
               "\"questions_kept\": %lld, \"completions\": %lld, \"kept\": %lld, \"dropped\": {",
               (long long)n->questions, (long long)n->long_prompts, (long long)n->always_right,
               (long long)n->never_right, (long long)n->questions_kept, (long long)n->completions, (long long)n->kept);
    for (int d = DROP_NONE + 1; d < DROP_REASONS; d++)
        if (d != DROP_SCORE)
            str_printf(out, "%s\"%s\": %lld", d > DROP_NONE + 1 ? ", " : "", reasons[d][0], (long long)n->dropped[d]);
    str_puts(out, "}, \"dropped_by_rule\": [");
    for (int i = 0; i < s->cfg->select_rules.n; i++) {
        str_printf(out, "%s{\"rule\": ", i ? ", " : "");
        str_json(out, s->cfg->select_rules.item[i], strlen(s->cfg->select_rules.item[i]));
        str_printf(out, ", \"completions\": %lld, \"without_score\": %lld}", (long long)n->by_rule[i],
                   (long long)n->unruled[i]);
    }
    str_puts(out, "], \"without_score\": {");
    for (int k = 0; k < s->rewards->n; k++) {
        str_puts(out, k ? ", " : "");
        str_json(out, s->rewards->reward[k].name, strlen(s->rewards->reward[k].name));
        str_printf(out, ": %lld", (long long)n->unscored[k]);
    }
    str_puts(out, "}}\n");
}

// A count and a reason for each reason that dropped anything; `between` stands between them.
static void put_drops(const SelectRules *s, const SelectCount *n, int width, const char *between, Str *out) {
    const char *before = "";
    for (int d = DROP_NONE + 1; d < DROP_REASONS; d++) {
        if (d != DROP_SCORE) {
            if (!n->dropped[d]) continue;
            str_printf(out, "%s%*lld %s", before, width, (long long)n->dropped[d], reasons[d][1]);
            before = between;
        }
        for (int i = 0; d == DROP_SCORE && i < s->cfg->select_rules.n; i++) {
            int64_t outside = n->by_rule[i] - n->unruled[i];
            if (outside) {
                str_printf(out, "%s%*lld %s outside select_rules (%s)", before, width, (long long)outside,
                           rule_name(s, i), s->cfg->select_rules.item[i]);
                before = between;
            }
            if (n->unruled[i]) {
                str_printf(out, "%s%*lld without a score of %s, which select_rules asks for (%s)", before, width,
                           (long long)n->unruled[i], rule_name(s, i), s->cfg->select_rules.item[i]);
                before = between;
            }
        }
    }
}

void select_dropped(const SelectRules *s, const SelectCount *n, Str *out) { put_drops(s, n, 1, ", ", out); }

bool select_lacks(const SelectRules *s, const SelectCount *n) {
    for (int k = 0; k < s->rewards->n; k++)
        if (n->unscored[k] && reward_may_come(&s->rewards->reward[k])) return true;
    return false;
}

void select_table(const SelectRules *s, const SelectCount *n, Str *out) {
    str_printf(out, "kept %lld of %lld completions, of %lld of %lld questions (%lld always right, %lld never",
               (long long)n->kept, (long long)n->completions, (long long)n->questions_kept, (long long)n->questions,
               (long long)n->always_right, (long long)n->never_right);
    str_puts(out, ")\n");
    if (n->long_prompts)
        str_printf(out, "  not asked: %lld questions, longer than max_prompt_length\n", (long long)n->long_prompts);
    if (n->kept != n->completions) {
        put_drops(s, n, 12, "\n", out);
        str_puts(out, "\n");
    }
    for (int k = 0; k < s->rewards->n; k++)
        if (n->unscored[k])
            str_printf(out, "  no score of %s: %lld completions%s\n", s->rewards->reward[k].name,
                       (long long)n->unscored[k],
                       reward_may_come(&s->rewards->reward[k]) ? "; the same command asks for them again" : "");
}
