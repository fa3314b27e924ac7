// Mathematical verification: is a prediction the same answer as gold? Math-Verify does that with regular expressions,
// an ANTLR grammar and SymPy; here it takes four steps, each bounded in time and memory:
//
//   math_extract.c    finds the places of a text that may state an answer, the best first
//   math_normalize.c  cleans LaTeX: sizes, text commands, units, "and", malformed fractions
//   math_lex.c, math_parse.c, math_atom.c   LaTeX -> tokens -> a tree
//   math_compare.c    whether two trees mean the same, by math_value.c (numbers, identity testing),
//   math_set.c and math_roots.c
//
// The grammar and the rules of comparison follow Math-Verify 0.9 and latex2sympy2_extended.
#pragma once
#include "str.h"
#include "text.h"

static inline bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

// ---- memory: everything of one verification is taken from a pool and given back together ----------------------------
typedef struct PoolChunk PoolChunk;
typedef struct {
    PoolChunk *chunk;
} Pool;
void *pool_take(Pool *p, size_t bytes); // zeroed
Text pool_text(Pool *p, Text t);
void pool_free(Pool *p);

// ---- values ---------------------------------------------------------------------------------------------------------
// A complex number; where it is rational, also its residues modulo two primes of 61 bits, so that rational arithmetic
// of any size stays exact (up to a chance of 2^-120) and never needs more memory.
#define MATH_PRIMES 2
typedef struct {
    long double re, im;
    uint64_t residue[MATH_PRIMES];
    bool exact; // whether it is rational, so that `residue` holds
    bool bad;   // whether it is undefined: a division by zero, an overflow
} Value;

Value value_int(int64_t n);
Value value_real(long double x);
Value value_bad(void);
Value value_decimal(Text digits);           // [0-9]*(.[0-9]*)?
Value value_in_base(Text digits, int base); // the same in base 2 to 36; bad where a digit is none of that base
Value value_add(Value a, Value b);
Value value_neg(Value a);
Value value_mul(Value a, Value b);
Value value_div(Value a, Value b);
Value value_binomial(Value n, Value k);
Value value_pow(Value a, Value b);
bool value_is_int(Value a); // an exact whole number below 2^53
bool value_equal(Value a, Value b);

// ---- trees ----------------------------------------------------------------------------------------------------------
typedef enum {
    NODE_NUMBER, // value, class
    NODE_SYMBOL, // name
    NODE_CONST,  // constant
    NODE_ADD,
    NODE_MUL,
    NODE_POW,  // base, exponent
    NODE_FUNC, // name, arguments
    NODE_SUM,  // name "sum" or "prod"; variable, from, to, term
    NODE_MATRIX,
    // what is compared as a set
    NODE_SET,      // {a, b, ...}
    NODE_TUPLE,    // (a, b, ...)
    NODE_INTERVAL, // from, to
    NODE_UNION,
    NODE_INTERSECTION,
    NODE_MINUS,
    NODE_NAMED_SET, // name: N, Z, Q, R, C
    // what is compared as a statement
    NODE_RELATION, // left, right
    NODE_AND,      // a chain of relations
} NodeKind;

typedef enum { NUMBER_INT, NUMBER_RATIONAL, NUMBER_FLOAT } NumberClass;
// CONST_UNDEFINED: 1/0. CONST_NOTHING: something the grammar allows but that has no meaning here; only inside the
// parser.
typedef enum { CONST_PI, CONST_E, CONST_I, CONST_INFINITY, CONST_UNDEFINED, CONST_NOTHING } Constant;
typedef enum { REL_EQ, REL_NE, REL_LT, REL_LE, REL_GT, REL_GE } Relation;

typedef struct Node Node;
struct Node {
    NodeKind kind;
    NumberClass number;
    Constant constant;
    Relation relation;
    bool percent;               // NODE_MUL: a number times 1/100, written as a percentage
    bool left_open, right_open; // NODE_INTERVAL
    int rows;                   // NODE_MATRIX: n = rows x columns
    Value value;                // NODE_NUMBER: of the digits, read as decimal ones
    Node *in_base;              // NODE_NUMBER with a base in its subscript: the number in that base; else NULL
    Text name;  // NODE_SYMBOL, NODE_FUNC, NODE_SUM, NODE_NAMED_SET; NODE_NUMBER: as written out, of an integer or small
                // fraction
    Node **arg; // [n]
    int n;
};

Node *node_new(Pool *p, NodeKind kind, int n, Node *const *arg);
Node *node_2(Pool *p, NodeKind kind, Node *a, Node *b);
Node *node_number(Pool *p, NumberClass c, Value v);
Node *node_int(Pool *p, int64_t n);
Node *node_digits(Pool *p, Text digits); // [0-9]*(.[0-9]*)?: an integer, or with a point a float
Node *node_const(Pool *p, Constant c);
Node *node_named(Pool *p, NodeKind kind, Text name, int n, Node *const *arg);
Node *node_percent(Pool *p, Node *a);                            // a / 100, marked as a percentage
Node *node_quotient(Pool *p, Node *a, Node *b);                  // of integers a rational number
Node *node_set(Pool *p, NodeKind kind, int n, Node *const *arg); // NODE_SET without doubles, or NODE_TUPLE
Node *node_negate(Pool *p, Node *a);                             // a number stays a number
// A product or sum of a and b, where those that are products or sums themselves are flattened into it.
Node *node_flat(Pool *p, NodeKind kind, Node *a, Node *b);
bool node_is_set(const Node *a);              // NODE_SET .. NODE_NAMED_SET
bool node_is_relation(const Node *a);         // NODE_RELATION, NODE_AND
bool node_same(const Node *a, const Node *b); // the same tree
bool node_only_symbols(const Node *a);        // symbols, and what is built of symbols alone
int node_infinity(const Node *a);             // 1 of \infty, -1 of -\infty, 0 of all else
bool node_has_float(const Node *a);           // holds a number with a decimal point
bool node_has_base(const Node *a);            // holds a number that names its base
Node *node_in_base(Pool *p, const Node *a);   // a copy where those numbers are read in their bases
int node_symbols(const Node *a, Text *name, int n,
                 int max); // adds the free names, once each; how many now

// ---- texts -> trees -------------------------------------------------------------------------------------------------
typedef struct {
    bool malformed; // mend \frac12, ^(...), sqrt(...)
    bool nits;      // a leading point, 0.5
    bool last_box;  // of several boxes only the last that belong together, not all
} Normalize;
void math_normalize(Text latex, Normalize how, Str *out);
void math_fix_malformed(Str *text);
void math_step(Str *text, void (*step)(Text t, Str *out)); // text becomes what the step makes of it
// Where the brace at `open` is closed, before byte `end`; TEXT_NONE where it is not.
size_t math_closing_brace(Text t, size_t open, size_t end);

// The part after the last = (not \= <= >= !=), where there are several and no list; else the whole text.
Text math_last_equation(Text t);

#define MATH_MAX_TEXT  4096 // bytes of one formula
#define MATH_MAX_DEPTH 150  // of its nesting
// Parses normalised LaTeX; NULL where it is no formula, or longer or nested deeper than the limits.
Node *math_parse_latex(Pool *p, Text latex);
// Parses arithmetic outside of LaTeX: digits, + - * / ^ ( ).
Node *math_parse_expr(Pool *p, Text expr);

typedef struct {
    bool latex, numbers; // what to look for: LaTeX; plain numbers and arithmetic
    int boxed_priority;  // 0: boxes first, 50: after "the final answer is"
    bool unanchored;     // whether an answer counts without the word "answer" before it
    bool first_match;    // whether only the best place is tried; else the next ones too, until something parses
    Normalize normalize;
} Extract;

typedef struct {
    Node *node; // NULL where nothing parsed
    Text text;  // the best place's text, cleaned; empty where there is none
} Answer;
Answer math_extract(Pool *p, Text text, const Extract *how);

typedef struct {
    int precision;     // decimals that floats are rounded to
    bool any_variable; // a sole variable may have another name
    bool set_relation; // a relation in the prediction may stand for a set in gold
} CompareOptions;
bool math_equal(Pool *p, const Answer *gold, const Answer *prediction, const CompareOptions *how);

// ---- between the parts of the comparison ----------------------------------------------------------------------------
typedef struct {
    Pool *pool;
    const CompareOptions *how;
    int steps;           // node evaluations left: once they run out, nothing compares equal
    long double largest; // the largest absolute value that math_value came by
} Comparison;
// Where an expression is evaluated: symbols have pseudo-random values that depend on the trial, `scale` times as large
// (0: once) and, where `near` is given, about that number; but the symbol `bound` is `at`, and further ones are bound
// by `outer`.
typedef struct Point Point;
struct Point {
    int trial;
    int scale;
    const Value *near;
    const Text *whole; // [n_whole]: names that have whole values from 1 to 12 instead
    int n_whole;
    Text bound;
    Value at;
    const Point *outer;
};
Value math_value(Comparison *cmp, const Node *a, const Point *point);
// How the unknowns of two expressions are tried out: a few times between -4 and 4; where one of the expressions has
// corners or jumps, also with values far larger and about the numbers that are written in either.
typedef struct {
    int n, usual; // how many trials, and how many of them are those between -4 and 4
    Value written[16];
    int n_written;
    Text whole[4]; // names in the limits of sums
    int n_whole;
} Trials;
Trials trials_of(Comparison *cmp, const Node *a, const Node *b);
Point trial_point(const Trials *t, int k);
// Whether a and b, computed at that point, differ by more than rounding can explain.
bool values_differ(const Comparison *cmp, const Trials *t, int k, Value a, Value b);
bool expressions_equal(Comparison *cmp, const Node *a, const Node *b);
// Whether two numbers, of which one is written with a decimal point, agree when rounded to so many decimals. A whole
// number that is written without one must be met exactly.
bool rounds_equal(Value a, bool a_float, Value b, bool b_float, int decimals);
bool answers_equal(Comparison *cmp, const Node *gold, const Node *prediction);
bool sets_equal(Comparison *cmp, const Node *gold, const Node *prediction);
// math_roots.c: real places where something happens to a function of one unknown, `line->bound`, the other symbols
// having the values of `line`.
enum { MAX_POINTS = 1024 };
typedef struct {
    Value at[MAX_POINTS];
    int n;
} Points;
void points_add(Points *p, Value v);        // where it is a real number
bool points_near(const Points *p, Value v); // whether v is one of them, but for rounding
// f as c[2] x^2 + c[1] x + c[0]; false where it is no such function.
bool quadratic_of(Comparison *cmp, const Node *f, const Point *line, Value c[3]);
void add_zeros(Comparison *cmp, const Node *f, const Point *line, Points *p);
// What is written in an expression or a relation, where its parts are zero, and where its sides are equal.
void add_critical(Comparison *cmp, const Node *a, const Point *line, Points *p);

// Whether the real solutions of a relation in one unknown are the set.
bool relation_describes(Comparison *cmp, const Node *relation, const Node *set);
