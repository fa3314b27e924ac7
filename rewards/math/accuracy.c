// The reward `accuracy`: does the completion's answer mean the same as the gold answer? Open R1 and TRL compute this
// with Math-Verify; here it is done by the verifier of math_*.c.
#include "accuracy.h"
#include "verify.h"
#include <stdlib.h>

// What counts as an answer: the choices of the parameter `extract`, in their order.
enum { EXTRACT_ANCHORED, EXTRACT_ANY, EXTRACT_LATEX, EXTRACT_NUMBERS };

// How gold is read: LaTeX or a number anywhere in its text, malformed or not.
static Extract gold_extract(int extract) {
    return (Extract){.latex = extract != EXTRACT_NUMBERS,
                     .numbers = extract != EXTRACT_LATEX,
                     .boxed_priority = 50,
                     .unanchored = true,
                     .normalize = {.malformed = true, .nits = true}};
}

// How a completion is read: EXTRACT_ANCHORED wants well-formed LaTeX in a box or behind "answer"; the others read it
// like gold.
static Extract completion_extract(int extract) {
    if (extract != EXTRACT_ANCHORED) return gold_extract(extract);
    return (Extract){.latex = true, .first_match = true};
}

static Answer read_gold(Pool *p, const char *answer, bool latex, const Extract *how) {
    Text t = text_of(answer);
    if (!latex) return math_extract(p, t, how);
    Str s = {0};
    str_printf(&s, "$%s$", answer); // the whole field is one formula, on however many lines
    for (size_t i = 0; i < s.n; i++)
        if (s.s[i] == '\n') s.s[i] = ' ';
    Answer a = math_extract(p, pool_text(p, (Text){s.s, s.n}), how);
    str_free(&s);
    return a;
}

void verify_samples(const VerifyOptions *o, const Sample *samples, int n, Verdict *verdict) {
    Extract for_gold = gold_extract(o->extract), for_completion = completion_extract(o->extract);
    CompareOptions how = {.precision = o->precision, .any_variable = o->any_variable, .set_relation = o->set_relation};
    Pool gold_pool = {0};
    Answer gold = {0};
    const char *gold_text = NULL;
    for (int i = 0; i < n; i++) {
        if (!gold_text || strcmp(gold_text, samples[i].answer) != 0) { // a group shares its gold
            pool_free(&gold_pool);
            gold_text = samples[i].answer;
            gold = read_gold(&gold_pool, gold_text, o->gold_latex, &for_gold);
        }
        if (!gold.node && gold.text.n == 0) {
            verdict[i] = VERDICT_NO_GOLD;
            continue;
        }
        Pool pool = {0};
        Text completion = sample_text(&samples[i]);
        Answer answer = math_extract(&pool, completion, &for_completion);
        verdict[i] = math_equal(&pool, &gold, &answer, &how) ? VERDICT_RIGHT : VERDICT_WRONG;
        pool_free(&pool);
    }
    pool_free(&gold_pool);
}

static VerifyOptions options_of(const Reward *r) {
    return (VerifyOptions){.extract = (int)reward_number(r, "extract"),
                           .gold_latex = reward_chose(r, "gold", "latex"),
                           .precision = (int)reward_number(r, "precision"),
                           .any_variable = reward_chose(r, "variables", "free"),
                           .set_relation = reward_chose(r, "relations", "sets")};
}

void reward_accuracy(const Reward *r, const Sample *samples, int n, float *score) {
    VerifyOptions o = options_of(r);
    float unparsable = reward_chose(r, "unreadable_gold", "abstain") ? REWARD_ABSTAINS : 1;
    Verdict *verdict = xmalloc((size_t)n * sizeof *verdict);
    verify_samples(&o, samples, n, verdict);
    for (int i = 0; i < n; i++)
        score[i] = verdict[i] == VERDICT_NO_GOLD ? unparsable : verdict[i] == VERDICT_RIGHT ? 1 : 0;
    free(verdict);
}

// The part of a completion behind its last `delimiter`, or behind the thoughts; a NULL text where there is none.
static Text after_reasoning(const Reward *r, Text t) {
    const char *delimiter = reward_text(r, "delimiter");
    if (!*delimiter) return after_thoughts(&r->think, t);
    size_t at = text_find_last(t, text_of(delimiter));
    return at == TEXT_NONE ? (Text){0} : text_from(t, at + strlen(delimiter));
}

void reward_reasoning_accuracy(const Reward *r, const Sample *samples, int n, float *score) {
    VerifyOptions o = VERIFY_DEFAULTS;
    Verdict *verdict = xmalloc((size_t)n * sizeof *verdict);
    Sample *answer = xmalloc((size_t)n * sizeof *answer);
    for (int i = 0; i < n; i++) {
        Text rest = after_reasoning(r, sample_text(&samples[i]));
        answer[i] = samples[i];
        answer[i].completion = rest.s ? rest.s : "";
        answer[i].completion_len = rest.n;
    }
    verify_samples(&o, answer, n, verdict);
    for (int i = 0; i < n; i++) {
        bool complete = after_reasoning(r, sample_text(&samples[i])).s;
        score[i] = !complete                       ? 0
                   : verdict[i] == VERDICT_NO_GOLD ? REWARD_ABSTAINS
                   : verdict[i] == VERDICT_RIGHT   ? 1
                                                   : 0;
    }
    free(verdict);
    free(answer);
}
