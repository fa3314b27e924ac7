// Whether a prediction means the same as gold, by the rules of Math-Verify. The two are not symmetric: gold says what
// form the answer has, and the prediction may say more (x = 5 for 5), but not less.
#include "verify.h"
#include <math.h>
#include <strings.h>

static bool is_equation(const Node *a) {
    for (int i = 0; a->kind == NODE_AND && i < a->n; i++)
        if (!is_equation(a->arg[i])) return false;
    return a->kind == NODE_AND || (a->kind == NODE_RELATION && a->relation == REL_EQ);
}

// x = 1, or x = 1 + 1 = 2
static bool is_assignment(const Node *a) {
    const Node *first = a->kind == NODE_AND ? a->arg[0] : a;
    return is_equation(a) && node_only_symbols(first->arg[0]);
}

static Node *right_side(const Node *a) {
    while (a->kind == NODE_AND) a = a->arg[a->n - 1];
    return a->arg[1];
}

// A chain of equations by its ends.
static const Node *shortened(Comparison *cmp, const Node *a) {
    if (a->kind != NODE_AND) return a;
    return node_2(cmp->pool, NODE_RELATION, a->arg[0]->arg[0], right_side(a)); // REL_EQ is 0
}

// ---- expressions ----------------------------------------------------------------------------------------------------

static bool is_float(const Node *a) {
    if (a->percent) a = a->arg[0];
    return a->kind == NODE_NUMBER && a->number == NUMBER_FLOAT;
}

bool rounds_equal(Value a, bool a_float, Value b, bool b_float, int decimals) {
    if ((value_is_int(a) && !a_float) || (value_is_int(b) && !b_float)) return value_equal(a, b);
    if (a.bad || b.bad || fabsl(a.im) > 1e-15L || fabsl(b.im) > 1e-15L) return false;
    long double scale = powl(10, decimals);
    return rintl(a.re * scale) == rintl(b.re * scale);
}

// Whether a function has a corner or a jump somewhere, or changes its form there, so that what it is near zero does not
// say what it is elsewhere.
static bool is_piecewise(const Node *a) {
    static const char *const name[] = {"abs", "floor", "ceil", "max", "min", "mod", "log"};
    for (size_t i = 0; a->kind == NODE_FUNC && i < sizeof name / sizeof *name; i++)
        if (text_is(a->name, name[i])) return true;
    if (a->kind == NODE_POW && !(a->arg[1]->kind == NODE_NUMBER && value_is_int(a->arg[1]->value))) return true;
    for (int i = 0; i < a->n; i++)
        if (is_piecewise(a->arg[i])) return true;
    return false;
}

// Adds the numbers written in an expression that lie outside of what the usual trials reach, and their negatives.
static void add_written(Comparison *cmp, const Node *a, Trials *t) {
    enum { MAX_WRITTEN = sizeof t->written / sizeof *t->written };
    Text name[1];
    if (node_symbols(a, name, 0, 1)) {
        for (int i = 0; i < a->n; i++) add_written(cmp, a->arg[i], t);
        return;
    }
    Value v = math_value(cmp, a, &(Point){0});
    if (v.bad || v.im != 0 || fabsl(v.re) < 3 || fabsl(v.re) > 1e12L || t->n_written + 2 > MAX_WRITTEN) return;
    for (int i = 0; i < t->n_written; i++)
        if (value_equal(t->written[i], v)) return;
    t->written[t->n_written++] = v;
    t->written[t->n_written++] = value_neg(v);
}

// Adds the names that the limits of sums hold: they stand for whole numbers, for which a sum has its value.
static void add_whole(const Node *a, Trials *t) {
    enum { MAX_WHOLE = sizeof t->whole / sizeof *t->whole };
    for (int i = 1; a->kind == NODE_SUM && i < 3; i++)
        t->n_whole = node_symbols(a->arg[i], t->whole, t->n_whole, MAX_WHOLE);
    for (int i = 0; i < a->n; i++) add_whole(a->arg[i], t);
}

enum { USUAL_TRIALS = 20, TRIALS_A_PLACE = 4 };
static const int scales[] = {10, 100, 1000, 100000};

// There are so many usual trials that |a - b| and a - b, or \sqrt{a^2b^2} and ab, are tried with the signs and the
// order that tell them apart.
Trials trials_of(Comparison *cmp, const Node *a, const Node *b) {
    Text name[1];
    Trials t = {.n = 1, .usual = 1};
    if (node_symbols(a, name, 0, 1) + node_symbols(b, name, 0, 1) == 0) return t;
    t.n = t.usual = USUAL_TRIALS;
    add_whole(a, &t);
    add_whole(b, &t);
    if (!is_piecewise(a) && !is_piecewise(b)) return t;
    add_written(cmp, a, &t);
    add_written(cmp, b, &t);
    t.n += TRIALS_A_PLACE * ((int)(sizeof scales / sizeof *scales) + t.n_written);
    return t;
}

Point trial_point(const Trials *t, int k) {
    Point p = {.trial = k, .whole = t->whole, .n_whole = t->n_whole};
    int place = (k - t->usual) / TRIALS_A_PLACE, n_scales = sizeof scales / sizeof *scales;
    if (k < t->usual) return p;
    if (place < n_scales) p.scale = scales[place];
    else p.near = &t->written[place - n_scales];
    return p;
}

bool values_differ(const Comparison *cmp, const Trials *t, int k, Value a, Value b) {
    if (value_equal(a, b)) return false;
    if (k < t->usual || (a.exact && b.exact)) return true;
    // Far from zero results are as precise as the largest number on the way: the sine of one has lost digits.
    return hypotl(a.re - b.re, a.im - b.im) > 1e-14L * cmp->largest;
}

// Whether two expressions are equal at several pseudo-random places where both are defined.
static bool identical(Comparison *cmp, const Node *a, const Node *b) {
    enum { ENOUGH = 2 };
    Trials t = trials_of(cmp, a, b);
    int defined = 0;
    for (int k = 0; k < t.n; k++) {
        Point p = trial_point(&t, k);
        cmp->largest = 0;
        Value x = math_value(cmp, a, &p), y = math_value(cmp, b, &p);
        if (x.bad || y.bad) continue;
        if (values_differ(cmp, &t, k, x, y)) return false;
        defined++;
    }
    return defined >= (t.n == 1 ? 1 : ENOUGH);
}

// Carries out a sum or product of matrices; NULL where the tree is no matrix.
static Node *matrix_of(Comparison *cmp, const Node *a) {
    if (a->kind == NODE_MATRIX) return (Node *)a;
    if (a->kind != NODE_ADD && a->kind != NODE_MUL) return NULL;
    Node *all = NULL, *factor = NULL;
    for (int i = 0; i < a->n; i++) {
        Node *m = matrix_of(cmp, a->arg[i]);
        if (!m) {
            if (a->kind == NODE_ADD) return NULL;
            factor = factor ? node_flat(cmp->pool, NODE_MUL, factor, a->arg[i]) : a->arg[i];
            continue;
        }
        if (!all) {
            all = m;
            continue;
        }
        int rows = all->rows, inner = all->n / rows, columns = m->n / m->rows;
        bool product = a->kind == NODE_MUL;
        if (product ? inner != m->rows : rows != m->rows || inner != columns) return NULL;
        Node *sum = node_new(cmp->pool, NODE_MATRIX, 0, NULL);
        sum->n = rows * columns;
        sum->rows = rows;
        sum->arg = pool_take(cmp->pool, (size_t)sum->n * sizeof *sum->arg);
        for (int k = 0; k < sum->n; k++) {
            if (!product) {
                sum->arg[k] = node_flat(cmp->pool, NODE_ADD, all->arg[k], m->arg[k]);
                continue;
            }
            Node *e = node_int(cmp->pool, 0);
            for (int x = 0; x < inner; x++)
                e = node_flat(cmp->pool, NODE_ADD, e,
                              node_flat(cmp->pool, NODE_MUL, all->arg[k / columns * inner + x],
                                        m->arg[x * columns + k % columns]));
            sum->arg[k] = e;
        }
        all = sum;
    }
    if (!all || !factor) return all;
    Node *scaled = node_new(cmp->pool, NODE_MATRIX, all->n, all->arg);
    scaled->rows = all->rows;
    for (int k = 0; k < all->n; k++) scaled->arg[k] = node_flat(cmp->pool, NODE_MUL, factor, all->arg[k]);
    return scaled;
}

// Whether one is a whole percentage and the other its digits, as 50% and 50, which counts as equal.
static bool same_whole_percent(const Node *a, const Node *b) {
    if (a->percent) a = a->arg[0];
    if (b->percent) b = b->arg[0];
    bool whole = a->kind == NODE_NUMBER && a->number == NUMBER_INT && b->kind == NODE_NUMBER && b->number == NUMBER_INT;
    return whole && value_equal(a->value, b->value);
}

bool expressions_equal(Comparison *cmp, const Node *a, const Node *b) {
    const Node *m = matrix_of(cmp, a), *w = matrix_of(cmp, b);
    if (m || w) {
        if (!m || !w || m->rows != w->rows || m->n != w->n) return false;
        for (int i = 0; i < m->n; i++)
            if (!expressions_equal(cmp, m->arg[i], w->arg[i])) return false;
        return true;
    }
    if (same_whole_percent(a, b)) return true;
    Text name[1];
    bool constant = node_symbols(a, name, 0, 1) + node_symbols(b, name, 0, 1) == 0;
    if (constant && (is_float(a) || is_float(b)) &&
        rounds_equal(math_value(cmp, a, &(Point){0}), node_has_float(a), math_value(cmp, b, &(Point){0}),
                     node_has_float(b), cmp->how->precision))
        return true;
    return identical(cmp, a, b);
}

// ---- symbols --------------------------------------------------------------------------------------------------------

// Whether the symbols of a product, written side by side, spell `word`: a word that was written without \text.
static bool spells(const Node *product, Text word) {
    size_t at = 0;
    for (int i = 0; i < product->n; i++) {
        const Node *a = product->arg[i];
        Text letters = a->kind == NODE_SYMBOL ? a->name : text_of("e");
        if (a->kind != NODE_SYMBOL && !(a->kind == NODE_CONST && a->constant == CONST_E)) return false;
        if (at + letters.n > word.n || strncasecmp(word.s + at, letters.s, letters.n) != 0) return false;
        at += letters.n;
    }
    return at == word.n;
}

// Compares two answers of which at least one is a symbol, that is a letter or a text.
static bool symbols_equal(const Node *a, const Node *b) {
    if (a->kind == NODE_SYMBOL && b->kind == NODE_SYMBOL) return text_equal(a->name, b->name);
    const Node *symbol = a->kind == NODE_SYMBOL ? a : b, *other = a->kind == NODE_SYMBOL ? b : a;
    if (other->kind == NODE_CONST && other->constant == CONST_E) return text_equal(symbol->name, text_of("e"));
    if (other->kind == NODE_MUL) return spells(other, symbol->name);
    return other->kind == NODE_NUMBER && other->name.n > 0 && text_equal(symbol->name, other->name);
}

// ---- relations ------------------------------------------------------------------------------------------------------

static Node *difference(Comparison *cmp, const Node *relation) {
    return node_flat(cmp->pool, NODE_ADD, relation->arg[0], node_negate(cmp->pool, relation->arg[1]));
}

static bool is_flip(Relation a, Relation b) {
    return (a == REL_LT && b == REL_GT) || (a == REL_GT && b == REL_LT) || (a == REL_LE && b == REL_GE) ||
           (a == REL_GE && b == REL_LE) || (a == REL_EQ && b == REL_EQ);
}

// Whether f is a constant times g; the sign of the constant, or 0.
static int proportion(Comparison *cmp, const Node *f, const Node *g) {
    enum { TRIALS = 5 };
    Trials t = trials_of(cmp, f, g);
    Value ratio = value_bad();
    for (int k = 0; k < t.n; k++) {
        if (k == TRIALS) k = t.usual; // of the usual ones these are enough
        if (k == t.n) break;
        Point p = trial_point(&t, k);
        cmp->largest = 0;
        Value x = math_value(cmp, f, &p), y = math_value(cmp, g, &p), r = value_div(x, y);
        if (k >= t.usual) {
            Value want = value_mul(ratio, y);
            cmp->largest *= fmaxl(1, fabsl(ratio.re));
            if (!x.bad && !want.bad && values_differ(cmp, &t, k, x, want)) return 0;
            continue;
        }
        if (r.bad || r.im != 0 || r.re == 0) return 0;
        if (k > 0 && !value_equal(value_div(r, ratio), value_int(1))) return 0;
        ratio = r;
    }
    return ratio.re > 0 ? 1 : -1;
}

// Where f, a function of `name`, is zero, if it is linear; a bad value if it is not.
static Value linear_root(Comparison *cmp, const Node *f, Text name, int trial) {
    Value c[3];
    Point line = {.trial = trial, .bound = name};
    if (!quadratic_of(cmp, f, &line, c) || !value_equal(c[2], value_int(0))) return value_bad();
    return value_div(value_neg(c[0]), c[1]);
}

// Whether g is zero at those places where f is.
static bool zero_at(Comparison *cmp, const Node *f, const Points *of_f, const Node *g, const Points *of_g, Point line) {
    for (int i = 0; i < of_f->n; i++) {
        line.at = of_f->at[i];
        Value x = math_value(cmp, f, &line), y = math_value(cmp, g, &line), none = value_int(0);
        if (x.bad || y.bad || !value_equal(x, none)) continue; // an extremum, a pole, a jump
        if (!value_equal(y, none) && !points_near(of_g, line.at)) return false;
    }
    return true;
}

// Whether f and g have, as far as can be seen, the same zeros on a line along one of the unknowns.
static bool same_zeros(Comparison *cmp, const Node *f, const Node *g, const Point *line) {
    Points p = {.n = 0}, q = {.n = 0};
    add_zeros(cmp, f, line, &p);
    add_zeros(cmp, g, line, &q);
    return zero_at(cmp, f, &p, g, &q, *line) && zero_at(cmp, g, &q, f, &p, *line);
}

// Whether two equations have the same solutions: for one of their unknowns, which both hold linearly, and along the
// others too, as x(y - 1) = 0 and x(y - 2) = 0 have not.
static bool same_solution(Comparison *cmp, const Node *f, const Node *g) {
    enum { MAX_NAMES = 8, TRIALS = 4, LINES = 2 };
    Text name[MAX_NAMES], other[MAX_NAMES];
    int n = node_symbols(f, name, 0, MAX_NAMES), n_other = node_symbols(g, other, 0, MAX_NAMES);
    if (n != n_other || node_symbols(g, name, n, MAX_NAMES) != n) return false;
    bool solved = false;
    for (int i = 0; i < n && !solved; i++) {
        int trial = 0;
        while (trial < TRIALS && value_equal(linear_root(cmp, f, name[i], trial), linear_root(cmp, g, name[i], trial)))
            trial++;
        solved = trial == TRIALS;
    }
    for (int i = 0; i < n && solved; i++)
        for (int trial = 0; trial < LINES && solved; trial++)
            solved = same_zeros(cmp, f, g, &(Point){.trial = trial, .bound = name[i]});
    return solved;
}

// Whether the same expression is compared with the same infinity, which no difference of the sides would show.
static bool infinite_equal(Comparison *cmp, const Node *gold, const Node *prediction) {
    bool same = gold->relation == prediction->relation, flip = is_flip(gold->relation, prediction->relation);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            int sign = node_infinity(gold->arg[i]);
            if (sign && sign == node_infinity(prediction->arg[k]) && (i == k ? same : flip))
                return expressions_equal(cmp, gold->arg[!i], prediction->arg[!k]);
        }
    return false;
}

static bool relations_equal(Comparison *cmp, const Node *gold, const Node *prediction) {
    if (gold->kind == NODE_AND && prediction->kind == NODE_AND) {
        if (gold->n != prediction->n) return false;
        for (int i = 0; i < gold->n; i++)
            if (!relations_equal(cmp, gold->arg[i], prediction->arg[i])) return false;
        return true;
    }
    if (gold->kind == NODE_AND || prediction->kind == NODE_AND) return false;
    if (node_is_set(gold->arg[1]) || node_is_set(prediction->arg[1])) // x in a set: the same x, the same set
        return gold->relation == prediction->relation && node_same(gold->arg[0], prediction->arg[0]) &&
               sets_equal(cmp, gold->arg[1], prediction->arg[1]);
    if (infinite_equal(cmp, gold, prediction)) return true;
    const Node *f = difference(cmp, gold), *g = difference(cmp, prediction), *minus = node_negate(cmp->pool, (Node *)g);
    bool same = gold->relation == prediction->relation, flip = is_flip(gold->relation, prediction->relation);
    if (same && expressions_equal(cmp, f, g)) return true;
    if (flip && expressions_equal(cmp, f, minus)) return true;
    if (!same && !flip) return false;
    int sign = proportion(cmp, f, g);
    if ((same && sign > 0) || (flip && sign < 0)) return true;
    return gold->relation == REL_EQ && prediction->relation == REL_EQ && same_solution(cmp, f, g);
}

// ---- answers --------------------------------------------------------------------------------------------------------

// A copy in which two names have changed places, so that none is taken for another.
static Node *renamed(Pool *pool, const Node *a, Text from, Text to) {
    Node *copy = node_new(pool, a->kind, a->n, a->arg);
    Node **arg = copy->arg;
    *copy = *a;
    copy->arg = arg;
    if (a->kind == NODE_SYMBOL && text_equal(a->name, from)) copy->name = to;
    else if (a->kind == NODE_SYMBOL && text_equal(a->name, to)) copy->name = from;
    for (int i = 0; i < a->n; i++) copy->arg[i] = renamed(pool, a->arg[i], from, to);
    return copy;
}

bool answers_equal(Comparison *cmp, const Node *gold, const Node *prediction) {
    if (cmp->steps <= 0) return false;
    bool gold_assigns = is_assignment(gold), gold_equates = is_equation(gold), equates = is_equation(prediction);
    if (gold_assigns) gold = shortened(cmp, gold);
    if (is_assignment(prediction)) prediction = shortened(cmp, prediction);
    if (equates && !gold_equates) prediction = right_side(prediction);
    else if (gold_assigns && !equates) gold = right_side(gold);

    bool gold_relates = node_is_relation(gold), relates = node_is_relation(prediction);
    bool gold_set = node_is_set(gold), set = node_is_set(prediction);
    if (gold_relates && set && prediction->kind != NODE_TUPLE && relation_describes(cmp, gold, prediction)) return true;
    if (cmp->how->set_relation && relates && gold_set && gold->kind != NODE_TUPLE &&
        relation_describes(cmp, prediction, gold))
        return true;

    if (gold->kind == NODE_CONST && gold->constant == CONST_UNDEFINED) return false;
    if (node_same(gold, prediction)) return true;
    if (gold_relates && relates) return relations_equal(cmp, gold, prediction);
    if (gold_set || set) return sets_equal(cmp, gold, prediction);
    if (gold->kind == NODE_SYMBOL || prediction->kind == NODE_SYMBOL) return symbols_equal(gold, prediction);
    return expressions_equal(cmp, gold, prediction);
}

bool math_equal(Pool *p, const Answer *gold, const Answer *prediction, const CompareOptions *how) {
    enum { STEPS = 200000 };
    Comparison cmp = {p, how, STEPS};
    const Node *g = gold->node, *w = prediction->node;
    if (g && w && node_has_base(g) && node_has_base(w)) g = node_in_base(p, g), w = node_in_base(p, w);
    if (g && w && answers_equal(&cmp, g, w)) return true;
    // The variable of the whole answer: x = 2, y = 3 is not y = 2, x = 3, whatever each part alone might be called.
    Text name[2], other[2];
    if (g && w && how->any_variable && node_symbols(g, name, 0, 2) == 1 && node_symbols(w, other, 0, 2) == 1 &&
        answers_equal(&cmp, g, renamed(p, w, other[0], name[0])))
        return true;
    Text a = text_strip(gold->text), b = text_strip(prediction->text);
    return a.n > 0 && text_equal(a, b);
}
