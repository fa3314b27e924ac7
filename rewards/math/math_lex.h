// Tokens of LaTeX mathematics, and the parser that math_atom.c and math_parse.c share.
#pragma once
#include "verify.h"

typedef enum {
    T_END,
    T_ADD,
    T_SUB,
    T_MUL, // * \times \cdot
    T_DIV, // / \div :
    T_MOD,
    T_LPAREN,
    T_RPAREN,
    T_LPAREN_SHOWN, // \( as a bracket
    T_RPAREN_SHOWN,
    T_LBRACE,
    T_RBRACE,
    T_LBRACE_SHOWN, // \{ \lbrace
    T_RBRACE_SHOWN,
    T_LBRACKET,
    T_RBRACKET,
    T_BAR,
    T_LVERT,
    T_RVERT,
    T_VERT,
    T_NORM,
    T_LFLOOR,
    T_RFLOOR,
    T_LCEIL,
    T_RCEIL,
    T_BOXED,
    T_PHANTOM,
    T_SUM,
    T_PROD,
    T_FUNC,  // a function of one argument: name
    T_FUNCS, // of several: name
    T_OPERATORNAME,
    T_SQRT,
    T_FRAC,
    T_BINOM,
    T_CHOOSE,
    T_MATRIX_BEGIN,
    T_MATRIX_END,
    T_DET_BEGIN,
    T_DET_END,
    T_COLUMN, // &
    T_ROW,    // two backslashes
    T_UNDERSCORE,
    T_CARET,
    T_DEGREE,    // ^\circ
    T_TRANSPOSE, // ^T
    T_SEMICOLON,
    T_COMMA,
    T_DIFFERENTIAL, // dx
    T_E,            // e
    T_CAPITAL_E,
    T_LETTER,
    T_GREEK,  // Greek letters and other symbols: name
    T_ACCENT, // \text{...}, \vec{...}: name is the whole
    T_INFINITY,
    T_NUMBER,
    T_NUMBER_E, // 1E5
    T_PERCENT,  // 5\%
    T_IN,
    T_NOT_IN,
    T_ASSIGN, // =
    T_EQUAL,  // ==
    T_APPROX,
    T_LT,
    T_LE,
    T_GT,
    T_GE,
    T_NE,
    T_BANG,
    T_UNION,
    T_INTERSECTION,
    T_SET_MINUS,
    T_PLUS_MINUS,
    T_NAMED_SET, // \mathbb{R}, \emptyset: name
    T_KEYWORD,   // a word the grammar keeps for \operatorname: name
} TokenKind;

typedef struct {
    TokenKind kind;
    Text text; // as written
    Text name; // what is meant: of functions, symbols, named sets
} Token;

// Splits LaTeX into tokens, the last of kind T_END; NULL where a character or command is unknown.
Token *math_lex(Pool *p, Text latex, int *n);

enum { RULE_EXPR, RULE_ELEMENTS, RULE_SET_ATOM, RULE_SET, RULES };

// A recursive-descent parser. A rule that does not match returns NULL and leaves `at` where it was. The result of a
// rule at a token is remembered, so that trying alternatives costs no more than a fixed number of passes over the text.
typedef struct {
    Pool *pool;
    const Token *token;
    int n, at, depth;
    // Whether the atom being read leaves a script behind it to the outer one: in x^2_1 the subscript is x's, not 2's.
    bool leave_subscript, leave_superscript;
    struct Memo {
        bool known;
        int end;
        Node *node;
    } * memo[RULES]; // [n]
} Parser;

typedef Node *ParseRule(Parser *p);
Node *parse_expr(Parser *p);
Node *parse_unary(Parser *p, bool functions);
Node *parse_products(Parser *p, bool functions);
// math_atom.c: everything that is not an operator.
Node *parse_primary(Parser *p, bool functions);
Node *parse_atom(Parser *p);
Node *parse_atom_expr(Parser *p, bool superscript);
Node *parse_exponent(Parser *p); // a superscript; a subscript behind it says nothing
// math_parse.c: parses all tokens as one answer; NULL where they are none. `latex` is the text they came from.
Node *parse_whole(Parser *p, Text latex);

// Gives up a rule that began at token `start`.
static inline Node *fail_at(Parser *p, int start) {
    p->at = start;
    return NULL;
}
static inline TokenKind peek(const Parser *p) { return p->token[p->at].kind; }
static inline bool accept(Parser *p, TokenKind k) {
    if (peek(p) != k) return false;
    p->at++;
    return true;
}
