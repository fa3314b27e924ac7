// Comparing sets of real numbers: they are equal where they hold the same points. They can differ only at end points
// and elements, between them or beyond them, so it is enough to look at one point of each.
#include "verify.h"
#include <math.h>
#include <stdlib.h>

enum { MAX_POINTS = 256 };
typedef struct {
    Value at[MAX_POINTS];
    int n;
} Points;

static void points_add(Points *p, Value v) {
    if (p->n < MAX_POINTS && !v.bad && v.im == 0) p->at[p->n++] = v;
}

// The value of an end point; an infinite one becomes a number beyond all others.
static Value end_point(Comparison *cmp, const Node *a, int trial) {
    bool minus =
        a->kind == NODE_MUL && a->n == 2 && value_equal(math_value(cmp, a->arg[0], &(Point){0}), value_int(-1));
    const Node *inner = minus ? a->arg[1] : a;
    if (inner->kind == NODE_CONST && inner->constant == CONST_INFINITY)
        return (Value){.re = minus ? -INFINITY : INFINITY};
    return math_value(cmp, a, &(Point){.trial = trial});
}

static void collect(Comparison *cmp, const Node *set, int trial, Points *p) {
    if (set->kind == NODE_NAMED_SET) {
        for (int k = -2; k <= 2; k++) points_add(p, value_int(k));
        return;
    }
    for (int i = 0; i < set->n; i++) {
        if (set->kind == NODE_UNION || set->kind == NODE_INTERSECTION || set->kind == NODE_MINUS)
            collect(cmp, set->arg[i], trial, p);
        else {
            Value v = end_point(cmp, set->arg[i], trial);
            if (!isinf(v.re)) points_add(p, v);
        }
    }
}

static int value_order(const void *a, const void *b) {
    const Value *x = a, *y = b;
    return (x->re > y->re) - (x->re < y->re);
}

// Adds points between the points, and beyond them.
static void spread(Points *p) {
    qsort(p->at, (size_t)p->n, sizeof *p->at, value_order);
    int n = p->n;
    for (int i = 0; i + 1 < n; i++) points_add(p, value_real((p->at[i].re + p->at[i + 1].re) / 2));
    long double low = n ? p->at[0].re : 0, high = n ? p->at[n - 1].re : 0;
    points_add(p, value_real(low - 1.37L));
    points_add(p, value_real(high + 1.41L));
    points_add(p, value_real(low - 1000.7L));
    points_add(p, value_real(high + 1000.9L));
}

// Whether x is in the set; *sure becomes false where an end point cannot be computed.
static bool member(Comparison *cmp, const Node *set, int trial, Value x, bool *sure) {
    Value a, b;
    switch (set->kind) {
    case NODE_SET:
        for (int i = 0; i < set->n; i++) {
            a = math_value(cmp, set->arg[i], &(Point){.trial = trial});
            if (a.bad) *sure = false;
            if (value_equal(a, x)) return true;
        }
        return false;
    case NODE_INTERVAL:
        a = end_point(cmp, set->arg[0], trial), b = end_point(cmp, set->arg[1], trial);
        if (a.bad || b.bad || a.im != 0 || b.im != 0) *sure = false;
        if (!isinf(a.re) && value_equal(a, x)) return !set->left_open;
        if (!isinf(b.re) && value_equal(b, x)) return !set->right_open;
        return a.re < x.re && x.re < b.re;
    case NODE_UNION: return member(cmp, set->arg[0], trial, x, sure) || member(cmp, set->arg[1], trial, x, sure);
    case NODE_INTERSECTION: return member(cmp, set->arg[0], trial, x, sure) && member(cmp, set->arg[1], trial, x, sure);
    case NODE_MINUS: return member(cmp, set->arg[0], trial, x, sure) && !member(cmp, set->arg[1], trial, x, sure);
    case NODE_NAMED_SET:
        if (text_is(set->name, "Z")) return value_is_int(x);
        if (text_is(set->name, "N")) return value_is_int(x) && x.re > 0;
        if (text_is(set->name, "Q")) return x.exact;
        return !text_is(set->name, "empty");
    default: *sure = false; return false;
    }
}

static bool same_points(Comparison *cmp, const Node *a, const Node *b) {
    enum { TRIALS = 3 };
    for (int trial = 0; trial < TRIALS; trial++) {
        Points p = {.n = 0};
        collect(cmp, a, trial, &p);
        collect(cmp, b, trial, &p);
        spread(&p);
        bool sure = true;
        for (int i = 0; i < p.n; i++)
            if (member(cmp, a, trial, p.at[i], &sure) != member(cmp, b, trial, p.at[i], &sure) || !sure) return false;
    }
    return true;
}

// ---- relations in one unknown ---------------------------------------------------------------------------------------

static bool is_own_function(const Node *a) {
    return a->kind == NODE_FUNC && a->name.n > 2 && memcmp(a->name.s + a->name.n - 2, "()", 2) == 0;
}

// The relation with each f(x) as a symbol of its own.
static Node *without_functions(Pool *pool, const Node *a) {
    if (is_own_function(a)) return node_named(pool, NODE_SYMBOL, a->name, 0, NULL);
    Node *copy = node_new(pool, a->kind, a->n, a->arg);
    Node **arg = copy->arg;
    *copy = *a;
    copy->arg = arg;
    for (int i = 0; i < a->n; i++) copy->arg[i] = without_functions(pool, a->arg[i]);
    return copy;
}

static bool holds(Comparison *cmp, const Node *relation, Text unknown, Value x) {
    if (relation->kind == NODE_AND) {
        for (int i = 0; i < relation->n; i++)
            if (!holds(cmp, relation->arg[i], unknown, x)) return false;
        return true;
    }
    Point at = {.bound = unknown, .at = x};
    Value a = math_value(cmp, relation->arg[0], &at), b = math_value(cmp, relation->arg[1], &at);
    bool equal = value_equal(a, b), real = !a.bad && !b.bad && fabsl(a.im) < 1e-15L && fabsl(b.im) < 1e-15L;
    switch (relation->relation) {
    case REL_EQ: return equal;
    case REL_NE: return !equal;
    case REL_LT: return real && !equal && a.re < b.re;
    case REL_LE: return equal || (real && a.re < b.re);
    case REL_GT: return real && !equal && a.re > b.re;
    default: return equal || (real && a.re > b.re);
    }
}

// Where an equation's sides cross in [-50, 50].
static void add_roots(Comparison *cmp, const Node *relation, Text unknown, Points *p) {
    enum { STEPS = 400 };
    Node *difference = node_2(cmp->pool, NODE_ADD, relation->arg[0], node_negate(cmp->pool, relation->arg[1]));
    long double before = NAN, width = 0.25L;
    for (int i = 0; i <= STEPS; i++) {
        long double x = -50.03L + width * i;
        Value v = math_value(cmp, difference, &(Point){.bound = unknown, .at = value_real(x)});
        if (!v.bad && v.im == 0 && before * v.re < 0) {
            long double low = x - width, high = x;
            for (int k = 0; k < 80; k++) {
                long double middle = (low + high) / 2;
                Value w = math_value(cmp, difference, &(Point){.bound = unknown, .at = value_real(middle)});
                if (w.re * before > 0) low = middle;
                else high = middle;
            }
            points_add(p, value_real((low + high) / 2));
        }
        before = v.bad || v.im != 0 ? NAN : v.re;
    }
}

bool relation_describes(Comparison *cmp, const Node *relation, const Node *set) {
    Text unknown[2], in_set[1];
    Node *plain = without_functions(cmp->pool, relation);
    if (node_symbols(plain, unknown, 0, 2) != 1 || node_symbols(set, in_set, 0, 1) != 0) return false;
    Points p = {.n = 0};
    collect(cmp, set, 0, &p);
    if (plain->kind == NODE_RELATION && plain->relation == REL_EQ) add_roots(cmp, plain, unknown[0], &p);
    for (int i = 0, n = p.n; i < n && n < MAX_POINTS / 4; i++) { // close by on both sides
        points_add(&p, value_real(p.at[i].re - 1e-6L));
        points_add(&p, value_real(p.at[i].re + 1e-6L));
    }
    for (int k = -40; k <= 40; k++) points_add(&p, value_real(k * 0.517L));
    spread(&p);
    for (int i = 0; i < p.n; i++) {
        bool sure = true, inside = member(cmp, set, 0, p.at[i], &sure);
        if (!sure || holds(cmp, plain, unknown[0], p.at[i]) != inside) return false;
    }
    return true;
}

// ---- comparison -----------------------------------------------------------------------------------------------------

static bool is_finite(const Node *a) { return a->kind == NODE_SET || a->kind == NODE_TUPLE; }

static bool in_order(Comparison *cmp, const Node *gold, const Node *prediction) {
    for (int i = 0; i < gold->n; i++)
        if (!answers_equal(cmp, gold->arg[i], prediction->arg[i])) return false;
    return true;
}

// Whether two sets have the same elements in any order.
static bool in_any_order(Comparison *cmp, const Node *gold, const Node *prediction) {
    bool *taken = pool_take(cmp->pool, (size_t)gold->n);
    for (int i = 0; i < gold->n; i++) {
        int k = 0;
        while (k < prediction->n && (taken[k] || !answers_equal(cmp, gold->arg[i], prediction->arg[k]))) k++;
        if (k == prediction->n) return false;
        taken[k] = true;
    }
    return true;
}

static bool elements_equal(Comparison *cmp, const Node *gold, const Node *prediction) {
    if (gold->n != prediction->n) return false;
    return gold->kind == NODE_SET ? in_any_order(cmp, gold, prediction) : in_order(cmp, gold, prediction);
}

// An open interval may be a pair: (1, 2).
static Node *as_pair(Comparison *cmp, const Node *a) {
    if (a->kind != NODE_INTERVAL || !a->left_open || !a->right_open) return NULL;
    return node_new(cmp->pool, NODE_TUPLE, 2, a->arg);
}

bool sets_equal(Comparison *cmp, const Node *gold, const Node *prediction) {
    Node *one[2] = {(Node *)gold, (Node *)prediction}, *pair;
    const Node *a = node_is_set(gold) ? gold : node_new(cmp->pool, NODE_SET, 1, &one[0]);
    const Node *b = node_is_set(prediction) ? prediction : node_new(cmp->pool, NODE_SET, 1, &one[1]);
    if (a->kind == NODE_INTERVAL && b->kind == NODE_INTERVAL)
        return a->left_open == b->left_open && a->right_open == b->right_open && in_order(cmp, a, b);
    if (node_same(a, b)) return true;
    if (is_finite(a) && is_finite(b)) return elements_equal(cmp, a, b);
    if (is_finite(b) && (pair = as_pair(cmp, a))) return elements_equal(cmp, pair, b);
    if (is_finite(a) && (pair = as_pair(cmp, b))) return elements_equal(cmp, a, pair);
    return a->kind != NODE_TUPLE && b->kind != NODE_TUPLE && same_points(cmp, a, b);
}
