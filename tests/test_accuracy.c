// The verifier: Math-Verify's own pairs, real graders' verdicts, GSM8K against itself, and texts made to hurt.
#include "data_lines.h"
#include "reward.h"
#include "str.h"
#include <string.h>
#include <time.h>

static float verify(const char *spec, const char *gold, const char *completion, size_t n) {
    Reward r;
    Error e = {0};
    if (!reward_parse(spec, &r, &e)) fail_msg("%s", e.text);
    Sample s = {.prompt = "", .completion = completion, .completion_len = n, .answer = gold};
    float score;
    r.info->fn(&r, &s, 1, &score);
    return score;
}

static const char *string_of(const json_t *j, const char *key) { return json_string_value(json_object_get(j, key)); }

// ---- Math-Verify's 269 pairs ----------------------------------------------------------------------------------------

static int differing;

static void check_pair(const json_t *line, int64_t number) {
    const json_t *config = json_object_get(line, "config"), *types = json_object_get(config, "match_types");
    bool latex = strcmp(json_string_value(json_array_get(types, 0)), "latex") == 0;
    char spec[128];
    snprintf(spec, sizeof spec, "accuracy:extract=%s,precision=%d,variables=%s,relations=%s",
             json_array_size(types) == 2 ? "any"
             : latex                     ? "latex"
                                         : "numbers",
             (int)json_integer_value(json_object_get(config, "precision")),
             json_is_true(json_object_get(config, "strict")) ? "strict" : "free",
             json_is_true(json_object_get(config, "allow_set_relation_comp")) ? "sets" : "strict");
    const json_t *prediction = json_object_get(line, "prediction");
    bool right =
        verify(spec, string_of(line, "gold"), json_string_value(prediction), json_string_length(prediction)) == 1;
    if (right == json_is_true(json_object_get(line, "expected"))) return;
    differing++;
    printf("differs: %s\n", string_of(line, "id"));
}

static void math_verify_pairs(void **state) {
    differing = 0;
    int n = each_line("math_verify_pairs", "rewards/verify_cases.jsonl", check_pair);
    printf("math_verify_pairs: %d of %d as expected\n", n - differing, n);
    assert_int_equal(differing, 0);
}

// ---- verdicts of the real graders -----------------------------------------------------------------------------------

static void expect(const json_t *line, const char *grader, const char *spec, const char *gold, const json_t *text) {
    const json_t *want = json_object_get(json_object_get(line, "rewards"), grader);
    float got = verify(spec, gold, json_string_value(text), json_string_length(text));
    bool equal = json_is_null(want) ? isnan(got) : (double)got == json_number_value(want);
    if (equal) return;
    differing++;
    printf("differs: %s gives %g: gold %s, %s\n", spec, (double)got, gold, json_string_value(text));
}

static void check_crafted(const json_t *line, int64_t number) {
    const json_t *text = json_object_get(line, "completion");
    expect(line, "open_r1_accuracy", "accuracy", string_of(line, "gold"), text);
    expect(line, "math_verify_default", "accuracy:extract=any", string_of(line, "gold"), text);
}

static void crafted_answers(void **state) {
    differing = 0;
    int n = each_line("crafted_answers", "rewards/crafted_gsm8k.jsonl", check_crafted);
    printf("crafted_answers: %d of %d verdicts equal\n", 2 * n - differing, 2 * n);
    assert_int_equal(differing, 0);
}

static json_t *problems; // by idx

static void keep_problem(const json_t *line, int64_t number) {
    json_array_append(problems, json_object_get(line, "code"));
}

static void check_model_answer(const json_t *line, int64_t number) {
    const json_t *text =
        json_array_get(json_array_get(problems, (size_t)json_integer_value(json_object_get(line, "row"))),
                       (size_t)json_integer_value(json_object_get(line, "sample")));
    char *dollars = xasprintf("$%s$", string_of(line, "gold"));
    expect(line, "open_r1_accuracy", "accuracy", dollars, text);
    expect(line, "open_r1_accuracy", "accuracy:gold=latex", string_of(line, "gold"), text);
    expect(line, "math_verify_default", "accuracy:extract=any", dollars, text);
    expect(line, "trl_accuracy_gold_without_dollars", "accuracy", string_of(line, "gold"), text);
    free(dollars);
}

static void model_answers(void **state) {
    differing = 0;
    problems = json_array();
    each_line("model_answers", "rewards/qwen25math_math_cot_100.jsonl", keep_problem);
    int n = each_line("model_answers", "rewards/oracle_math_cot_100.jsonl", check_model_answer);
    json_decref(problems);
    printf("model_answers: %d of %d verdicts equal\n", 4 * n - differing, 4 * n);
    assert_int_equal(differing, 0);
}

// ---- formulas written in many ways, with Math-Verify's verdicts (tools/golden.py verify) ----------------------------

static void scripts_and_percentages(void **state) {
    Error e = {0};
    json_t *golden = json_read("tests/golden/math_verify.json", &e), *pair;
    if (!golden) fail_msg("%s", e.text);
    size_t i, equal = 0;
    json_array_foreach(json_object_get(golden, "pairs"), i, pair) {
        const char *gold = json_string_value(json_array_get(pair, 0));
        const char *answer = json_string_value(json_array_get(pair, 1));
        float want = (float)json_integer_value(json_array_get(pair, 2));
        float got = verify("accuracy:extract=any", gold, answer, strlen(answer));
        if (got == want) equal++;
        else printf("differs: %s and %s: %g\n", gold, answer, (double)got);
    }
    assert_int_equal(i, 400);
    assert_int_equal(equal, i);
    json_decref(golden);
}

// ---- GSM8K ----------------------------------------------------------------------------------------------------------

static void check_gold(const json_t *line, int64_t number) {
    const char *gold = strstr(string_of(line, "answer"), "#### ") + 5;
    char digits[64], right[96], wrong[96];
    size_t n = 0;
    for (const char *c = gold; *c; c++)
        if (*c != ',') digits[n++] = *c;
    digits[n] = 0;
    snprintf(right, sizeof right, "so it is \\boxed{%s}.", gold);
    snprintf(wrong, sizeof wrong, "so it is \\boxed{%lld}.", atoll(digits) + 1);
    if (verify("accuracy", gold, right, strlen(right)) != 1) fail_msg("%s is not %s", right, gold);
    if (verify("accuracy", gold, wrong, strlen(wrong)) != 0) fail_msg("%s is %s", wrong, gold);
}

static void gsm8k_golds(void **state) {
    assert_int_equal(each_line("gsm8k_golds", "gsm8k/train.jsonl", check_gold), 7473);
    assert_int_equal(each_line("gsm8k_golds", "gsm8k/test.jsonl", check_gold), 1319);
}

// ---- what the rules are ---------------------------------------------------------------------------------------------

static void rules(void **state) {
    static const struct {
        const char *gold, *answer;
        float score;
    } cases[] = {
        {"\\frac{1}{2}", "0.5", 1},
        {"$2\\frac{1}{2}$", "\\frac{5}{2}", 1},
        {"$\\frac{\\sqrt{8}}{2}$", "\\sqrt{2}", 1},
        {"$\\sqrt{2}$", "1.414214", 1},
        {"$\\sqrt{2}$", "1.4142", 0},
        {"$\\pi$", "\\frac{2\\pi}{2}", 1},
        {"$|a - b|$", "a - b", 0}, // for any names
        {"$|a - g|$", "a - g", 0},
        {"$|x - y|$", "|y - x|", 1},
        {"$\\sqrt{a^2k^2}$", "ak", 0},
        {"$\\sqrt{xy}$", "\\sqrt{x}\\sqrt{y}", 0},
        {"$\\sqrt{2}$", "1.414215", 0}, // the last decimal counts
        {"$1$", "2^{61}", 0},           // equal modulo one of the primes
        {"$31$", "2^{61}", 0},
        {"$12$", "\\lcm(4, 6)", 1},
        {"$12$", "\\operatorname{lcm}(4, 6)", 1},
        {"$12$", "\\operatorname{gcd}\\left(24, 36\\right)", 1},
        {"$12$", "\\operatorname{gcd}(24, 40)", 0},
        {"$(x+1)^2$", "x^2 + 2x + 1", 1},
        {"$(x+1)^2$", "x^2 + 2x + 2", 0},
        {"$\\sin^2 x + \\cos^2 x$", "1", 1},
        {"$\\{1, 2\\}$", "\\{2, 1\\}", 1},
        {"$(1, 2)$", "(2, 1)", 0},
        {"$[1, 2)$", "[1, 2]", 0},
        {"$(-\\infty, 1) \\cup (1, \\infty)$", "(1, \\infty) \\cup (-\\infty, 1)", 1},
        {"$x = 5$", "5", 1},
        {"$5$", "x = 5", 1},
        {"$x = 5$", "y = 5", 0},
        {"$x < 3$", "3 > x", 1},
        {"$x < 3$", "x \\le 3", 0},
        {"$1 < x < 2$", "(1, 2)", 1},
        {"$2x + y = 4$", "y = 4 - 2x", 1},
        {"$\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}$", "\\begin{bmatrix} 1 \\\\ 2 \\end{bmatrix}", 1},
        {"$\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}$", "\\begin{pmatrix} 1 & 2 \\end{pmatrix}", 0},
        {"$10!$", "3628800", 1},
        {"$\\binom{5}{2}$", "10", 1},
        {"$2^{100}$", "1267650600228229401496703205376", 1},
        {"$2^{100}$", "1267650600228229401496703205377", 0},
        {"$\\text{Evelyn}$", "\\text{evelyn}", 1},
        {"$1 \\pm \\sqrt{2}$", "1 - \\sqrt{2}, 1 + \\sqrt{2}", 1},
        {"$\\frac{1}{0}$", "\\frac{2}{0}", 0},
        {"$25\\%$", "\\frac{1}{4}", 1},
        {"$25\\%$", "25", 1}, // a whole percentage is its value or its digits,
        {"$25$", "25\\%", 1},
        {"$1$", "100\\%", 1},
        {"$25\\%$", "2500\\%", 0},
        {"$12.5\\%$", "0.125", 1}, // another one its value only
        {"$12.5\\%$", "12.5", 0},
        {"$-25\\%$", "-25", 0},
        {"$\\binom{5}{2}$%", "10", 1},
        {"${6 \\choose 3}$\\%", "20", 1},
        {"$\\infty%$", "\\infty", 0}, // only \\% is part of its name
        {"$\\infty\\%$", "\\infty", 1},
        {"$x = 25\\%$", "25", 1},
        {"$\\{25\\%, 50\\%\\}$", "\\{50, 25\\}", 1},
        {"$x^2_2$", "x^2_1", 0}, // a script after a script is the letter's, not the number's
        {"$x^2_1$", "x_1^2", 1},
        {"$3R^2_{1}$", "3R^2", 0},
        {"$3R^2_{1}$", "3R_1^{2}", 1},
        {"$x_n^3$", "x_{n}^{3}", 1},
        {"$a^y_1$", "a_1^{y}", 1},
        {"$x^{y^2}_1$", "x_1^{y^2}", 1},
        {"$x^y^2_1$", "x_1^{y^2}", 1},
        {"$(2R)^{2}_1$", "4R^2", 1}, // of no letter, it says nothing
        {"$e^{2}_1$", "e^2", 1},
        {"$\\log^{2}_3 9$", "4", 1},
        {"$1421_6$", "1421_7", 0}, // numbers in two bases are compared by value
        {"$1421_6$", "373_{10}", 1},
        {"$1421_{6}$", "565_8", 1},
        {"$1421_6$", "1421_{(6)}", 1},
        {"$1421_6$", "1421", 1}, // where one names no base, by their digits
        {"$1421_6$", "373", 0},
        {"$1421_{\\text{six}}$", "1421_{\\text{seven}}", 0},
        {"$1421_\\text{six}$", "1421_{\\text{base } 6}", 1},
        {"$-12_3$", "-5_{10}", 1},
        {"$101.1_2$", "5.5_{10}", 1},
        {"$1421_6$", "1421_4", 0}, // which is no number
        {"$1421_4$", "1421_4", 1},
        {"$(12_3, 10_2)$", "(5_{10}, 2_{10})", 1},
        {"$12_3 + x$", "x + 5_{10}", 1},
        {"$\\sum_{k=1}^{10} k$", "55", 1},
        {"$4$", "4.0000001", 0}, // a whole number must be met exactly
        {"$\\frac{1}{3}$", "0.3333333", 1},
        {"$\\pi$", "3.1415927", 1},
        {"$1000000$", "1,000,000", 1},
        {"$12{,}500$", "12500", 1},
        {"$0,5$", "0.5", 0}, // a set, but for three digits behind the comma
        {"$3:4$", "6:8", 1},
        {"$-3\\frac{1}{2}$", "-3.5", 1},
        {"$\\sqrt{x^2}$", "|x|", 1},
        {"$\\sqrt{x^2}$", "x", 0},
        {"$\\sqrt[3]{-8}$", "-2", 0}, // the principal root is complex
        {"$\\sqrt{3+2\\sqrt{2}}$", "1+\\sqrt{2}", 1},
        {"$\\cos 2x$", "2\\cos^2 x - 1", 1},
        {"$\\ln x^2$", "2\\ln x", 0}, // not for negative x
        {"$\\log_2 8$", "3", 1},
        {"$e^{\\ln x}$", "x", 1},
        {"$\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}$", "-2", 1},
        {"$\\frac{1}{2}\\begin{pmatrix}2\\\\4\\end{pmatrix}$", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", 1},
        {"$[1,2] \\cup [2,3]$", "[1,3]", 1},
        {"$(-\\infty,2] \\cup [2,3]$", "(-\\infty,3]", 1},
        {"$\\mathbb{R} \\setminus \\{1\\}$", "(-\\infty,1)\\cup(1,\\infty)", 1},
        {"$x^2 < 4$", "(-2,2)", 1},
        {"$x^2 = 4$", "\\{2,-2\\}", 1},
        {"$x^2 = 4$", "\\{2\\}", 0},
        {"$x \\in (2,\\infty)$", "x > 2", 0},
        {"$(x,y)=(1,2)$", "(1,2)", 1},
        {"$x=1,y=2$", "(1,2)", 1},
        {"$1 < a < 10$", "10 > a > 1", 0}, // chains are compared side by side
        {"$xy=1$", "y=\\frac{1}{x}", 1},
        {"$x^2+y^2=1$", "x^2+y^2=2", 0},
        {"$\\text{(A)}$", "A", 1},
        {"$5\\text{ cm}$", "5 \\text{ m}", 1}, // units are left out
        {"$a_{n+1}$", "a_{n + 1}", 1},
        {"$2^{1000}$", "2^{999} \\cdot 2", 1},
        {"$100!$", "99! \\cdot 100", 1},
        // a branch cut does not ask which sign its zero has
        {"$\\ln(-2)$", "\\ln(1 - 3)", 1},
        {"$\\ln(-2)$", "\\ln 2 - \\ln(-1)", 0},
        {"$\\sqrt{-2}$", "\\sqrt{1 - 3}", 1},
        {"$\\sqrt{\\frac{x - 1}{-2}}$", "\\sqrt{\\frac{1 - x}{2}}", 1},
        {"$\\sqrt[3]{\\frac{x - 1}{-2}}$", "\\sqrt[3]{\\frac{1 - x}{2}}", 1},
        {"$\\sqrt{x}\\sqrt{x - 1}$", "\\sqrt{x}\\sqrt{-(1 - x)}", 1},
        {"$\\arccos(x - 1)$", "\\arccos(-(1 - x))", 1},
        // chains and systems are read whole
        {"$a = b = 5$", "a = b = 5", 1},
        {"$x + y = 3 = z$", "x + y = 3 = z", 1},
        {"$x = y = z$", "x = y = z", 1},
        {"$x = 5$", "a = b = 5", 0},
        {"$x = 5$", "x = 2 + 3 = 5", 1},
        {"$5$", "x = 2 + 3 = 5", 1},
        {"$\\begin{cases} x + y = 3 \\\\ x - y = 1 \\end{cases}$",
         "\\begin{cases} x + y = 3 \\\\ x - y = 1 \\end{cases}", 1},
        // the end of a chain may be infinite
        {"$(-\\infty,5)$", "-\\infty<x<5", 0},
        {"$-\\infty<x<5$", "(-\\infty,5)", 1},
        {"$-\\infty<x<5$", "-\\infty<x<5", 1},
        {"$-\\infty<x<5$", "x<5", 0},
        {"$x<5$", "-\\infty<x<5", 0},
        {"$-\\infty<x<5$", "-\\infty<x<6", 0},
        {"$-\\infty<x<5$", "-\\infty<y<5", 0},
        {"$\\mathbb{R}$", "-\\infty<x<\\infty", 0},
        {"$-\\infty<x<\\infty$", "\\mathbb{R}", 1},
        {"$-\\infty<x<\\infty$", "(-\\infty,\\infty)", 1},
        {"$-\\infty<x<\\infty$", "-\\infty<x<\\infty", 1},
        {"$5<x<\\infty$", "5<x<+\\infty", 1},
        {"$5<x<\\infty$", "(5,\\infty)", 1},
        {"$5<x<\\infty$", "x>5", 0},
        // a relation and the set of its solutions differ at an end, at a pole, far away, beyond a corner
        {"$x\\neq 5$", "\\mathbb{R}", 0},
        {"$x\\neq 5$", "(-\\infty,5)\\cup(5,\\infty)", 1},
        {"$x\\neq 5$", "\\mathbb{R}\\setminus\\{5\\}", 1},
        {"$30<x<40$", "\\emptyset", 0},
        {"$30<x<40$", "(30,40)", 1},
        {"$x^2=10000$", "\\{100\\}", 0},
        {"$x^2=10000$", "\\{100,-100\\}", 1},
        {"$x^2>10000$", "(100,\\infty)", 0},
        {"$x^2>10000$", "(-\\infty,-100)\\cup(100,\\infty)", 1},
        {"$x^3=1000000$", "\\{100\\}", 1},
        {"$x^3=1000001$", "\\{100\\}", 0},
        {"$x^2\\le 2$", "[-\\sqrt{2},\\sqrt{2}]", 1},
        {"$x^2\\le 2$", "(-\\sqrt{2},\\sqrt{2})", 0},
        {"$x^2\\le 2$", "[-1.414214,1.414214]", 1},
        {"$x^2\\le 2$", "[-1.4142,1.4142]", 0},
        {"$x^2= 2$", "\\{-1.414214,1.414214\\}", 1},
        {"$x\\ge\\frac13$", "[0.333333,\\infty)", 1},
        {"$x\\ge\\frac13$", "[0.33,\\infty)", 0},
        {"$x\\ge\\frac13$", "(0.333333,\\infty)", 0},
        {"$x\\ge 0.333333$", "[\\frac{1}{3},\\infty)", 1},
        {"$x\\ge 4$", "[4.0000001,\\infty)", 0},
        {"$x\\ge 4$", "[4.0,\\infty)", 1},
        {"$x\\ge 0.5$", "[\\frac{1}{2},\\infty)", 1},
        {"$3x\\ge 1$", "[0.333333,\\infty)", 1},
        {"$\\frac{1}{x-70}>0$", "(70,\\infty)", 1},
        {"$\\frac{1}{x-70}>0$", "\\mathbb{R}", 0},
        {"$\\frac{1}{(x-70)^2}>0$", "\\mathbb{R}", 0},
        {"$\\frac{1}{(x-70)^2}>0$", "(-\\infty,70)\\cup(70,\\infty)", 1},
        {"$(x-70)^2\\le 0$", "\\emptyset", 0},
        {"$(x-70)^2\\le 0$", "\\{70\\}", 1},
        {"$x^4-18x^2+81=0$", "\\{3\\}", 0},
        {"$x^4-18x^2+81=0$", "\\{3,-3\\}", 1},
        {"$x^4-18x^2+81>0$", "\\mathbb{R}", 0},
        {"$x^4-18x^2+81>0$", "(-\\infty,-3)\\cup(-3,3)\\cup(3,\\infty)", 1},
        {"$|x-3|=500$", "\\{503,-497\\}", 1},
        {"$|x-3|=500$", "\\{503\\}", 0},
        {"$|x-3|<500$", "(-497,503)", 1},
        {"$|x-3|<500$", "(-\\infty,503)", 0},
        {"$\\sqrt{x-100}\\ge 0$", "[100,\\infty)", 1},
        {"$\\sqrt{x-100}\\ge 0$", "\\emptyset", 0},
        {"$\\frac{x-1}{x-2}\\ge 3$", "(2,\\frac{5}{2}]", 1},
        {"$\\frac{x-1}{x-2}\\ge 3$", "[2,\\frac{5}{2}]", 0},
        {"$\\ln x > 3$", "(e^3,\\infty)", 1},
        {"$\\ln x > 3$", "(20.0855369,\\infty)", 1},
        {"$x^{10}\\ge 282475249$", "(-\\infty,-7]\\cup[7,\\infty)", 1},
        {"$x^{10}-282475249\\ge 0$", "(-\\infty,-7]\\cup[7,\\infty)", 1},
        {"$(x-2)^4=0$", "\\{2\\}", 1},
        {"$x<-200 $", "(-\\infty,-200)", 1},
        {"$-1 < 2x+3 \\le 701$", "(-2,349]", 1},
        {"$-1 < 2x+3 \\le 701$", "(-2,349)", 0},
        // a sum within a sum
        {"$\\sum_{i=1}^{2}\\sum_{j=1}^{2} ij$", "9", 1},
        {"$\\sum_{i=1}^{3}\\sum_{j=1}^{i} j$", "10", 1},
        {"$\\sum_{i=1}^{3}\\sum_{k=1}^{2} (ik+x)$", "18+6x", 1},
        // what has a corner is something else beyond it
        {"$\\lvert x-10\\rvert$", "10-x", 0},
        {"$\\lvert x-10\\rvert$", "x-10", 0},
        {"$\\lvert x-10\\rvert$", "\\lvert 10-x\\rvert", 1},
        {"$\\lvert x-10\\rvert$", "\\sqrt{(x-10)^2}", 1},
        {"$\\lvert x+1000\\rvert$", "x+1000", 0},
        {"$\\lvert 2x-1000\\rvert$", "1000-2x", 0},
        {"$\\sqrt{(x-100)^2}$", "100-x", 0},
        {"$\\max(x,50)$", "50", 0},
        {"$\\max(x,50)$", "\\frac{x+50+\\lvert x-50\\rvert}{2}", 1},
        {"$\\lfloor \\frac{x}{100}\\rfloor$", "0", 0},
        {"$\\lvert x-y-30\\rvert$", "30+y-x", 0},
        {"$\\lvert x-10\\rvert = y$", "y=10-x", 0},
        {"$y=\\lvert x-10\\rvert$", "y=\\lvert 10-x\\rvert", 1},
        {"$2y=2\\lvert x-10\\rvert$", "y=\\lvert 10-x\\rvert", 1},
        {"$\\sqrt{x^6+1}-x^3$", "\\frac{1}{\\sqrt{x^6+1}+x^3}", 1},
        {"$\\sqrt{x+1}-\\sqrt{x}$", "\\frac{1}{\\sqrt{x+1}+\\sqrt{x}}", 1},
        {"$\\ln(x^2+100)$", "\\ln(100+x^2)", 1},
        {"$\\ln((x-10)^2)$", "2\\ln(10-x)", 0},
        {"$\\sqrt{x^2+1}e^x$", "e^x\\sqrt{1+x^2}", 1},
        // equations have the same solutions along every unknown
        {"$x(y-1)=0$", "x(y-2)=0", 0},
        {"$x(y-1)=0$", "2x(1-y)=0", 1},
        {"$x(y^2-1)=0$", "x(y^2-4)=0", 0},
        {"$xy=1$", "y=\\frac{1}{x}", 1},
        {"$xy=0$", "x=0", 0},
        {"$x(y+1)=x$", "xy=0", 1},
        {"$xy=x$", "y=1", 0},
        {"$\\frac{x}{2}+\\frac{y}{3}=1$", "y=3-\\frac{3x}{2}", 1},
        {"$y=x^3$", "x^3-y=0", 1},
        {"$y=x^3-x$", "2y=2x(x-1)(x+1)", 1},
        {"$x^2+y^2=25$", "x^2=25-y^2", 1},
        {"$V=\\frac43\\pi r^3$", "3V=4\\pi r^3", 1},
        {"$a=\\sqrt{b}$", "a^2=b", 0},
        {"$y=e^{x}$", "x=\\ln y", 0},
        // a leading point
        {"$.5$", "0.5", 1},
        {"$0.5$", ".5", 1},
        {"$.5\\%$", "0.5\\%", 1},
        {"$0.5\\%$", ".5\\%", 1},
        {"$.5$", "0.5\\%", 0},
        {"$.5$", "\\frac12", 0},
        {"$.75$", "0.75", 1},
        // partial derivatives are written, not taken
        {"$\\frac{\\partial f}{\\partial x}=2x$", "2x", 1},
        {"$2x$", "\\frac{\\partial f}{\\partial x}=2x", 1},
        {"$\\frac{\\partial f}{\\partial x}=2x$", "\\frac{\\partial f}{\\partial x}=2x", 1},
        {"$\\frac{\\partial f}{\\partial x}=2x$", "\\frac{\\partial f}{\\partial x}=3x", 0},
        {"$\\frac{\\partial^2 f}{\\partial x^2}=6x$", "\\frac{\\partial^2 f}{\\partial x^2}=6x", 1},
        {"$6x$", "\\frac{\\partial^2 f}{\\partial x^2}=6x", 1},
        {"$6x$", "\\frac{\\partial}{\\partial x}f=6x", 1},
        {"$6xy$", "\\frac{\\partial^2 f}{\\partial x \\partial y}=6xy", 1},
        {"$\\frac{\\partial u}{\\partial t}$", "\\frac{\\partial u}{\\partial t}", 1},
        {"$\\frac{\\partial u}{\\partial t}$", "\\frac{\\partial u}{\\partial x}", 0},
        // sums bind their variables, and have values where their limits are whole
        {"$(\\sum_{i=1}^3 i, 2)$", "(6,2)", 1},
        {"$(6,2)$", "(\\sum_{i=1}^3 i, 2)", 1},
        {"$(\\sum_{k=1}^3 k, 2)$", "(6,2)", 1},
        {"$\\{\\sum_{i=1}^3 i, 2\\}$", "\\{6,2\\}", 1},
        {"$[\\sum_{i=1}^3 i, 9]$", "[6,9]", 1},
        {"$6$", "\\sum_{i=1}^3 i", 1},
        {"$\\sum_{i=1}^n i$", "\\sum_{k=1}^n k", 1},
        {"$\\sum_{k=1}^n k$", "\\sum_{k=1}^n k", 1},
        {"$\\sum_{k=1}^n k$", "\\frac{n(n+1)}{2}", 1},
        {"$\\frac{n(n+1)}{2}$", "\\sum_{k=1}^n k", 1},
        {"$\\sum_{k=1}^{n} k$", "\\sum_{k=1}^n k", 1},
        {"$\\sum_{k=1}^n k^2$", "\\sum_{k=1}^{n} k^2", 1},
        {"$\\sum_{k=1}^n k$", "\\sum_{k=0}^n k", 1},
        {"$\\prod_{k=1}^n k$", "n!", 1},
        {"$\\sum_{i=1}^3 i + i$", "6+i", 1},
        {"$\\sum_{k=1}^{3} \\frac1k$", "1.833333", 1},
        {"$\\sum_{k=1}^{3} \\frac1k$", "\\frac{11}{6}", 1},
        {"$\\sum_{k=1}^\\infty \\frac{1}{2^k}$", "\\sum_{k=1}^\\infty 2^{-k}", 1},
        {"$\\sum_{k=1}^\\infty \\frac{1}{2^k}$", "\\sum_{k=1}^\\infty 3^{-k}", 0},
        {"$\\sum_{k=1}^n k$", "\\frac{n(n+2)}{2}", 0},
        {"$\\sum_{k=1}^n k^2$", "\\frac{n(n+1)(2n+1)}{6}", 1},
        {"$\\sum_{k=0}^{n-1} x^k$", "\\frac{x^n-1}{x-1}", 1},
        {"$\\sum_{k=1}^n |x|$", "nx", 0},
        {"$\\sum_{k=1}^n |x|$", "n|x|", 1},
        {"$\\sum_{k=1}^n \\sum_{j=1}^m 1$", "nm", 1},
        {"$\\sum_{k=0}^n \\binom{n}{k}$", "2^n", 1},
        {"$\\sum_{k=1}^{2n} f(k)$", "\\sum_{j=1}^{2n} f(j)", 1},
        {"$\\sum_{k=1}^{n} a_k$", "\\sum_{k=1}^{n} b_k", 0},
        {"$\\sum_{k=1}^{n} a_k$", "n a_k", 0},
        {"$S=\\sum_{k=1}^n k$", "S=\\frac{n(n+1)}{2}", 1},
        {"$\\sum_{k=1}^{n} a_k$", "n a_k", 0},
        {"$\\sum_{k=1}^{3} a_k$", "a_1+a_2+a_3", 1},
        {"$\\sum_{k=1}^{3} a_k$", "3a_k", 0},
        {"$\\sum_{k=1}^{3} a_k$", "\\sum_{j=1}^{3} a_j", 1},
        {"$\\sum_{k=1}^{n} a_k$", "\\sum_{j=1}^{n} a_j", 1},
        {"$\\sum_{k=9}^{11} a_k$", "a_9+a_{10}+a_{11}", 1},
        {"$\\sum_{k=1}^{\\infty} a_k$", "\\sum_{k=1}^{\\infty} a_k", 1},
        {"$\\sum_{k=1}^{n} a_{k+1}$", "\\sum_{k=1}^{n} a_{k+1}", 1},
        {"$\\sum_{k=1}^{n} 2a_{k+1}$", "2\\sum_{k=1}^{n} a_{k+1}", 1},
        {"$\\sum_{k=1}^{n} a_{k+1}$", "\\sum_{k=1}^{n} a_{k}", 0},
        {"$\\sum_{k=1}^{n} 2a_{m}$", "2na_m", 1},
        // symbols i in pairs and intervals
        {"$(1+i, 2)$", "(1+i,2)", 1},
        {"$(I,2)$", "(I,2)", 1},
        {"$(2+3i,4-i)$", "(2+3i,4-i)", 1},
        {"$(2+3i,4-i)$", "(3i+2,4-i)", 1},
        {"$(2+3i,4-i)$", "(4-i,2+3i)", 0},
        {"$[0,i)$", "[0,i)", 1},
        // gold is read until something parses, a sign behind it left out
        {"$16.$", "16", 1},
        {"$16.$", "17", 0},
        {"$\\approx 7$", "7", 1},
        {"$45\\degree$", "45", 1},
        {"$45\\degree$", "45^\\circ", 1},
        {"7 apples and $+$", "7", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        snprintf(text, sizeof text, "Thus the answer is $\\boxed{%s}$.", cases[i].answer);
        float got = verify("accuracy", cases[i].gold, text, strlen(text));
        if (got != cases[i].score) fail_msg("gold %s, answer %s: %g", cases[i].gold, cases[i].answer, (double)got);
    }
    assert_true(isnan(verify("accuracy", "forty two", "\\boxed{42}", 10)));
    assert_true(verify("accuracy:unreadable_gold=one", "forty two", "\\boxed{42}", 10) == 1);
    assert_true(verify("accuracy", "42", "42", 2) == 0); // neither in a box nor behind "answer"
    assert_true(verify("accuracy:extract=any", "42", "42", 2) == 1);
}

// Which of several places counts, and what the options change, with Math-Verify's verdicts.
static void places_and_options(void **state) {
    static const struct {
        const char *spec, *gold, *completion;
        float score;
    } cases[] = {
        {"accuracy:extract=any", "43", "The final answer is 43. I hope it is correct. \\boxed{42}", 1},
        {"accuracy:extract=any", "43", "The final answer is $43$. I hope it is correct. \\boxed{42}", 1},
        {"accuracy:extract=any", "43", "\\boxed{42} The final answer is $43$.", 1},
        {"accuracy:extract=any", "42", "The final answer is $43$. So \\boxed{42}", 1},
        {"accuracy:extract=any", "42", "$\\boxed{42}$, so the answer: 43", 1},
        {"accuracy:relations=sets", "$(-\\infty, 5)$", "$\\boxed{-\\infty < x < 5}$", 1},
        {"accuracy:relations=sets", "$[0.333333, \\infty)$", "$\\boxed{x \\ge \\frac{1}{3}}$", 1},
        {"accuracy:relations=sets", "$\\mathbb{R}$", "$\\boxed{x \\ne 5}$", 0},
        {"accuracy:variables=free", "$x = 2$", "$\\boxed{y = 2}$", 1},
        {"accuracy:variables=free", "$(x, 2)$", "$\\boxed{(y, 2)}$", 1},
        {"accuracy:variables=free", "$x = 2, y = 3$", "$\\boxed{y = 2, x = 3}$", 0},
        {"accuracy:variables=free", "$(x, y)$", "$\\boxed{(y, x)}$", 0},
        {"accuracy:variables=free", "$x = 2, y = 3$", "$\\boxed{y = 3, x = 2}$", 1},
        {"accuracy:extract=any", "$.5$", "0.5 percent", 0},
        {"accuracy:variables=free", "$\\sum_{k=1}^3 a_k$", "$\\boxed{\\sum_{j=1}^3 a_j}$", 1},
        {"accuracy:variables=free", "$x + \\sum_{k=1}^3 kx$", "$\\boxed{\\sum_{x=1}^3 xz + z}$", 1},
        {"accuracy", "42", "The final answer is $43$. I hope it is correct. \\boxed{42}", 1},
        {"accuracy", "42", "\\boxed{42} The final answer is $43$.", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float got = verify(cases[i].spec, cases[i].gold, cases[i].completion, strlen(cases[i].completion));
        if (got != cases[i].score)
            fail_msg("%s: gold %s, %s: %g", cases[i].spec, cases[i].gold, cases[i].completion, (double)got);
    }
}

// ---- texts made to hurt ---------------------------------------------------------------------------------------------

// A unit repeated many times must end soon, as a completion and (shorter) as gold, and right or wrong but never crash.
static void hostile_texts_end(void **state) {
    static const char *const unit[] = {"$",
                                       "$$",
                                       "\\(",
                                       "\\[",
                                       "\\boxed{",
                                       "{",
                                       "}",
                                       "\\frac{",
                                       "\\sqrt",
                                       "\\sin",
                                       "x^",
                                       "x_",
                                       "(",
                                       "((1,",
                                       "[1,",
                                       "\\{",
                                       "|",
                                       "-",
                                       "1+",
                                       "9",
                                       "1,000",
                                       "answer ",
                                       "answer: $",
                                       "final answer is $1$ ",
                                       "$\\boxed{1}$,",
                                       "\\text{",
                                       "\\begin{pmatrix}1&",
                                       "\\sum_{k=1}^{999}",
                                       "2^{",
                                       "9!",
                                       "a=",
                                       "x<",
                                       ";",
                                       ",",
                                       "\\cup(1,2)",
                                       "f(",
                                       "\\left(",
                                       "1 ",
                                       "\\%",
                                       "\\pm 1",
                                       "e^",
                                       "\\fbox{",
                                       "\xff",
                                       "\\binom{9}{",
                                       "10^",
                                       ".",
                                       "1.",
                                       "{1,2},",
                                       "\\max(1,"};
    clock_t start = clock();
    for (size_t u = 0; u < sizeof unit / sizeof *unit; u++)
        for (int shape = 0; shape < 5; shape++) {
            Str s = {0};
            static const char *const open[] = {"", "$", "\\boxed{", "$\\boxed{", "answer: $"};
            static const char *const close[] = {"", "$", "}", "}$", "$"};
            str_puts(&s, open[shape]);
            while (s.n < (shape == 0 ? 200000 : 3000)) str_puts(&s, unit[u]);
            str_puts(&s, close[shape]);
            float score = verify("accuracy", "$1$", s.s, s.n);
            assert_true(score == 0 || score == 1);
            if (s.n < 5000) verify("accuracy:extract=any", s.s, s.s, s.n);
            str_free(&s);
        }
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    printf("hostile_texts_end: %.1f s\n", seconds);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(math_verify_pairs),       cmocka_unit_test(crafted_answers),   cmocka_unit_test(model_answers),
        cmocka_unit_test(scripts_and_percentages), cmocka_unit_test(gsm8k_golds),       cmocka_unit_test(rules),
        cmocka_unit_test(places_and_options),      cmocka_unit_test(hostile_texts_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
