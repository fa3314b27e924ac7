// Where a function of one unknown may change its sign or its form: zeros, poles, corners. Linear and quadratic
// functions are solved, exactly where that is rational; of others the zeros are searched for between -1e6 and 1e6.
#include "verify.h"
#include <math.h>

static Value ratio(int64_t a, int64_t b) { return value_div(value_int(a), value_int(b)); }

static Value value_at(Comparison *cmp, const Node *f, const Point *line, Value x) {
    Point p = *line;
    p.at = x;
    return math_value(cmp, f, &p);
}

void points_add(Points *p, Value v) {
    if (p->n < MAX_POINTS && !v.bad && v.im == 0) p->at[p->n++] = v;
}

bool points_near(const Points *p, Value v) {
    for (int i = 0; i < p->n; i++)
        if (fabsl(p->at[i].re - v.re) <= 1e-9L * fmaxl(1, fabsl(v.re))) return true;
    return false;
}

bool quadratic_of(Comparison *cmp, const Node *f, const Point *line, Value coefficient[3]) {
    // Where it is looked at again: far away too, where |x - 10| is no longer 10 - x.
    const Value check[] = {value_int(3), ratio(-7, 2), value_int(1009), value_int(-1013)};
    Value zero = value_at(cmp, f, line, value_int(0)), plus = value_at(cmp, f, line, value_int(1)),
          minus = value_at(cmp, f, line, value_int(-1));
    Value *c = coefficient;
    c[0] = zero;
    c[1] = value_mul(value_add(plus, value_neg(minus)), ratio(1, 2));
    c[2] = value_add(value_mul(value_add(plus, minus), ratio(1, 2)), value_neg(zero));
    if (c[1].bad || c[2].bad) return false;
    for (int i = 1; i < 3; i++) // what rounding left of a coefficient that is zero
        if (!c[i].exact && hypotl(c[i].re, c[i].im) < 1e-17L * hypotl(plus.re, minus.re)) c[i] = value_int(0);
    for (size_t i = 0; i < sizeof check / sizeof *check; i++) {
        Value x = check[i], want = value_add(value_mul(value_add(value_mul(c[2], x), c[1]), x), c[0]);
        if (!value_equal(value_at(cmp, f, line, x), want)) return false;
    }
    return true;
}

// Adds the zeros of a x^2 + b x + c and, where a is not 0, the place of the extremum.
static void solve(const Value c[3], Points *p) {
    Value none = value_int(0), minus_b = value_neg(c[1]);
    if (value_equal(c[2], none) && c[2].re == 0) {
        points_add(p, value_div(value_neg(c[0]), c[1]));
        return;
    }
    Value twice = value_mul(value_int(2), c[2]);
    Value inner = value_add(value_mul(c[1], c[1]), value_neg(value_mul(value_mul(value_int(4), c[2]), c[0])));
    points_add(p, value_div(minus_b, twice));
    if (inner.bad || inner.im != 0 || inner.re <= 0) return;
    Value root = value_pow(inner, value_div(value_int(1), value_int(2)));
    points_add(p, value_div(value_add(minus_b, root), twice));
    points_add(p, value_div(value_add(minus_b, value_neg(root)), twice));
}

static long double real_at(Comparison *cmp, const Node *f, const Point *line, long double x) {
    Value v = value_at(cmp, f, line, value_real(x));
    return v.bad || v.im != 0 ? NAN : v.re;
}

// Where f changes its sign between low and high.
static long double crossing(Comparison *cmp, const Node *f, const Point *line, long double low, long double high,
                            long double at_low) {
    for (int k = 0; k < 80; k++) {
        long double middle = (low + high) / 2;
        if (real_at(cmp, f, line, middle) * at_low > 0) low = middle;
        else high = middle;
    }
    return (low + high) / 2;
}

// Where f comes closest to zero between low and high, which it does once.
static long double closest(Comparison *cmp, const Node *f, const Point *line, long double low, long double high) {
    for (int k = 0; k < 60; k++) {
        long double a = low + (high - low) * 0.382L, b = high - (high - low) * 0.382L;
        if (fabsl(real_at(cmp, f, line, a)) < fabsl(real_at(cmp, f, line, b))) high = b;
        else low = a;
    }
    return (low + high) / 2;
}

// The places where f is looked at: in even steps near zero, in growing ones far away.
static long double grid(int i) {
    enum { STEPS = 400, FAR = 60 };
    if (i < FAR) return -51 * powl(1.18L, FAR - i);
    if (i <= FAR + STEPS) return -50.03L + 0.25L * (i - FAR);
    return i <= 2 * FAR + STEPS ? 51 * powl(1.18L, i - FAR - STEPS) : NAN;
}

// Adds the places where f crosses zero or touches it; it ends early where the steps left are needed for the comparison.
static void search(Comparison *cmp, const Node *f, const Point *line, Points *p) {
    enum { STEPS_LEFT = 60000 };
    long double x[3] = {NAN, NAN, NAN}, y[3] = {NAN, NAN, NAN};
    for (int i = 0; !isnan(grid(i)) && cmp->steps > STEPS_LEFT; i++) {
        x[0] = x[1], x[1] = x[2], x[2] = grid(i);
        y[0] = y[1], y[1] = y[2], y[2] = real_at(cmp, f, line, x[2]);
        if (y[2] == 0) points_add(p, value_real(x[2]));
        if (y[1] * y[2] < 0) points_add(p, value_real(crossing(cmp, f, line, x[1], x[2], y[1])));
        if (y[0] * y[1] > 0 && y[1] * y[2] > 0 && fabsl(y[1]) < fabsl(y[0]) && fabsl(y[1]) <= fabsl(y[2]))
            points_add(p, value_real(closest(cmp, f, line, x[0], x[2])));
    }
}

void add_zeros(Comparison *cmp, const Node *f, const Point *line, Points *p) {
    Value c[3];
    if (quadratic_of(cmp, f, line, c)) solve(c, p);
    else search(cmp, f, line, p);
}

static bool holds_name(const Node *a, Text name) {
    if (a->kind == NODE_SYMBOL) return text_equal(a->name, name);
    for (int i = 0; i < a->n; i++)
        if (holds_name(a->arg[i], name)) return true;
    return false;
}

void add_critical(Comparison *cmp, const Node *a, const Point *line, Points *p) {
    if (p->n >= MAX_POINTS / 8) return; // enough
    if (node_is_relation(a)) {
        for (int i = 0; i < a->n; i++) add_critical(cmp, a->arg[i], line, p);
        if (a->kind == NODE_RELATION)
            add_zeros(cmp, node_2(cmp->pool, NODE_ADD, a->arg[0], node_negate(cmp->pool, a->arg[1])), line, p);
        return;
    }
    if (!holds_name(a, line->bound)) { // what is written
        Value v = math_value(cmp, a, line);
        points_add(p, v);
        points_add(p, value_neg(v));
        return;
    }
    Value c[3];
    if ((a->kind == NODE_ADD || a->kind == NODE_SYMBOL) && quadratic_of(cmp, a, line, c)) solve(c, p);
    for (int i = 0; i < a->n; i++) add_critical(cmp, a->arg[i], line, p);
}
