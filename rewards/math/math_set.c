// Comparing sets of real numbers: they are equal where they hold the same points. They can differ only at end points
// and elements, between them or beyond them, so it is enough to look at one point of each.
#include "verify.h"
#include <math.h>
#include <stdlib.h>

// The value of an end point; an infinite one becomes a number beyond all others.
static Value end_point(Comparison *cmp, const Node *a, const Point *point) {
    int sign = node_infinity(a);
    return sign ? (Value){.re = sign * INFINITY} : math_value(cmp, a, point);
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
            Value v = end_point(cmp, set->arg[i], &(Point){.trial = trial});
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
        a = end_point(cmp, set->arg[0], &(Point){.trial = trial});
        b = end_point(cmp, set->arg[1], &(Point){.trial = trial});
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
    Value a = end_point(cmp, relation->arg[0], &at), b = end_point(cmp, relation->arg[1], &at);
    if (a.bad || b.bad) return false;
    bool equal = isinf(a.re) || isinf(b.re) ? a.re == b.re : value_equal(a, b);
    bool real = fabsl(a.im) < 1e-15L && fabsl(b.im) < 1e-15L;
    switch (relation->relation) {
    case REL_EQ: return equal;
    case REL_NE: return !equal;
    case REL_LT: return real && !equal && a.re < b.re;
    case REL_LE: return equal || (real && a.re < b.re);
    case REL_GT: return real && !equal && a.re > b.re;
    default: return equal || (real && a.re > b.re);
    }
}

// A copy of the set in which ends that are written as decimals, or all where the relation is written with some, stand
// for the critical places they are rounded from: 0.333333 for 1/3.
static const Node *unrounded(Comparison *cmp, const Node *set, bool rounded, const Points *critical) {
    bool nested = set->kind == NODE_UNION || set->kind == NODE_INTERSECTION || set->kind == NODE_MINUS;
    Node *copy = node_new(cmp->pool, set->kind, set->n, set->arg), **arg = copy->arg;
    *copy = *set;
    copy->arg = arg;
    for (int i = 0; i < set->n; i++) {
        const Node *end = set->arg[i];
        if (nested) {
            arg[i] = (Node *)unrounded(cmp, end, rounded, critical);
            continue;
        }
        bool is_rounded = node_has_float(end);
        if (node_infinity(end) || !(is_rounded || rounded)) continue;
        Value v = math_value(cmp, end, &(Point){0});
        const Value *best = NULL;
        for (int k = 0; k < critical->n; k++) {
            const Value *c = &critical->at[k];
            if (rounds_equal(v, is_rounded, *c, rounded, cmp->how->precision) &&
                (!best || fabsl(c->re - v.re) < fabsl(best->re - v.re)))
                best = c;
        }
        if (best) arg[i] = node_number(cmp->pool, NUMBER_RATIONAL, *best);
    }
    return copy;
}

// Adds places between those of p, which are sorted, and close by on both sides of each.
static void add_between(Points *p) {
    int n = p->n;
    for (int i = 0; i + 1 < n; i++) points_add(p, value_div(value_add(p->at[i], p->at[i + 1]), value_int(2)));
    for (int i = 0; i < n; i++) {
        Value near = value_div(value_int((int64_t)fminl(1 + fabsl(p->at[i].re), 1e15L)), value_int(1000000));
        points_add(p, value_add(p->at[i], near));
        points_add(p, value_add(p->at[i], value_neg(near)));
    }
}

bool relation_describes(Comparison *cmp, const Node *relation, const Node *set) {
    Text unknown[2], in_set[1];
    Node *plain = without_functions(cmp->pool, relation);
    if (node_symbols(plain, unknown, 0, 2) != 1 || node_symbols(set, in_set, 0, 1) != 0) return false;
    Points p = {.n = 0}, critical = {.n = 0};
    add_critical(cmp, plain, &(Point){.bound = unknown[0]}, &critical);
    set = unrounded(cmp, set, node_has_float(plain), &critical);
    collect(cmp, set, 0, &p);
    // A critical place that was searched for is known but for rounding; where it is an end, the end is the place.
    Points ends = p;
    for (int i = 0; i < critical.n; i++)
        if (!points_near(&ends, critical.at[i])) points_add(&p, critical.at[i]);
    qsort(p.at, (size_t)p.n, sizeof *p.at, value_order);
    add_between(&p);
    for (int k = -40; k <= 40; k++) points_add(&p, value_real(k * 0.517L));
    for (long double x = 29; x < 2e6L; x *= 2.71L) points_add(&p, value_real(x)), points_add(&p, value_real(-x));
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
