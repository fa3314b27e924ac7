// Parsing LaTeX mathematics into a tree: operators, relations, sets. The grammar is latex2sympy's; where it is
// ambiguous the first alternative that fits the whole wins, as there.
#include "math_lex.h"
#include <math.h>

static Node *nothing(Parser *p) { return node_const(p->pool, CONST_NOTHING); }

// Runs a rule, or returns what it returned at this token before.
static Node *remembered(Parser *p, int rule, ParseRule *run) {
    struct Memo *m = &p->memo[rule][p->at];
    if (!m->known) {
        if (p->depth == MATH_MAX_DEPTH) return NULL;
        int start = p->at;
        p->depth++;
        Node *a = run(p);
        p->depth--;
        *m = (struct Memo){true, p->at, a};
        p->at = start;
    }
    if (m->node) p->at = m->end;
    return m->node;
}

// ---- lists in the making --------------------------------------------------------------------------------------------

typedef struct {
    Node **item;
    int n, cap;
} List;

static void list_add(Pool *pool, List *l, Node *a) {
    if (l->n == l->cap) {
        Node **old = l->item;
        l->cap = l->cap ? l->cap * 2 : 8;
        l->item = pool_take(pool, (size_t)l->cap * sizeof *l->item);
        if (l->n) memcpy(l->item, old, (size_t)l->n * sizeof *old);
    }
    l->item[l->n++] = a;
}

// ---- expressions ----------------------------------------------------------------------------------------------------

static bool is_matrix(const Node *a) { return a->kind == NODE_MATRIX; }

// Parses a primary and its powers, which associate to the left: x^a^b is (x^a)^b, but for a letter's own superscript.
static Node *parse_power(Parser *p, bool functions) {
    Node *base = parse_primary(p, functions);
    for (Node *exponent; base && (exponent = parse_exponent(p));) base = node_2(p->pool, NODE_POW, base, exponent);
    return base;
}

static Node *transposed(Pool *pool, Node *a) {
    if (!is_matrix(a)) return a;
    Node *t = node_new(pool, NODE_MATRIX, a->n, a->arg);
    t->rows = a->n / a->rows;
    for (int r = 0; r < t->rows; r++)
        for (int c = 0; c < a->rows; c++) t->arg[r * a->rows + c] = a->arg[c * t->rows + r];
    return t;
}

static Node *parse_postfix(Parser *p, bool functions) {
    Node *a = parse_power(p, functions);
    while (a) {
        if (accept(p, T_BANG)) a = node_named(p->pool, NODE_FUNC, text_of("factorial"), 1, (Node *[]){a});
        else if (accept(p, T_TRANSPOSE)) a = transposed(p->pool, a);
        else if (!accept(p, T_DEGREE)) break; // an angle's degrees are left out
    }
    return a;
}

// Two things side by side: a product; but an integer before a positive fraction is a mixed number.
static Node *juxtapose(Pool *pool, Node *a, Node *b) {
    if (a->kind == NODE_NUMBER && a->number == NUMBER_INT && b->kind == NODE_NUMBER && b->number != NUMBER_FLOAT &&
        b->value.re > 0) {
        Value v = value_add(a->value, a->value.re < 0 ? value_neg(b->value) : b->value);
        if (b->number == NUMBER_INT && value_is_int(v)) return node_int(pool, (int64_t)v.re);
        return node_number(pool, b->number, v);
    }
    return node_flat(pool, NODE_MUL, a, b);
}

static Node *parse_side_by_side(Parser *p, bool functions) {
    List l = {0};
    for (Node *a; (a = parse_postfix(p, functions || l.n == 0));) list_add(p->pool, &l, a);
    if (l.n == 0) return NULL;
    Node *product = l.item[l.n - 1];
    for (int i = l.n - 2; i >= 0; i--) product = juxtapose(p->pool, l.item[i], product);
    return product;
}

Node *parse_unary(Parser *p, bool functions) {
    int start = p->at, minuses = 0, signs = 0;
    for (; peek(p) == T_ADD || peek(p) == T_SUB; signs++) minuses += p->token[p->at++].kind == T_SUB;
    Node *a = signs < MATH_MAX_DEPTH ? parse_side_by_side(p, functions) : NULL;
    if (!a) return fail_at(p, start);
    for (; minuses > 0; minuses--) a = node_negate(p->pool, a);
    return a;
}

Node *parse_products(Parser *p, bool functions) {
    Node *a = parse_unary(p, functions);
    while (a && (peek(p) == T_MUL || peek(p) == T_DIV || peek(p) == T_MOD)) {
        TokenKind op = peek(p);
        int start = p->at++;
        Node *b = parse_unary(p, functions);
        if (!b) {
            p->at = start;
            break;
        }
        if (op == T_MUL) a = node_flat(p->pool, NODE_MUL, a, b);
        else if (op == T_DIV) a = node_quotient(p->pool, a, b);
        else a = node_named(p->pool, NODE_FUNC, text_of("mod"), 2, (Node *[]){a, b});
    }
    return a;
}

static Node *run_expr(Parser *p) {
    Node *a = parse_products(p, true);
    while (a && (peek(p) == T_ADD || peek(p) == T_SUB)) {
        bool minus = peek(p) == T_SUB;
        int start = p->at++;
        Node *b = parse_products(p, true);
        if (!b) {
            p->at = start;
            break;
        }
        a = node_flat(p->pool, NODE_ADD, a, minus ? node_negate(p->pool, b) : b);
    }
    return a;
}

Node *parse_expr(Parser *p) { return remembered(p, RULE_EXPR, run_expr); }

// ---- relations ------------------------------------------------------------------------------------------------------

static Node *relation(Pool *pool, Relation r, Node *a, Node *b) {
    enum { MAX_CHAIN = 100 };
    if (a->kind == NODE_AND && a->n == MAX_CHAIN) return node_const(pool, CONST_NOTHING);
    // In a chain a < b < c the last side is compared with the new one.
    Node *last = a->kind == NODE_AND ? a->arg[a->n - 1] : a;
    Node *now = node_2(pool, NODE_RELATION, last->kind == NODE_RELATION ? last->arg[1] : a, b);
    now->relation = r;
    if (a->kind != NODE_AND && a->kind != NODE_RELATION) return now;
    Node *one[1] = {a};
    Node *chain = node_new(pool, NODE_AND, a->kind == NODE_AND ? a->n : 1, a->kind == NODE_AND ? a->arg : one);
    List l = {chain->arg, chain->n, chain->n};
    list_add(pool, &l, now);
    return node_new(pool, NODE_AND, l.n, l.item);
}

static Node *parse_relation(Parser *p) {
    static const Relation meaning[] = {[T_ASSIGN - T_ASSIGN] = REL_EQ, [T_EQUAL - T_ASSIGN] = REL_EQ,
                                       [T_LT - T_ASSIGN] = REL_LT,     [T_LE - T_ASSIGN] = REL_LE,
                                       [T_GT - T_ASSIGN] = REL_GT,     [T_GE - T_ASSIGN] = REL_GE,
                                       [T_NE - T_ASSIGN] = REL_NE};
    Node *a = parse_expr(p);
    while (a && (peek(p) == T_IN || (peek(p) >= T_ASSIGN && peek(p) <= T_NE))) {
        TokenKind op = peek(p);
        int start = p->at++;
        Node *b = parse_expr(p);
        if (!b) {
            p->at = start;
            break;
        }
        if (op == T_IN) a = nothing(p); // membership in something that is no set
        else if (op != T_APPROX) a = relation(p->pool, meaning[op - T_ASSIGN], a, b);
        else if (node_only_symbols(a)) a = b; // of "x = about ..." the number, of other approximations what is exact
    }
    return a;
}

// ---- sets -----------------------------------------------------------------------------------------------------------

static Node *parse_set_atom(Parser *p);

// expr +- expr, or +- expr: both values.
static bool parse_plus_minus(Parser *p, List *l) {
    int start = p->at;
    Node *a = peek(p) == T_PLUS_MINUS ? NULL : parse_expr(p), *b;
    if (!accept(p, T_PLUS_MINUS) || !(b = parse_expr(p))) {
        p->at = start;
        return false;
    }
    Node *minus = node_negate(p->pool, b);
    list_add(p->pool, l, a ? node_flat(p->pool, NODE_ADD, a, b) : minus);
    list_add(p->pool, l, a ? node_flat(p->pool, NODE_ADD, a, minus) : b);
    return true;
}

static bool ends_element(TokenKind k) {
    return k == T_END || k == T_COMMA || k == T_SEMICOLON || k == T_RPAREN || k == T_RPAREN_SHOWN || k == T_RBRACE ||
           k == T_RBRACE_SHOWN || k == T_RBRACKET;
}

static bool parse_element(Parser *p, bool relations, List *l) {
    int start = p->at;
    if (parse_plus_minus(p, l) && ends_element(peek(p))) return true;
    p->at = start;
    Node *a = parse_set_atom(p);
    if (!a || !ends_element(peek(p))) {
        p->at = start;
        a = relations ? parse_relation(p) : parse_expr(p);
    }
    if (a) list_add(p->pool, l, a);
    return a;
}

// Elements between commas, and groups of them between semicolons: a NODE_SET of NODE_TUPLEs.
static Node *parse_groups(Parser *p, bool relations) {
    int start = p->at;
    List groups = {0};
    do {
        List l = {0};
        do
            if (!parse_element(p, relations, &l)) return fail_at(p, start);
        while (accept(p, T_COMMA));
        list_add(p->pool, &groups, node_new(p->pool, NODE_TUPLE, l.n, l.item));
    } while (accept(p, T_SEMICOLON));
    return node_new(p->pool, NODE_SET, groups.n, groups.item);
}

static Node *run_elements(Parser *p) { return parse_groups(p, true); }
static Node *parse_elements(Parser *p) { return remembered(p, RULE_ELEMENTS, run_elements); }

// One element is itself; others are a set, or, in groups, a set of tuples.
static Node *set_or_element(Pool *pool, const Node *groups) {
    List l = {0};
    bool single = true;
    for (int i = 0; i < groups->n; i++) single &= groups->arg[i]->n == 1;
    if (groups->n == 1) {
        const Node *only = groups->arg[0];
        return only->n == 1 ? only->arg[0] : node_set(pool, NODE_SET, only->n, only->arg);
    }
    for (int i = 0; i < groups->n; i++) list_add(pool, &l, single ? groups->arg[i]->arg[0] : groups->arg[i]);
    return node_set(pool, NODE_SET, l.n, l.item);
}

static Node *flattened(Pool *pool, NodeKind kind, const Node *groups) {
    List l = {0};
    for (int i = 0; i < groups->n; i++)
        for (int k = 0; k < groups->arg[i]->n; k++) list_add(pool, &l, groups->arg[i]->arg[k]);
    return node_set(pool, kind, l.n, l.item);
}

static bool is_real_number(const Node *a, long double *x) {
    Comparison cmp = {.steps = 1000};
    if (a->kind == NODE_CONST && a->constant == CONST_INFINITY) return *x = INFINITY, true;
    if (a->kind == NODE_MUL && a->n == 2 && a->arg[1]->kind == NODE_CONST && a->arg[1]->constant == CONST_INFINITY)
        return *x = -INFINITY, value_equal(a->arg[0]->value, value_int(-1));
    Text name[1];
    Value v = math_value(&cmp, a, &(Point){0});
    *x = v.re;
    return !v.bad && v.im == 0 && node_symbols(a, name, 0, 1) == 0;
}

// Whether it is a number that lies beside the real line.
static bool is_complex_number(const Node *a) {
    Comparison cmp = {.steps = 1000};
    Text name[1];
    Value v = math_value(&cmp, a, &(Point){0});
    return node_symbols(a, name, 0, 1) == 0 && !v.bad && fabsl(v.im) > 1e-15L;
}

// An interval; but one that would be empty was meant as a pair.
static Node *interval(Parser *p, Node *from, Node *to, bool left_open, bool right_open) {
    long double low, high;
    if (is_real_number(from, &low) && is_real_number(to, &high)) {
        if (left_open == right_open && (left_open ? high <= low : high < low))
            return node_2(p->pool, NODE_TUPLE, from, to);
        if (high == low && !left_open && !right_open) return node_set(p->pool, NODE_SET, 1, &from);
        if (high <= low) return node_named(p->pool, NODE_NAMED_SET, text_of("empty"), 0, NULL);
        left_open |= isinf(low);
        right_open |= isinf(high);
    } else if (is_complex_number(from) || is_complex_number(to)) return nothing(p);
    Node *a = node_2(p->pool, NODE_INTERVAL, from, to);
    a->left_open = left_open;
    a->right_open = right_open;
    return a;
}

static Node *parse_interval(Parser *p) {
    int start = p->at;
    TokenKind open = peek(p);
    Node *from, *to;
    if (open != T_LPAREN && open != T_LPAREN_SHOWN && open != T_LBRACKET) return NULL;
    p->at++;
    if (!(from = parse_expr(p)) || !accept(p, T_COMMA) || !(to = parse_expr(p))) return fail_at(p, start);
    TokenKind close = peek(p);
    if (close != T_RPAREN && close != T_RPAREN_SHOWN && close != T_RBRACKET) return fail_at(p, start);
    p->at++;
    return interval(p, from, to, open != T_LBRACKET, close != T_RBRACKET);
}

static Node *parse_bracketed(Parser *p) {
    int start = p->at;
    TokenKind open = peek(p), close;
    if (open == T_BOXED && p->token[p->at + 1].kind == T_LBRACE) p->at++, close = T_RBRACE;
    else if (open == T_LPAREN) close = T_RPAREN;
    else if (open == T_LPAREN_SHOWN) close = T_RPAREN_SHOWN;
    else if (open == T_LBRACKET) close = T_RBRACKET;
    else if (open == T_LBRACE) close = T_RBRACE;
    else if (open == T_LBRACE_SHOWN) close = T_RBRACE_SHOWN;
    else return NULL;
    p->at++;
    if (open == T_LBRACE && accept(p, close)) return node_named(p->pool, NODE_NAMED_SET, text_of("empty"), 0, NULL);
    Node *groups = parse_elements(p);
    if (!groups || !accept(p, close)) return fail_at(p, start);
    if (open == T_BOXED) return set_or_element(p->pool, groups);
    bool tuple = open == T_LPAREN || open == T_LPAREN_SHOWN || open == T_LBRACKET;
    if (tuple && groups->n == 1 && groups->arg[0]->n == 1) return groups->arg[0]->arg[0];
    return flattened(p->pool, tuple ? NODE_TUPLE : NODE_SET, groups);
}

static Node *run_set_atom(Parser *p) {
    if (peek(p) == T_NAMED_SET) return node_named(p->pool, NODE_NAMED_SET, p->token[p->at++].name, 0, NULL);
    Node *a = parse_interval(p);
    return a ? a : parse_bracketed(p);
}

static Node *parse_set_atom(Parser *p) { return remembered(p, RULE_SET_ATOM, run_set_atom); }

static Node *parse_set(Parser *p);

static Node *parse_set_group(Parser *p) {
    int start = p->at;
    if (accept(p, T_LPAREN)) {
        Node *a = parse_set(p);
        if (a && accept(p, T_RPAREN)) return a;
        p->at = start;
    }
    return parse_set_atom(p);
}

// A tuple as a set of its elements: so unions and the like take it.
static Node *as_set(Parser *p, Node *a) {
    if (a->kind == NODE_TUPLE) return node_set(p->pool, NODE_SET, a->n, a->arg);
    return node_is_set(a) ? a : nothing(p);
}

// Set operators of one level, from the tightest (intersection) to the loosest (difference).
static Node *parse_set_level(Parser *p, int level) {
    static const struct {
        TokenKind op;
        NodeKind kind;
    } levels[] = {{T_INTERSECTION, NODE_INTERSECTION}, {T_UNION, NODE_UNION}, {T_SET_MINUS, NODE_MINUS}};
    if (level < 0) return parse_set_group(p);
    Node *a = parse_set_level(p, level - 1);
    while (a && peek(p) == levels[level].op) {
        int start = p->at++;
        Node *b = parse_set_level(p, level - 1);
        if (!b) {
            p->at = start;
            break;
        }
        a = node_2(p->pool, levels[level].kind, as_set(p, a), as_set(p, b));
    }
    return a;
}

static Node *run_set(Parser *p) { return parse_set_level(p, 2); }
static Node *parse_set(Parser *p) { return remembered(p, RULE_SET, run_set); }

// ---- the whole ------------------------------------------------------------------------------------------------------

// x, or (x, y, ...)
static Node *parse_names(Parser *p) {
    int start = p->at;
    if (!accept(p, T_LPAREN)) return parse_atom_expr(p, true);
    List l = {0};
    do {
        Node *a = parse_atom_expr(p, true);
        if (!a) return fail_at(p, start);
        list_add(p->pool, &l, a);
    } while (accept(p, T_COMMA));
    if (!accept(p, T_RPAREN)) return fail_at(p, start);
    return l.n == 1 ? l.item[0] : node_new(p->pool, NODE_TUPLE, l.n, l.item);
}

// x = a, b, c or x in {...}: one relation with all that follows.
static Node *parse_names_elements(Parser *p) {
    Node *names = parse_names(p), *groups;
    if (!names || (peek(p) != T_IN && peek(p) != T_ASSIGN)) return NULL;
    p->at++;
    if (!(groups = parse_groups(p, false))) return NULL;
    return relation(p->pool, REL_EQ, names, set_or_element(p->pool, groups));
}

// x in A \cup B, or only A \cup B
static Node *parse_set_relation(Parser *p) {
    int start = p->at;
    Node *names = parse_names(p), *set;
    TokenKind op = peek(p);
    if (names && (op == T_IN || op == T_NOT_IN || op == T_ASSIGN)) {
        p->at++;
        if ((set = parse_set_relation(p))) {
            Node *a = node_2(p->pool, NODE_RELATION, names, set);
            a->relation = op == T_NOT_IN ? REL_NE : REL_EQ;
            return a;
        }
    }
    p->at = start;
    return parse_set(p);
}

// Digits in threes between commas are one number, where the text is nothing else.
static Node *comma_number(Pool *pool, Text t) {
    t = text_strip(t);
    bool minus = t.n > 0 && t.s[0] == '-';
    Text digits = text_from(t, minus);
    size_t first = 0, i;
    char *plain = pool_take(pool, t.n + 1);
    while (first < digits.n && digits.s[first] >= '0' && digits.s[first] <= '9') first++;
    if (first < 1 || first > 3 || first == digits.n || digits.s[first] != ',') return NULL;
    for (i = first; i < digits.n && digits.s[i] == ','; i += 4)
        for (size_t k = i + 1; k <= i + 3; k++)
            if (k >= digits.n || digits.s[k] < '0' || digits.s[k] > '9') return NULL;
    if (i < digits.n && digits.s[i] == '.') {
        size_t point = i++;
        while (i < digits.n && digits.s[i] >= '0' && digits.s[i] <= '9') i++;
        if (i == point + 1) return NULL;
    }
    if (i < digits.n) return NULL;
    size_t n = 0;
    for (i = 0; i < digits.n; i++) {
        if (digits.s[i] != ',') plain[n++] = digits.s[i];
        else if (digits.s[0] == '0' && !minus) plain[n++] = '.'; // 0,111 has a decimal comma
    }
    Node *a = node_digits(pool, (Text){plain, n});
    return minus ? node_negate(pool, a) : a;
}

static bool has_nothing(const Node *a) {
    if (a->kind == NODE_CONST && a->constant == CONST_NOTHING) return true;
    for (int i = 0; i < a->n; i++)
        if (has_nothing(a->arg[i])) return true;
    return false;
}

Node *parse_whole(Parser *p, Text latex) {
    Node *a = parse_names_elements(p);
    if (!a || peek(p) != T_END) {
        p->at = 0;
        Node *groups = parse_elements(p);
        if (groups && peek(p) == T_END) {
            a = comma_number(p->pool, latex);
            if (!a) a = set_or_element(p->pool, groups);
        } else {
            p->at = 0;
            a = parse_set_relation(p);
        }
    }
    return a && peek(p) == T_END && !has_nothing(a) ? a : NULL;
}
