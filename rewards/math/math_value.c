// The values of expressions: rational arithmetic that is exact by residues modulo primes, and complex arithmetic beside
// it.
#include "random.h"
#include "verify.h"
#include <complex.h>
#include <math.h>
#include <stdio.h>

// The primes are 2^61 - 1 and 2^61 - 31: modulo them 2^61 is 1 and 31 (`fold`), so that the bits above the 61st are
// reduced by a small multiplication.
static const uint64_t fold[MATH_PRIMES] = {1, 31};
static const uint64_t prime[MATH_PRIMES] = {((uint64_t)1 << 61) - 1, ((uint64_t)1 << 61) - 31};

static uint64_t mod_mul(uint64_t a, uint64_t b, int i) {
    const unsigned __int128 low = ((uint64_t)1 << 61) - 1;
    unsigned __int128 x = (unsigned __int128)a * b;
    x = (x & low) + (x >> 61) * fold[i];
    x = (x & low) + (x >> 61) * fold[i];
    uint64_t r = (uint64_t)x;
    return r >= prime[i] ? r - prime[i] : r;
}

static uint64_t mod_pow(uint64_t a, uint64_t e, int i) {
    uint64_t r = 1;
    for (; e; e >>= 1, a = mod_mul(a, a, i))
        if (e & 1) r = mod_mul(r, a, i);
    return r;
}

static uint64_t mod_inverse(uint64_t a, int i) { return mod_pow(a, prime[i] - 2, i); } // Fermat

Value value_int(int64_t n) {
    Value v = {.re = (long double)n, .exact = true};
    for (int i = 0; i < MATH_PRIMES; i++) {
        uint64_t r = (n < 0 ? 0 - (uint64_t)n : (uint64_t)n) % prime[i];
        v.residue[i] = n < 0 && r ? prime[i] - r : r;
    }
    return v;
}

Value value_bad(void) { return (Value){.bad = true}; }

// v, or an undefined value where it is not finite.
static Value checked(Value v) { return isfinite(v.re) && isfinite(v.im) ? v : value_bad(); }

Value value_real(long double x) { return checked((Value){.re = x}); }

static Value value_complex(long double complex z) { return checked((Value){.re = creall(z), .im = cimagl(z)}); }

// Zeros lose their signs, which say on which side of a branch cut a number lies: ln(-2) is the same however -2 came
// about.
static long double complex complex_of(Value v) {
    long double complex z = v.re + 0.0L;
    __imag__ z = v.im + 0.0L;
    return z;
}

Value value_decimal(Text digits) { return value_in_base(digits, 10); }

Value value_in_base(Text digits, int base) {
    Value step = value_int(base), v = value_int(0), scale = value_int(1);
    bool fraction = false;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.s[i] == '.') {
            fraction = true;
            continue;
        }
        if (digits.s[i] - '0' >= base) return value_bad();
        v = value_add(value_mul(v, step), value_int(digits.s[i] - '0'));
        if (fraction) scale = value_mul(scale, step);
    }
    return fraction ? value_div(v, scale) : v;
}

Value value_add(Value a, Value b) {
    if (a.bad || b.bad) return value_bad();
    Value v = {.re = a.re + b.re, .im = a.im + b.im, .exact = a.exact && b.exact};
    for (int i = 0; v.exact && i < MATH_PRIMES; i++) {
        v.residue[i] = a.residue[i] + b.residue[i];
        if (v.residue[i] >= prime[i]) v.residue[i] -= prime[i];
    }
    // Where exact terms cancel, only rounding errors are left of the approximation.
    if (v.exact && v.residue[0] == 0 && v.residue[1] == 0) v.re = 0;
    return checked(v);
}

Value value_neg(Value a) {
    a.re = -a.re;
    a.im = -a.im;
    for (int i = 0; a.exact && i < MATH_PRIMES; i++)
        if (a.residue[i]) a.residue[i] = prime[i] - a.residue[i];
    return a;
}

Value value_mul(Value a, Value b) {
    if (a.bad || b.bad) return value_bad();
    Value v = {.exact = a.exact && b.exact};
    v.re = a.re * b.re - a.im * b.im;
    v.im = a.re * b.im + a.im * b.re;
    for (int i = 0; v.exact && i < MATH_PRIMES; i++) v.residue[i] = mod_mul(a.residue[i], b.residue[i], i);
    return checked(v);
}

static long double size_of(Value a) { return fmaxl(fabsl(a.re), fabsl(a.im)); }

static bool is_zero(Value a) { return a.re == 0 && a.im == 0; }

Value value_div(Value a, Value b) {
    if (a.bad || b.bad || is_zero(b)) return value_bad();
    Value v = value_complex(complex_of(a) / complex_of(b));
    if (b.im == 0) v = checked((Value){.re = a.re / b.re, .im = a.im / b.re});
    v.exact = !v.bad && a.exact && b.exact;
    for (int i = 0; v.exact && i < MATH_PRIMES; i++)
        v.residue[i] = mod_mul(a.residue[i], mod_inverse(b.residue[i], i), i);
    return v;
}

bool value_is_int(Value a) { return !a.bad && a.exact && fabsl(a.re) < 0x1p53L && a.re == rintl(a.re); }

// a to a whole power, exact where a is.
static Value power_int(Value a, int64_t n) {
    if (n < 0) a = value_div(value_int(1), a);
    uint64_t e = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    Value r = value_int(1);
    for (; e && !a.bad; e >>= 1) {
        if (e & 1) r = value_mul(r, a);
        if (e > 1) a = value_mul(a, a);
    }
    return a.bad ? a : r;
}

Value value_pow(Value a, Value b) {
    if (value_equal(a, value_int(1)) && a.exact) return a; // whatever the size of b
    if (a.bad || b.bad) return value_bad();
    if (value_is_int(b)) return power_int(a, (int64_t)b.re);
    if (is_zero(a)) return b.re > 0 ? value_int(0) : value_bad();
    if (a.im == 0 && b.im == 0 && a.re > 0) {
        if (b.re != 0.5L) return value_real(powl(a.re, b.re));
        Value root = value_real(sqrtl(a.re)), whole = value_int(root.re < 1e9L ? llrintl(root.re) : 0);
        return a.exact && value_equal(value_mul(whole, whole), a) ? whole : root; // of a perfect square exact
    }
    return value_complex(cexpl(complex_of(b) * clogl(complex_of(a))));
}

bool value_equal(Value a, Value b) {
    if (a.bad || b.bad) return false;
    long double scale = fmaxl(fmaxl(hypotl(a.re, a.im), hypotl(b.re, b.im)), 1e-1L);
    long double difference = hypotl(a.re - b.re, a.im - b.im);
    if (!a.exact || !b.exact) return difference <= 1e-14L * scale;
    // Numbers with the same residues are equal, or at least the product of the primes apart.
    return memcmp(a.residue, b.residue, sizeof a.residue) == 0 && (difference < 1e30L || difference <= 1e-9L * scale);
}

// ---- functions ------------------------------------------------------------------------------------------------------

static Value factorial(Value a) {
    if (!value_is_int(a)) {
        if (a.bad || a.im != 0 || (a.re < 0 && a.re == rintl(a.re))) return value_bad();
        return value_real(tgammal(a.re + 1));
    }
    if (a.re < 0 || a.re > 1500) return value_bad();
    Value v = value_int(1);
    for (int k = 2; k <= (int)a.re; k++) v = value_mul(v, value_int(k));
    return v;
}

Value value_binomial(Value n, Value k) {
    if (!value_is_int(k) || k.re < 0 || k.re > 5000) return k.bad || !value_is_int(k) ? value_bad() : value_int(0);
    Value v = value_int(1);
    for (int i = 0; i < (int)k.re; i++) v = value_div(value_mul(v, value_add(n, value_int(-i))), value_int(i + 1));
    return v;
}

static int64_t gcd(int64_t a, int64_t b) {
    while (b) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return a < 0 ? -a : a;
}

static Value gcd_or_lcm(const Value *a, int n, bool lcm) {
    int64_t r = lcm ? 1 : 0;
    for (int i = 0; i < n; i++) {
        if (!value_is_int(a[i])) return value_bad();
        int64_t x = (int64_t)a[i].re, g = gcd(r, x);
        if (!lcm) r = g;
        else if (g == 0 || __builtin_mul_overflow(r / g, x < 0 ? -x : x, &r)) return value_bad();
    }
    return value_int(r);
}

static Value rounded(Value a, long double (*to)(long double)) {
    if (a.bad || a.im != 0) return value_bad();
    long double near = rintl(a.re); // what is whole but for rounding errors is whole
    long double x = fabsl(a.re - near) < 1e-12L ? near : to(a.re);
    return fabsl(x) < 0x1p53L ? value_int((int64_t)x) : value_real(x);
}

// One-argument functions of complex numbers, by name; `sec` and the like are the others' reciprocals.
typedef long double complex ComplexFn(long double complex);
static const struct {
    const char *name;
    ComplexFn *fn;
    enum { PLAIN, RECIPROCAL, OF_RECIPROCAL } form;
} complex_fn[] = {
    {"sin", csinl, PLAIN},           {"cos", ccosl, PLAIN},           {"tan", ctanl, PLAIN},
    {"csc", csinl, RECIPROCAL},      {"sec", ccosl, RECIPROCAL},      {"cot", ctanl, RECIPROCAL},
    {"asin", casinl, PLAIN},         {"acos", cacosl, PLAIN},         {"atan", catanl, PLAIN},
    {"acsc", casinl, OF_RECIPROCAL}, {"asec", cacosl, OF_RECIPROCAL}, {"acot", catanl, OF_RECIPROCAL},
    {"sinh", csinhl, PLAIN},         {"cosh", ccoshl, PLAIN},         {"tanh", ctanhl, PLAIN},
    {"asinh", casinhl, PLAIN},       {"acosh", cacoshl, PLAIN},       {"atanh", catanhl, PLAIN},
    {"exp", cexpl, PLAIN},
};

static Value apply_complex(size_t i, Value a) {
    if (a.bad) return a;
    Value x = complex_fn[i].form == OF_RECIPROCAL ? value_div(value_int(1), a) : a;
    if (x.bad) return x;
    Value y = value_complex(complex_fn[i].fn(complex_of(x)));
    return complex_fn[i].form == RECIPROCAL ? value_div(value_int(1), y) : y;
}

static uint64_t hash_text(Text t, uint64_t seed) {
    uint64_t h = 0xcbf29ce484222325u ^ seed * RANDOM_STEP;
    for (size_t i = 0; i < t.n; i++) h = (h ^ (unsigned char)t.s[i]) * 0x100000001b3u;
    h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93u;
    return h ^ (h >> 32);
}

// An unknown function is taken for some smooth function, a different one for each name and trial.
static Value unknown_function(Text name, const Value *a, int n, int trial) {
    long double complex z = 0;
    for (int i = 0; i < n; i++) {
        if (a[i].bad) return a[i];
        uint64_t h = hash_text(name, (uint64_t)(trial * 64 + i + 1));
        long double complex x = complex_of(a[i]) * (1 + (h & 0xffff) / 65536.0L) + (h >> 16 & 0xffff) / 8192.0L;
        z += csinl(x / (1 + cabsl(x) * 0.05L)) * (2 + i) + x * 0.1L;
    }
    return value_complex(z);
}

static Value apply(Text name, const Value *a, int n, int trial) {
    for (size_t i = 0; n == 1 && i < sizeof complex_fn / sizeof *complex_fn; i++)
        if (text_is(name, complex_fn[i].name)) return apply_complex(i, a[0]);
    if (text_is(name, "gcd") || text_is(name, "lcm")) return gcd_or_lcm(a, n, text_is(name, "lcm"));
    if (text_is(name, "max") || text_is(name, "min")) {
        Value best = a[0];
        for (int i = 0; i < n; i++) {
            if (a[i].bad || a[i].im != 0) return value_bad();
            if (text_is(name, "max") ? a[i].re > best.re : a[i].re < best.re) best = a[i];
        }
        return best;
    }
    if (n == 2 && text_is(name, "log")) { // argument, base
        if (a[0].bad || a[1].bad || is_zero(a[0]) || is_zero(a[1])) return value_bad();
        return value_div(value_complex(clogl(complex_of(a[0]))), value_complex(clogl(complex_of(a[1]))));
    }
    if (n == 2 && text_is(name, "binomial")) return value_binomial(a[0], a[1]);
    if (n == 2 && text_is(name, "mod")) {
        Value q = value_div(a[0], a[1]);
        return q.bad ? q : value_add(a[0], value_neg(value_mul(a[1], rounded(q, floorl))));
    }
    if (n != 1) return unknown_function(name, a, n, trial);
    if (text_is(name, "abs")) {
        if (a[0].bad || a[0].im != 0) return a[0].bad ? a[0] : value_real(hypotl(a[0].re, a[0].im));
        return a[0].re < 0 ? value_neg(a[0]) : a[0];
    }
    if (text_is(name, "floor")) return rounded(a[0], floorl);
    if (text_is(name, "ceil")) return rounded(a[0], ceill);
    if (text_is(name, "factorial")) return factorial(a[0]);
    if (text_is(name, "gamma")) return factorial(value_add(a[0], value_int(-1)));
    return unknown_function(name, a, n, trial);
}

// ---- trees ----------------------------------------------------------------------------------------------------------

static Value symbol_value(Text name, const Point *point) {
    int trial = point->trial;
    uint64_t h = hash_text(name, (uint64_t)trial);
    for (int i = 0; i < point->n_whole; i++)
        if (text_equal(point->whole[i], name)) return value_int((int64_t)(h % 12) + 1);
    Value v = value_div(value_int((int64_t)(h % 3989) + 1), value_int(1009));
    bool far = point->scale || point->near;
    // Odd trials have negative values too, the first only such, and of those far away every second.
    bool negative = trial % 2 && (trial == 1 || (far && trial % 4 == 1) || (h >> 32 & 1));
    if (negative) v = value_neg(v);
    if (point->scale) v = value_mul(v, value_int(point->scale));
    return point->near ? value_add(*point->near, v) : v;
}

static Value constant_value(Constant c) {
    switch (c) {
    case CONST_PI: return value_real(acosl(-1));
    case CONST_E: return value_real(expl(1));
    case CONST_I: return (Value){.im = 1};
    default: return value_bad();
    }
}

// What binds the name at the point, innermost first; NULL where nothing does.
static const Point *binding(const Point *p, Text name) {
    while (p && !(p->bound.s && text_equal(p->bound, name))) p = p->outer;
    return p;
}

static bool holds_letters(Text t, Text word) {
    for (size_t at = 0; (at = text_find(t, at, word)) != TEXT_NONE; at++)
        if (word.n > 1 || at == 0 || t.s[at - 1] != '\\') return true;
    return false;
}

// The value of a_k within a sum over k is that of a_1, a_2 and so on; of a_{k + 1} one that depends on k.
static Value indexed_value(Text name, const Point *point) {
    size_t under = text_find(name, 0, text_of("_"));
    if (under == TEXT_NONE) return symbol_value(name, point);
    Text sub = text_from(name, under + 1);
    if (sub.n > 2 && sub.s[0] == '{') sub = text_slice(sub, 1, sub.n - 1);
    for (const Point *p = point; p; p = p->outer) {
        if (!p->bound.s || !holds_letters(sub, p->bound)) continue;
        char index[64];
        bool plain = text_equal(sub, p->bound) && value_is_int(p->at);
        int digits = snprintf(index, sizeof index, plain ? "%.0Lf" : "%.12Lg@", p->at.re);
        Str s = {0};
        str_add(&s, name.s, under + 1);
        str_printf(&s, digits > 1 ? "{%s}" : "%s", index);
        if (!plain) str_add(&s, sub.s, sub.n);
        Value v = symbol_value((Text){s.s, s.n}, point);
        str_free(&s);
        return v;
    }
    return symbol_value(name, point);
}

// The value of a sum or product. A finite one over whole numbers is carried out; any other is taken for some function
// of its term at a pseudo-random place and of its ends, so that equal sums have equal values.
static Value sum_value(Comparison *cmp, const Node *a, const Point *point) {
    bool product = text_is(a->name, "prod");
    Value from = math_value(cmp, a->arg[1], point), to = math_value(cmp, a->arg[2], point), v = value_int(product);
    Point inner = *point;
    inner.bound = a->arg[0]->name;
    inner.outer = point;
    if (value_is_int(from) && value_is_int(to) && to.re - from.re < 2000) {
        for (long double k = from.re; k <= to.re && !v.bad; k++) {
            inner.at = value_int((int64_t)k);
            Value term = math_value(cmp, a->arg[3], &inner);
            v = product ? value_mul(v, term) : value_add(v, term);
        }
        return v;
    }
    inner.at = symbol_value(text_of("k"), &(Point){.trial = point->trial}); // the same for every name of the variable
    Value part[3] = {math_value(cmp, a->arg[3], &inner), from, to};
    bool endless = a->arg[2]->kind == NODE_CONST && a->arg[2]->constant == CONST_INFINITY;
    if (endless) part[2] = value_int(0);
    return unknown_function(endless ? text_of("endless") : a->name, part, 3, point->trial);
}

// Gaussian elimination with the largest pivot.
static Value determinant(Value *m, int n) {
    Value det = value_int(1);
    for (int c = 0; c < n; c++) {
        int pivot = c;
        for (int r = c; r < n; r++) {
            if (m[r * n + c].bad) return value_bad();
            if (fabsl(m[r * n + c].re) + fabsl(m[r * n + c].im) >
                fabsl(m[pivot * n + c].re) + fabsl(m[pivot * n + c].im))
                pivot = r;
        }
        if (is_zero(m[pivot * n + c])) return value_int(0);
        if (pivot != c) det = value_neg(det);
        for (int k = 0; pivot != c && k < n; k++) {
            Value t = m[pivot * n + k];
            m[pivot * n + k] = m[c * n + k];
            m[c * n + k] = t;
        }
        det = value_mul(det, m[c * n + c]);
        for (int r = c + 1; r < n; r++) {
            Value f = value_neg(value_div(m[r * n + c], m[c * n + c]));
            for (int k = c; k < n; k++) m[r * n + k] = value_add(m[r * n + k], value_mul(f, m[c * n + k]));
        }
    }
    return det;
}

static Value function_value(Comparison *cmp, const Node *a, const Point *point) {
    enum { MAX_ARGS = 16, MAX_MATRIX = 12 };
    Value arg[MAX_MATRIX * MAX_MATRIX];
    if (text_is(a->name, "det")) {
        const Node *m = a->arg[0];
        if (m->kind != NODE_MATRIX || m->rows > MAX_MATRIX || m->n != m->rows * m->rows) return value_bad();
        for (int i = 0; i < m->n; i++) arg[i] = math_value(cmp, m->arg[i], point);
        return determinant(arg, m->rows);
    }
    if (a->n < 1 || a->n > MAX_ARGS) return value_bad();
    for (int i = 0; i < a->n; i++) arg[i] = math_value(cmp, a->arg[i], point);
    return apply(a->name, arg, a->n, point->trial);
}

// Far from zero, where large terms cancel almost wholly, what is left would be their rounding: undefined.
static Value sum_of_terms(Comparison *cmp, const Node *a, const Point *point) {
    Value v = math_value(cmp, a->arg[0], point);
    long double largest = size_of(v);
    for (int i = 1; i < a->n && !v.bad; i++) {
        Value w = math_value(cmp, a->arg[i], point);
        largest = fmaxl(largest, size_of(w));
        v = value_add(v, w);
    }
    bool far = point->scale || point->near;
    return far && !v.exact && size_of(v) < 1e-5L * largest ? value_bad() : v;
}

static Value node_value(Comparison *cmp, const Node *a, const Point *point) {
    const Point *binds;
    Value v;
    switch (a->kind) {
    case NODE_NUMBER: return a->value;
    case NODE_SYMBOL: return (binds = binding(point, a->name)) ? binds->at : indexed_value(a->name, point);
    case NODE_CONST: return constant_value(a->constant);
    case NODE_ADD: return sum_of_terms(cmp, a, point);
    case NODE_MUL:
        v = math_value(cmp, a->arg[0], point);
        for (int i = 1; i < a->n && !v.bad; i++) v = value_mul(v, math_value(cmp, a->arg[i], point));
        return v;
    case NODE_POW: return value_pow(math_value(cmp, a->arg[0], point), math_value(cmp, a->arg[1], point));
    case NODE_FUNC: return function_value(cmp, a, point);
    case NODE_SUM: return sum_value(cmp, a, point);
    default: return value_bad();
    }
}

Value math_value(Comparison *cmp, const Node *a, const Point *point) {
    if (cmp->steps-- <= 0) return value_bad();
    Value v = node_value(cmp, a, point);
    if (!v.bad) cmp->largest = fmaxl(cmp->largest, size_of(v));
    return v;
}
