// Places of a text that may state an answer: the scan that math_extract.c and math_number.c share.
#pragma once
#include "verify.h"

enum { MAX_PIECES = 6 };

// One environment of LaTeX.
typedef struct {
    Text latex;
    bool percent; // a percent sign stands behind it
    bool box;     // a \boxed{...} without an environment
} Piece;

typedef struct {
    enum { MATCH_LATEX, MATCH_EXPR, MATCH_NUMBER } kind;
    size_t start, end; // bytes of the whole place
    Piece piece[MAX_PIECES];
    int n;
    Text expr;             // MATCH_EXPR
    Text integer, decimal; // MATCH_NUMBER, as written
    bool percent;
} Match;

typedef enum { LOOK_LATEX, LOOK_NUMBERS } Look;
enum { NEXT_BOX, NEXT_PAREN, NEXT_BRACKET, NEXT_LINE, NEXT_SLOTS };

typedef struct Scan Scan;
struct Scan {
    Pool *pool;
    Text text;
    const Extract *how;
    Match *match; // [n]
    int n, cap;
    bool (*accept)(Text t, size_t end); // whether a number may end here; NULL: anywhere
    size_t next[NEXT_SLOTS], searched_from[NEXT_SLOTS];
    bool searched[NEXT_SLOTS];
};

// The first `word` (small letters) at or after `from`, whatever the case.
size_t scan_word(Text t, size_t from, const char *word);
// ".? ?I hope" at `at`; *end is the byte behind it.
bool scan_hopes(Text t, size_t at, size_t *end);

// math_number.c: plain numbers and arithmetic.
bool number_or_expr_at(Scan *s, size_t at, Match *m);
bool number_or_expr_after_space(Scan *s, size_t at, Match *m);
// The last "=" within 100 characters that a number follows.
bool number_after_equals(Scan *s, size_t at, Match *m);
void scan_numbers(Scan *s, void (*add)(Scan *s, const Match *m));
bool accept_hope(Text t, size_t end);
bool accept_no_equals(Text t, size_t end);
Answer math_read_number(Scan *s, const Match *m);
