// LaTeX mathematics -> a tree: symbols, numbers, groups, functions, fractions, matrices; and the way in.
#include "math_lex.h"
#include <utf8proc.h>

static Node *function(Pool *pool, const char *name, Node *a) {
    return node_named(pool, NODE_FUNC, text_of(name), 1, (Node *[]){a});
}

// ---- symbols --------------------------------------------------------------------------------------------------------

// A symbol's name in small letters; pi is the number.
static Node *symbol(Pool *pool, Text name) {
    if (name.n > 0 && name.s[0] == '\\') name = text_from(name, 1);
    Str small = {0};
    for (size_t at = 0; at < name.n;) {
        uint32_t c;
        utf8proc_uint8_t bytes[4];
        at += text_char(name, at, &c);
        str_add(&small, (char *)bytes, (size_t)utf8proc_encode_char(utf8proc_tolower((utf8proc_int32_t)c), bytes));
    }
    Text kept = small.n ? pool_text(pool, (Text){small.s, small.n}) : (Text){"", 0};
    str_free(&small);
    if (text_is(name, "pi") || text_is(name, "π")) return node_const(pool, CONST_PI);
    return node_named(pool, NODE_SYMBOL, kept, 0, NULL);
}

// The name that \vec{...}, \text{...} and their like give.
static Text accent_name(Pool *pool, Text whole) {
    size_t open = text_find(whole, 0, text_of("{"));
    Text command = text_strip(text_slice(whole, 1, open)), inner = text_slice(whole, open + 1, whole.n - 1);
    bool text = text_find(command, 0, text_of("text")) != TEXT_NONE || text_is(command, "mbox");
    const char *kind = NULL;
    if (text_is(command, "overline")) kind = "bar";
    else if (text_is(command, "overrightarrow")) kind = "vec";
    else if (text_is(command, "widetilde")) kind = "tilde";
    else if (text_find(command, 0, text_of("math")) != TEXT_NONE) kind = "math";
    Str name = {0};
    if (!text) {
        if (kind) str_puts(&name, kind);
        else str_add(&name, command.s, command.n);
        str_puts(&name, "{");
    }
    for (size_t i = 0; i < inner.n; i++)
        if (inner.s[i] != ' ' && !(text && (inner.s[i] == '(' || inner.s[i] == ')'))) str_add(&name, inner.s + i, 1);
    if (!text) str_puts(&name, "}");
    Text kept = name.n ? text_strip(pool_text(pool, (Text){name.s, name.n})) : (Text){"", 0};
    str_free(&name);
    return kept;
}

// {a}, or {a, b} where `many`: the last of them; NULL, and nothing read, where that is not what stands here. Within
// braces every script belongs to the atom before it.
static Node *parse_braced(Parser *p, bool many) {
    int start = p->at;
    bool subscript = p->leave_subscript, superscript = p->leave_superscript;
    if (!accept(p, T_LBRACE)) return NULL;
    p->leave_subscript = p->leave_superscript = false;
    Node *a;
    do a = parse_expr(p);
    while (a && many && accept(p, T_COMMA));
    p->leave_subscript = subscript;
    p->leave_superscript = superscript;
    return a && accept(p, T_RBRACE) ? a : fail_at(p, start);
}

static const Text no_subscript = {NULL, TEXT_NONE};

// _a or _{a, b}: the tokens' text, or nothing of length TEXT_NONE where there is no subscript.
static Text parse_subscript(Parser *p) {
    int start = p->at;
    if (!accept(p, T_UNDERSCORE)) return no_subscript;
    bool braces = peek(p) == T_LBRACE;
    if (!(braces ? parse_braced(p, true) : parse_atom(p))) return p->at = start, no_subscript;
    int from = start + 1 + braces, to = p->at - braces;
    Str s = {0};
    for (int i = from; i < to; i++) str_add(&s, p->token[i].text.s, p->token[i].text.n);
    Text kept = pool_text(p->pool, (Text){s.s, s.n});
    str_free(&s);
    return kept;
}

// ^a or ^{a}
static Node *parse_superscript(Parser *p) {
    int start = p->at;
    if (!accept(p, T_CARET)) return NULL;
    bool braces = peek(p) == T_LBRACE;
    Node *a = braces ? parse_braced(p, false) : parse_atom(p);
    if (!a) return fail_at(p, start);
    if (!braces) a->in_base = NULL; // what may be meant for \log in \log^2_3 x is no base
    return a;
}

Node *parse_exponent(Parser *p) {
    Node *a = parse_superscript(p);
    if (a) parse_subscript(p);
    return a;
}

static Text with_subscript(Pool *pool, Text name, Text sub) {
    if (sub.n == TEXT_NONE) return name;
    Str s = {0};
    str_add(&s, name.s, name.n);
    str_printf(&s, text_length(sub) > 1 ? "_{%.*s}" : "_%.*s", (int)sub.n, sub.s);
    Text kept = pool_text(pool, (Text){s.s, s.n});
    str_free(&s);
    return kept;
}

// A letter, Greek letter or adorned thing, with a subscript and (where asked for) a superscript, in either order.
Node *parse_atom_expr(Parser *p, bool superscript) {
    TokenKind k = peek(p);
    if (k != T_LETTER && k != T_GREEK && k != T_ACCENT) return NULL;
    const Token *t = &p->token[p->at++];
    if (k == T_LETTER && t->text.s[0] == 'I') return node_const(p->pool, CONST_I);
    Text name = k == T_ACCENT ? accent_name(p->pool, t->text) : t->name;
    bool sub_left = p->leave_subscript, power_left = p->leave_superscript;
    superscript &= !power_left;
    p->leave_superscript |= superscript;
    Text sub = sub_left ? no_subscript : parse_subscript(p);
    p->leave_superscript = power_left;
    p->leave_subscript |= sub.n == TEXT_NONE;
    Node *power = superscript ? parse_superscript(p) : NULL;
    p->leave_subscript = sub_left;
    if (power && sub.n == TEXT_NONE && !sub_left) sub = parse_subscript(p);
    Node *a = symbol(p->pool, with_subscript(p->pool, name, sub));
    return power ? node_2(p->pool, NODE_POW, a, power) : a;
}

// 1.5E-3
static Node *scientific(Pool *pool, const Token *t) {
    Text exponent = text_from(t->text, t->name.n + 1);
    bool minus = exponent.s[0] == '-';
    int64_t e = 0;
    for (size_t i = minus || exponent.s[0] == '+'; i < exponent.n && e < 100000; i++) e = e * 10 + exponent.s[i] - '0';
    Value scale = value_pow(value_int(10), value_int(minus ? -e : e));
    return node_number(pool, NUMBER_FLOAT, value_mul(value_decimal(t->name), scale));
}

// The base that a number's subscript names, 2 to 36, in digits or as a word; 0 where it names none.
static int base_of(Text sub) {
    static const char *const word[] = {"two", "three",  "four",   "five",     "six",      "seven",   "eight",  "nine",
                                       "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"};
    if (sub.n == TEXT_NONE) return 0;
    while (sub.n && (sub.s[0] == '(' || sub.s[0] == ' ')) sub = text_from(sub, 1);
    while (sub.n && (sub.s[sub.n - 1] == ')' || sub.s[sub.n - 1] == ' ')) sub.n--;
    if (text_word_at(sub, 0, "\\text{") && sub.s[sub.n - 1] == '}') sub = text_strip(text_slice(sub, 6, sub.n - 1));
    if (text_word_at(sub, 0, "base")) sub = text_strip(text_from(sub, 4));
    for (size_t i = 0; i < sizeof word / sizeof *word; i++)
        if (text_is(sub, word[i])) return (int)i + 2;
    int base = 0;
    for (size_t i = 0; i < sub.n; i++) {
        if (!is_ascii_digit(sub.s[i]) || i == 2) return 0;
        base = base * 10 + sub.s[i] - '0';
    }
    return base >= 2 && base <= 36 ? base : 0;
}

// Digits, and a base that counts only where gold and prediction both name one.
static Node *parse_number(Parser *p) {
    Text digits = p->token[p->at++].name;
    Node *a = node_digits(p->pool, digits);
    int base = p->leave_subscript ? 0 : base_of(parse_subscript(p));
    if (!base) return a;
    Value v = value_in_base(digits, base);
    if (!v.bad) a->in_base = node_number(p->pool, a->number, v);
    else { // no number: equal only to the same digits with the same base
        Str s = {0};
        str_printf(&s, "%.*s_%d", (int)digits.n, digits.s, base);
        a->in_base = node_named(p->pool, NODE_SYMBOL, pool_text(p->pool, (Text){s.s, s.n}), 0, NULL);
        str_free(&s);
    }
    return a;
}

Node *parse_atom(Parser *p) {
    const Token *t = &p->token[p->at];
    switch (t->kind) {
    case T_LETTER:
    case T_GREEK:
    case T_ACCENT: {
        if (p->depth == MATH_MAX_DEPTH) return NULL;
        p->depth++;
        Node *a = parse_atom_expr(p, true);
        p->depth--;
        return a;
    }
    case T_NUMBER: return parse_number(p);
    case T_PERCENT: return p->at++, node_percent(p->pool, node_digits(p->pool, t->name));
    case T_NUMBER_E: return p->at++, scientific(p->pool, t);
    case T_CAPITAL_E: return p->at++, symbol(p->pool, t->name);
    case T_INFINITY: return p->at++, node_const(p->pool, CONST_INFINITY);
    case T_DIFFERENTIAL: {
        Str s = {0};
        str_printf(&s, "d%.*s", (int)t->name.n, t->name.s);
        Node *a = node_named(p->pool, NODE_SYMBOL, pool_text(p->pool, (Text){s.s, s.n}), 0, NULL);
        str_free(&s);
        return p->at++, a;
    }
    case T_FUNC: return text_is(t->name, "gamma") ? (p->at++, symbol(p->pool, t->name)) : NULL;
    default: return NULL;
    }
}

// ---- functions ------------------------------------------------------------------------------------------------------

static Node *with_power(Pool *pool, Node *a, Node *power) { return power ? node_2(pool, NODE_POW, a, power) : a; }

// sin^{-1} is the inverse.
static Node *known_function(Pool *pool, Text name, Node *base, Node *power, Node *a) {
    static const char *const inverse[][2] = {{"sin", "asin"},   {"cos", "acos"},   {"tan", "atan"},
                                             {"csc", "acsc"},   {"sec", "asec"},   {"cot", "acot"},
                                             {"sinh", "asinh"}, {"cosh", "acosh"}, {"tanh", "atanh"}};
    if (text_is(name, "log") || text_is(name, "ln")) {
        if (!base) base = text_is(name, "ln") ? node_const(pool, CONST_E) : node_int(pool, 10);
        return with_power(pool, node_named(pool, NODE_FUNC, text_of("log"), 2, (Node *[]){a, base}), power);
    }
    bool minus_one = power && power->kind == NODE_NUMBER && value_equal(power->value, value_int(-1));
    for (size_t i = 0; minus_one && i < sizeof inverse / sizeof *inverse; i++)
        if (text_is(name, inverse[i][0])) return function(pool, inverse[i][1], a);
    return with_power(pool, node_named(pool, NODE_FUNC, name, 1, &a), power);
}

// _{...} as an expression: the base of a logarithm.
static Node *parse_base(Parser *p) {
    int start = p->at;
    if (!accept(p, T_UNDERSCORE)) return NULL;
    Node *a = peek(p) == T_LBRACE ? parse_braced(p, false) : parse_atom(p);
    return a ? a : fail_at(p, start);
}

static Node *parse_parenthesized(Parser *p) {
    int start = p->at;
    if (!accept(p, T_LPAREN)) return NULL;
    Node *a = parse_expr(p);
    return a && accept(p, T_RPAREN) ? a : fail_at(p, start);
}

// e^a; e^{\ln x} is x.
static Node *exponential(Pool *pool, Node *a) {
    bool log = a->kind == NODE_FUNC && a->n == 2 && text_is(a->name, "log");
    if (log && a->arg[1]->kind == NODE_CONST && a->arg[1]->constant == CONST_E) return a->arg[0];
    return function(pool, "exp", a);
}

enum { MAX_ARGS = 16 };

// (a, b, ...): how many, or 0.
static int parse_arguments(Parser *p, Node **arg) {
    int start = p->at, n = 0;
    if (!accept(p, T_LPAREN)) return 0;
    do {
        Node *a = parse_expr(p);
        if (!a || n == MAX_ARGS) return p->at = start, 0;
        arg[n++] = a;
    } while (accept(p, T_COMMA));
    return accept(p, T_RPAREN) ? n : (p->at = start, 0);
}

// What follows the name in \max(a, b).
static Node *parse_function_of_many(Parser *p, int start, Text name) {
    Node *arg[MAX_ARGS], *power = parse_superscript(p);
    int n = parse_arguments(p, arg);
    if (n == 0) return fail_at(p, start);
    return with_power(p->pool, node_named(p->pool, NODE_FUNC, name, n, arg), power);
}

// \sin^2 x, \log_2(8), \operatorname{floor}(x), \operatorname{gcd}(a, b)
static Node *parse_function(Parser *p) {
    int start = p->at;
    Text name = p->token[p->at++].name;
    if (p->token[start].kind == T_OPERATORNAME) {
        if (!accept(p, T_LBRACE) || peek(p) != T_KEYWORD) return fail_at(p, start);
        name = p->token[p->at++].name;
        if (!accept(p, T_RBRACE)) return fail_at(p, start);
        if (text_is(name, "gcd") || text_is(name, "lcm")) return parse_function_of_many(p, start, name);
    }
    Node *base = parse_base(p), *power = parse_superscript(p);
    if (!base) base = parse_base(p);
    Node *a = parse_parenthesized(p);
    if (!a) a = parse_products(p, false);
    if (!a) return fail_at(p, start);
    return known_function(p->pool, name, base, power, a);
}

// f(x), f^2(x, y): a letter before parentheses that hold one atom or several things is a function.
static Node *parse_own_function(Parser *p) {
    int start = p->at, n = 0;
    Node *f = parse_atom_expr(p, false), *arg[MAX_ARGS];
    if (!f || f->kind != NODE_SYMBOL) return fail_at(p, start);
    Node *power = parse_superscript(p);
    if (!accept(p, T_LPAREN)) return fail_at(p, start);
    int inner = p->at;
    if ((arg[0] = parse_atom(p)) && peek(p) == T_RPAREN) n = 1;
    else {
        p->at = inner;
        while (n < MAX_ARGS && (arg[n] = parse_expr(p))) {
            n++;
            if (!accept(p, T_COMMA)) break;
            if (n == 1 && peek(p) == T_RPAREN) break; // f(x + 1,)
        }
        bool several = n > 1 || (n == 1 && p->token[p->at - 1].kind == T_COMMA);
        if (!several) return fail_at(p, start);
    }
    if (!accept(p, T_RPAREN)) return fail_at(p, start);
    Str name = {0};
    str_printf(&name, "%.*s()", (int)f->name.n, f->name.s);
    Node *a = node_named(p->pool, NODE_FUNC, pool_text(p->pool, (Text){name.s, name.n}), n, arg);
    str_free(&name);
    return with_power(p->pool, a, power);
}

// \sqrt[n]{x}
static Node *parse_root(Parser *p) {
    int start = p->at++;
    Node *n = NULL;
    if (accept(p, T_LBRACKET) && (!(n = parse_expr(p)) || !accept(p, T_RBRACKET))) return fail_at(p, start);
    if (!accept(p, T_LBRACE)) return fail_at(p, start);
    Node *a = parse_expr(p), *one = node_int(p->pool, 1);
    if (!a || !accept(p, T_RBRACE)) return fail_at(p, start);
    return node_2(p->pool, NODE_POW, a, node_quotient(p->pool, one, n ? n : node_int(p->pool, 2)));
}

// \sum_{k=1}^{n} term
static Node *parse_sum(Parser *p) {
    int start = p->at;
    Text name = p->token[p->at++].name;
    Node *part[4] = {0};
    for (int round = 0; round < 2; round++) {
        if (!part[2]) part[2] = parse_superscript(p);
        if (part[0] || !accept(p, T_UNDERSCORE)) continue;
        if (!accept(p, T_LBRACE) || !(part[0] = parse_expr(p)) || !accept(p, T_ASSIGN) || !(part[1] = parse_expr(p)) ||
            !accept(p, T_RBRACE))
            return fail_at(p, start);
    }
    if (!part[0] || !part[2] || part[0]->kind != NODE_SYMBOL || !(part[3] = parse_products(p, true)))
        return fail_at(p, start);
    return node_named(p->pool, NODE_SUM, name, 4, part);
}

// ---- groups ---------------------------------------------------------------------------------------------------------

static Node *parse_enclosed(Parser *p, TokenKind open, TokenKind close) {
    int start = p->at;
    if (!accept(p, open)) return NULL;
    Node *a = parse_expr(p);
    return a && accept(p, close) ? a : fail_at(p, start);
}

// Makes the binomial coefficient of n and k: of two whole numbers a whole number, whose percentage has digits.
static Node *binomial(Parser *p, Node *n, Node *k) {
    Value v = n->kind == NODE_NUMBER && k->kind == NODE_NUMBER ? value_binomial(n->value, k->value) : value_bad();
    return value_is_int(v) ? node_int(p->pool, (int64_t)v.re)
                           : node_named(p->pool, NODE_FUNC, text_of("binomial"), 2, (Node *[]){n, k});
}

// {a}, or {n \choose k}
static Node *parse_braces(Parser *p) {
    int start = p->at;
    if (!accept(p, T_LBRACE)) return NULL;
    Node *a = parse_expr(p), *b;
    if (a && accept(p, T_RBRACE)) return a;
    if (!a || !accept(p, T_CHOOSE) || !(b = parse_expr(p)) || !accept(p, T_RBRACE)) return fail_at(p, start);
    return binomial(p, a, b);
}

// \frac{a}{b}, \binom{a}{b}
static Node *parse_two(Parser *p) {
    int start = p->at;
    bool fraction = p->token[p->at++].kind == T_FRAC;
    Node *a = parse_enclosed(p, T_LBRACE, T_RBRACE), *b = a ? parse_enclosed(p, T_LBRACE, T_RBRACE) : NULL;
    if (!b) return fail_at(p, start);
    if (fraction) return node_quotient(p->pool, a, b);
    return binomial(p, a, b);
}

static Node *parse_matrix(Parser *p, TokenKind end) {
    enum { MAX_ELEMENTS = 400 };
    Node *element[MAX_ELEMENTS];
    int start = p->at++, n = 0, rows = 0, columns = 0;
    do {
        int in_row = 0;
        if (rows > 0 && peek(p) == end) break; // the last row may end like the others
        do {
            if (n == MAX_ELEMENTS || !(element[n] = parse_expr(p))) return fail_at(p, start);
            n++, in_row++;
        } while (accept(p, T_COLUMN));
        if (rows++ > 0 && in_row != columns) return fail_at(p, start);
        columns = in_row;
    } while (accept(p, T_ROW));
    if (!accept(p, end)) return fail_at(p, start);
    Node *m = node_new(p->pool, NODE_MATRIX, n, element);
    m->rows = rows;
    return end == T_DET_END ? function(p->pool, "det", m) : m;
}

// The length of a vector.
static Node *norm(Pool *pool, Node *a) {
    if (a->kind != NODE_MATRIX) return node_const(pool, CONST_NOTHING);
    Node *sum = node_int(pool, 0), *two = node_int(pool, 2);
    for (int i = 0; i < a->n; i++)
        sum = node_flat(pool, NODE_ADD, sum, node_2(pool, NODE_POW, function(pool, "abs", a->arg[i]), two));
    return node_2(pool, NODE_POW, sum, node_quotient(pool, node_int(pool, 1), two));
}

static Node *parse_group(Parser *p) {
    static const struct {
        TokenKind open, close;
        const char *function;
    } groups[] = {{T_LPAREN, T_RPAREN, NULL},    {T_LBRACKET, T_RBRACKET, NULL}, {T_LBRACE_SHOWN, T_RBRACE_SHOWN, NULL},
                  {T_BAR, T_BAR, "abs"},         {T_LVERT, T_RVERT, "abs"},      {T_VERT, T_VERT, "abs"},
                  {T_LFLOOR, T_RFLOOR, "floor"}, {T_LCEIL, T_RCEIL, "ceil"},     {T_NORM, T_NORM, "norm"}};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (peek(p) != groups[i].open) continue;
        Node *a = parse_enclosed(p, groups[i].open, groups[i].close);
        if (!a || !groups[i].function) return a;
        if (groups[i].open == T_NORM) return norm(p->pool, a);
        return function(p->pool, groups[i].function, a);
    }
    return NULL;
}

static Node *run_primary(Parser *p, bool functions) {
    Node *a;
    switch (peek(p)) {
    case T_LBRACE: return parse_braces(p);
    case T_BOXED:
    case T_PHANTOM: {
        int start = p->at++;
        a = parse_enclosed(p, T_LBRACE, T_RBRACE);
        return a ? a : fail_at(p, start);
    }
    case T_FUNC:
        if (functions && (a = parse_function(p))) return a;
        return parse_atom(p);
    case T_OPERATORNAME: return functions ? parse_function(p) : NULL;
    case T_FUNCS:
        if (!functions) return NULL;
        p->at++;
        return parse_function_of_many(p, p->at - 1, p->token[p->at - 1].name);
    case T_SQRT: return functions ? parse_root(p) : NULL;
    case T_SUM:
    case T_PROD: return functions ? parse_sum(p) : NULL;
    case T_E:
        if (!functions) return NULL;
        p->at++;
        a = parse_exponent(p);
        return a ? exponential(p->pool, a) : node_const(p->pool, CONST_E);
    case T_LETTER:
    case T_GREEK:
    case T_ACCENT:
        if (functions && (a = parse_own_function(p))) return a;
        return parse_atom(p);
    case T_FRAC:
    case T_BINOM: return parse_two(p);
    case T_MATRIX_BEGIN: return parse_matrix(p, T_MATRIX_END);
    case T_DET_BEGIN: return parse_matrix(p, T_DET_END);
    default: a = parse_group(p); return a ? a : parse_atom(p);
    }
}

Node *parse_primary(Parser *p, bool functions) {
    if (p->depth == MATH_MAX_DEPTH) return NULL;
    p->depth++;
    Node *a = run_primary(p, functions);
    p->depth--;
    return a;
}

// ---- the way in -----------------------------------------------------------------------------------------------------

static Node *parse(Pool *pool, Text latex) {
    Parser p = {.pool = pool};
    p.token = math_lex(pool, latex, &p.n);
    if (!p.token) return NULL;
    for (int i = 0; i < RULES; i++) p.memo[i] = pool_take(pool, (size_t)p.n * sizeof *p.memo[i]);
    return parse_whole(&p, latex);
}

Node *math_parse_latex(Pool *pool, Text latex) {
    if (latex.n == 0 || latex.n > MATH_MAX_TEXT) return NULL;
    Node *a = parse(pool, latex);
    Text last = math_last_equation(latex);
    return a || last.n == latex.n ? a : last.n ? parse(pool, last) : NULL;
}
