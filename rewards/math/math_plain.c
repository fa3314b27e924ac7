// Parsing arithmetic outside of LaTeX: digits, + - * / ^ ( ), with Python's precedence.
#include "verify.h"
#include <ctype.h>

typedef struct {
    Pool *pool;
    Text t;
    size_t at;
    int depth;
} Plain;

static char plain_peek(Plain *p) {
    p->at = text_skip_space(p->t, p->at);
    return p->at < p->t.n ? p->t.s[p->at] : 0;
}

static Node *plain_sum(Plain *p);

static Node *plain_number(Plain *p) {
    size_t from = p->at, points = 0;
    while (p->at < p->t.n && (isdigit((unsigned char)p->t.s[p->at]) || p->t.s[p->at] == '.'))
        points += p->t.s[p->at++] == '.';
    Text digits = text_slice(p->t, from, p->at);
    if (digits.n == points || points > 1) return NULL;
    if (points == 0 && digits.s[0] == '0' && strspn(digits.s, "0") < digits.n) return NULL; // as Python, no 007
    return node_digits(p->pool, digits);
}

// Parses a number or parentheses, with a sign before and a power behind.
static Node *plain_factor(Plain *p) {
    enum { MAX_DEPTH = 100 };
    Node *a = NULL;
    char c = plain_peek(p);
    if (p->depth == MAX_DEPTH) return NULL;
    p->depth++;
    if (c == '-' || c == '+') {
        p->at++;
        if ((a = plain_factor(p)) && c == '-') a = node_negate(p->pool, a);
        return p->depth--, a;
    }
    if (c == '(') {
        p->at++;
        a = plain_sum(p);
        if (a && plain_peek(p) != ')') a = NULL;
        p->at++;
    } else a = plain_number(p);
    bool power = a && (plain_peek(p) == '^' || (plain_peek(p) == '*' && text_at(p->t, p->at, text_of("**"))));
    if (power) {
        p->at += p->t.s[p->at] == '*' ? 2 : 1;
        Node *exponent = plain_factor(p);
        a = exponent ? node_2(p->pool, NODE_POW, a, exponent) : NULL;
    }
    return p->depth--, a;
}

static Node *plain_product(Plain *p) {
    Node *a = plain_factor(p);
    for (char c; a && ((c = plain_peek(p)) == '*' || c == '/');) {
        p->at++;
        Node *b = plain_factor(p);
        if (!b) return NULL;
        if (c == '/') b = node_2(p->pool, NODE_POW, b, node_int(p->pool, -1));
        a = node_flat(p->pool, NODE_MUL, a, b);
    }
    return a;
}

static Node *plain_sum(Plain *p) {
    Node *a = plain_product(p);
    for (char c; a && ((c = plain_peek(p)) == '+' || c == '-');) {
        p->at++;
        Node *b = plain_product(p);
        if (!b) return NULL;
        a = node_flat(p->pool, NODE_ADD, a, c == '-' ? node_negate(p->pool, b) : b);
    }
    return a;
}

Node *math_parse_expr(Pool *pool, Text expr) {
    if (expr.n > MATH_MAX_TEXT) return NULL;
    Plain p = {.pool = pool, .t = expr};
    Node *a = plain_sum(&p);
    return a && plain_peek(&p) == 0 && p.at == expr.n ? a : NULL;
}
