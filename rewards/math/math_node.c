// The memory pool of a verification, and the nodes of its trees.
#include "verify.h"
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK_BYTES = 32 << 10 };
struct PoolChunk {
    PoolChunk *next;
    size_t used, cap;
    _Alignas(16) char bytes[];
};

void *pool_take(Pool *p, size_t bytes) {
    bytes = (bytes + 15) / 16 * 16;
    if (!p->chunk || bytes > p->chunk->cap - p->chunk->used) {
        size_t cap = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        PoolChunk *chunk = xmalloc(sizeof *chunk + cap);
        *chunk = (PoolChunk){.next = p->chunk, .cap = cap};
        p->chunk = chunk;
    }
    void *at = p->chunk->bytes + p->chunk->used;
    p->chunk->used += bytes;
    return memset(at, 0, bytes);
}

Text pool_text(Pool *p, Text t) {
    char *copy = pool_take(p, t.n + 1);
    if (t.n) memcpy(copy, t.s, t.n);
    return (Text){copy, t.n};
}

void pool_free(Pool *p) {
    for (PoolChunk *next; p->chunk; p->chunk = next) {
        next = p->chunk->next;
        free(p->chunk);
    }
}

Node *node_new(Pool *p, NodeKind kind, int n, Node *const *arg) {
    Node *a = pool_take(p, sizeof *a);
    a->kind = kind;
    a->n = n;
    if (n > 0) a->arg = memcpy(pool_take(p, (size_t)n * sizeof *a->arg), arg, (size_t)n * sizeof *a->arg);
    return a;
}

Node *node_2(Pool *p, NodeKind kind, Node *a, Node *b) { return node_new(p, kind, 2, (Node *[]){a, b}); }

Node *node_number(Pool *p, NumberClass c, Value v) {
    Node *a = node_new(p, NODE_NUMBER, 0, NULL);
    a->number = c;
    a->value = v;
    return a;
}

Node *node_int(Pool *p, int64_t n) {
    char digits[24];
    Node *a = node_number(p, NUMBER_INT, value_int(n));
    a->name = pool_text(p, (Text){digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)n)});
    return a;
}

Node *node_const(Pool *p, Constant c) {
    Node *a = node_new(p, NODE_CONST, 0, NULL);
    a->constant = c;
    return a;
}

Node *node_named(Pool *p, NodeKind kind, Text name, int n, Node *const *arg) {
    Node *a = node_new(p, kind, n, arg);
    a->name = name;
    return a;
}

Node *node_digits(Pool *p, Text digits) {
    bool point = memchr(digits.s, '.', digits.n);
    Node *a = node_number(p, point ? NUMBER_FLOAT : NUMBER_INT, value_decimal(digits));
    while (!point && digits.n > 1 && digits.s[0] == '0') digits = text_from(digits, 1);
    if (!point) a->name = digits;
    return a;
}

static bool is_integer(const Node *a) { return a->kind == NODE_NUMBER && a->number == NUMBER_INT; }

Node *node_quotient(Pool *p, Node *a, Node *b) {
    if (!is_integer(a) || !is_integer(b)) return node_flat(p, NODE_MUL, a, node_2(p, NODE_POW, b, node_int(p, -1)));
    Value q = value_div(a->value, b->value);
    if (q.bad) return node_const(p, CONST_UNDEFINED);
    Node *r = node_number(p, NUMBER_RATIONAL, q);
    if (!value_is_int(a->value) || !value_is_int(b->value)) return r;
    int64_t top = (int64_t)a->value.re, bottom = (int64_t)b->value.re, x = top, y = bottom;
    for (int64_t rest; y; x = y, y = rest) rest = x % y; // x becomes the greatest common divisor
    if ((x < 0) != (bottom < 0)) x = -x;
    if (bottom / x == 1) return node_int(p, top / x);
    char digits[48];
    int n = snprintf(digits, sizeof digits, "%lld/%lld", (long long)(top / x), (long long)(bottom / x));
    r->name = pool_text(p, (Text){digits, (size_t)n});
    return r;
}

Node *node_percent(Pool *p, Node *a) {
    Node *all = node_2(p, NODE_MUL, a, node_quotient(p, node_int(p, 1), node_int(p, 100)));
    all->percent = true;
    return all;
}

Node *node_set(Pool *p, NodeKind kind, int n, Node *const *arg) {
    enum { MANY = 256 }; // looking for doubles takes quadratic time
    Node *a = node_new(p, kind, n, arg);
    if (kind != NODE_SET || n > MANY) return a;
    a->n = 0;
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < a->n && !node_same(a->arg[k], arg[i])) k++;
        if (k == a->n) a->arg[a->n++] = arg[i];
    }
    return a;
}

Node *node_flat(Pool *p, NodeKind kind, Node *a, Node *b) {
    Node *one[1] = {a}, *other[1] = {b};
    Node *const *left = a->kind == kind ? a->arg : one, *const *right = b->kind == kind ? b->arg : other;
    int n_left = a->kind == kind ? a->n : 1, n_right = b->kind == kind ? b->n : 1;
    Node *joined = node_new(p, kind, 0, NULL);
    joined->arg = pool_take(p, (size_t)(n_left + n_right) * sizeof *joined->arg);
    for (int i = 0; i < n_left; i++) joined->arg[i] = left[i];
    for (int i = 0; i < n_right; i++) joined->arg[n_left + i] = right[i];
    joined->n = n_left + n_right;
    return joined;
}

Node *node_negate(Pool *p, Node *a) {
    if (a->kind != NODE_NUMBER) return node_flat(p, NODE_MUL, node_int(p, -1), a);
    Node *minus = node_number(p, a->number, value_neg(a->value));
    if (a->in_base) minus->in_base = node_negate(p, a->in_base);
    if (a->name.n == 0) return minus;
    char *digits = pool_take(p, a->name.n + 2);
    bool negative = a->name.s[0] == '-';
    if (negative) minus->name = text_from(a->name, 1);
    else {
        digits[0] = '-';
        memcpy(digits + 1, a->name.s, a->name.n);
        minus->name = (Text){digits, a->name.n + 1};
    }
    return minus;
}

bool node_is_set(const Node *a) { return a->kind >= NODE_SET && a->kind <= NODE_NAMED_SET; }

bool node_is_relation(const Node *a) { return a->kind == NODE_RELATION || a->kind == NODE_AND; }

bool node_same(const Node *a, const Node *b) {
    if (a == b) return true;
    if (a->kind != b->kind || a->n != b->n || a->constant != b->constant || a->relation != b->relation ||
        a->left_open != b->left_open || a->right_open != b->right_open || a->rows != b->rows)
        return false;
    if (a->kind == NODE_NUMBER) return a->number == b->number && value_equal(a->value, b->value);
    if (!text_equal(a->name, b->name)) return false;
    for (int i = 0; i < a->n; i++)
        if (!node_same(a->arg[i], b->arg[i])) return false;
    return true;
}

bool node_only_symbols(const Node *a) {
    if (a->kind == NODE_SYMBOL) return true;
    // A / S is A times S to the power -1.
    if (a->kind == NODE_POW && a->arg[1]->kind == NODE_NUMBER && value_equal(a->arg[1]->value, value_int(-1)))
        return node_only_symbols(a->arg[0]);
    for (int i = 0; i < a->n; i++)
        if (!node_only_symbols(a->arg[i])) return false;
    return a->n > 0;
}

bool node_has_float(const Node *a) {
    for (int i = 0; i < a->n; i++)
        if (node_has_float(a->arg[i])) return true;
    return a->kind == NODE_NUMBER && a->number == NUMBER_FLOAT;
}

bool node_has_base(const Node *a) {
    for (int i = 0; i < a->n; i++)
        if (node_has_base(a->arg[i])) return true;
    return a->in_base;
}

Node *node_in_base(Pool *p, const Node *a) {
    if (a->in_base) return a->in_base;
    Node *copy = node_new(p, a->kind, a->n, a->arg), **arg = copy->arg;
    *copy = *a;
    copy->arg = arg;
    for (int i = 0; i < a->n; i++) arg[i] = node_in_base(p, a->arg[i]);
    return copy;
}

int node_infinity(const Node *a) {
    bool minus = a->kind == NODE_MUL && a->n == 2 && a->arg[0]->kind == NODE_NUMBER &&
                 value_equal(a->arg[0]->value, value_int(-1));
    const Node *inner = minus ? a->arg[1] : a;
    return inner->kind == NODE_CONST && inner->constant == CONST_INFINITY ? minus ? -1 : 1 : 0;
}

// Names that sums around a node bind.
typedef struct Bound Bound;
struct Bound {
    Text name;
    const Bound *outer;
};

static int free_symbols(const Node *a, const Bound *bound, Text *name, int n, int max) {
    if (a->kind == NODE_SYMBOL) {
        for (int i = 0; i < n; i++)
            if (text_equal(name[i], a->name)) return n;
        for (; bound; bound = bound->outer)
            if (text_equal(bound->name, a->name)) return n;
        if (n < max) name[n++] = a->name;
        return n;
    }
    if (a->kind == NODE_SUM && !node_infinity(a->arg[1]) &&
        !node_infinity(a->arg[2])) { // of endless ones no value is known
        n = free_symbols(a->arg[1], bound, name, n, max);
        n = free_symbols(a->arg[2], bound, name, n, max);
        return free_symbols(a->arg[3], &(Bound){a->arg[0]->name, bound}, name, n, max);
    }
    for (int i = 0; i < a->n; i++) n = free_symbols(a->arg[i], bound, name, n, max);
    return n;
}

int node_symbols(const Node *a, Text *name, int n, int max) { return free_symbols(a, NULL, name, n, max); }
