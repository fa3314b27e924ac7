// Splits LaTeX mathematics into tokens, always the longest that fits, as in latex2sympy's grammar. Spaces, \, \; \quad
// and the like are left out; a command or character that the grammar does not know makes it fail.
#include "math_lex.h"

typedef struct {
    const char *text;
    TokenKind kind;
    const char *name;
} Literal;

#define SKIP T_END // the kind of literals that make no token

// clang-format off
static const Literal commands[] = {
    {"\\,", SKIP, 0}, {"\\thinspace", SKIP, 0}, {"\\:", SKIP, 0}, {"\\medspace", SKIP, 0}, {"\\;", SKIP, 0},
    {"\\thickspace", SKIP, 0}, {"\\quad", SKIP, 0}, {"\\qquad", SKIP, 0}, {"\\!", SKIP, 0}, {"\\negthinspace", SKIP, 0},
    {"\\negmedspace", SKIP, 0}, {"\\negthickspace", SKIP, 0}, {"\\$", SKIP, 0}, {"\\vrule", SKIP, 0},
    {"\\vcenter", SKIP, 0}, {"\\vbox", SKIP, 0}, {"\\vskip", SKIP, 0}, {"\\vspace", SKIP, 0}, {"\\hfil", SKIP, 0},
    {"\\over", T_DIV, 0}, {"\\times", T_MUL, 0}, {"\\cdot", T_MUL, 0}, {"\\div", T_DIV, 0}, {"\\mod", T_MOD, 0},
    {"\\(", T_LPAREN_SHOWN, 0}, {"\\)", T_RPAREN_SHOWN, 0}, {"\\lgroup", T_LPAREN, 0}, {"\\rgroup", T_RPAREN, 0},
    {"\\{", T_LBRACE_SHOWN, 0}, {"\\}", T_RBRACE_SHOWN, 0}, {"\\lbrace", T_LBRACE_SHOWN, 0},
    {"\\rbrace", T_RBRACE_SHOWN, 0}, {"\\lbrack", T_LBRACKET, 0}, {"\\rbrack", T_RBRACKET, 0},
    {"\\phantom", T_PHANTOM, 0}, {"\\boxed", T_BOXED, 0}, {"\\lvert", T_LVERT, 0}, {"\\rvert", T_RVERT, 0},
    {"\\vert", T_VERT, 0}, {"\\|", T_NORM, 0}, {"\\lfloor", T_LFLOOR, 0}, {"\\rfloor", T_RFLOOR, 0},
    {"\\llcorner", T_LFLOOR, 0}, {"\\lrcorner", T_RFLOOR, 0}, {"\\lceil", T_LCEIL, 0}, {"\\rceil", T_RCEIL, 0},
    {"\\ulcorner", T_LCEIL, 0}, {"\\urcorner", T_RCEIL, 0}, {"\\sum", T_SUM, "sum"}, {"\\prod", T_PROD, "prod"},
    {"\\log", T_FUNC, "log"}, {"\\ln", T_FUNC, "ln"}, {"\\exp", T_FUNC, "exp"}, {"\\exponentialE", T_E, "e"},
    {"\\sin", T_FUNC, "sin"}, {"\\cos", T_FUNC, "cos"}, {"\\tan", T_FUNC, "tan"}, {"\\csc", T_FUNC, "csc"},
    {"\\sec", T_FUNC, "sec"}, {"\\cot", T_FUNC, "cot"}, {"\\Gamma", T_FUNC, "gamma"}, {"\\gamma", T_FUNC, "gamma"},
    {"\\arcsin", T_FUNC, "asin"}, {"\\arccos", T_FUNC, "acos"}, {"\\arctan", T_FUNC, "atan"},
    {"\\arccsc", T_FUNC, "acsc"}, {"\\arcsec", T_FUNC, "asec"}, {"\\arccot", T_FUNC, "acot"},
    {"\\sinh", T_FUNC, "sinh"}, {"\\cosh", T_FUNC, "cosh"}, {"\\tanh", T_FUNC, "tanh"},
    {"\\arsinh", T_FUNC, "asinh"}, {"\\arcosh", T_FUNC, "acosh"}, {"\\artanh", T_FUNC, "atanh"},
    {"\\arcsinh", T_FUNC, "asinh"}, {"\\arccosh", T_FUNC, "acosh"}, {"\\arctanh", T_FUNC, "atanh"},
    {"\\floor", T_FUNC, "floor"}, {"\\ceil", T_FUNC, "ceil"}, {"\\det", T_FUNC, "det"},
    {"\\gcd", T_FUNCS, "gcd"}, {"\\lcm", T_FUNCS, "lcm"}, {"\\max", T_FUNCS, "max"}, {"\\min", T_FUNCS, "min"},
    {"\\operatorname", T_OPERATORNAME, 0}, {"\\sqrt", T_SQRT, 0}, {"\\frac", T_FRAC, 0}, {"\\dfrac", T_FRAC, 0},
    {"\\tfrac", T_FRAC, 0}, {"\\cfrac", T_FRAC, 0}, {"\\binom", T_BINOM, 0}, {"\\tbinom", T_BINOM, 0},
    {"\\dbinom", T_BINOM, 0}, {"\\choose", T_CHOOSE, 0}, {"\\\\", T_ROW, 0}, {"\\infty", T_INFINITY, 0},
    {"\\infty\\%", T_INFINITY, 0}, {"\\$\\infty", T_INFINITY, 0},
    {"\\begin{matrix}", T_MATRIX_BEGIN, 0}, {"\\begin{pmatrix}", T_MATRIX_BEGIN, 0},
    {"\\begin{bmatrix}", T_MATRIX_BEGIN, 0}, {"\\end{matrix}", T_MATRIX_END, 0}, {"\\end{pmatrix}", T_MATRIX_END, 0},
    {"\\end{bmatrix}", T_MATRIX_END, 0}, {"\\end{array}", T_MATRIX_END, 0}, {"\\begin{vmatrix}", T_DET_BEGIN, 0},
    {"\\end{vmatrix}", T_DET_END, 0}, {"\\in", T_IN, 0}, {"\\notin", T_NOT_IN, 0}, {"\\equiv", T_EQUAL, 0},
    {"\\approx", T_APPROX, 0}, {"\\lt", T_LT, 0}, {"\\leq", T_LE, 0}, {"\\le", T_LE, 0}, {"\\leqslant", T_LE, 0},
    {"\\gt", T_GT, 0}, {"\\geq", T_GE, 0}, {"\\ge", T_GE, 0}, {"\\geqslant", T_GE, 0}, {"\\ne", T_NE, 0},
    {"\\neq", T_NE, 0}, {"\\not\\equiv", T_NE, 0}, {"\\cup", T_UNION, 0}, {"\\cap", T_INTERSECTION, 0},
    {"\\setminus", T_SET_MINUS, 0}, {"\\pm", T_PLUS_MINUS, 0}, {"\\mp", T_PLUS_MINUS, 0},
    {"\\emptyset", T_NAMED_SET, "empty"}, {"\\{\\}", T_NAMED_SET, "empty"}, {"\\lbrace\\rbrace", T_NAMED_SET, "empty"},
    {"\\mathbb{N}", T_NAMED_SET, "N"}, {"\\mathbb{Z}", T_NAMED_SET, "Z"}, {"\\mathbb{Q}", T_NAMED_SET, "Q"},
    {"\\mathbb{R}", T_NAMED_SET, "R"}, {"\\mathbb{C}", T_NAMED_SET, "C"},
};

static const Literal signs[] = {
    {"+", T_ADD, 0}, {"∔", T_ADD, 0}, {"⊕", T_ADD, 0}, {"⊞", T_ADD, 0}, {"-", T_SUB, 0}, {"−", T_SUB, 0},
    {"∸", T_SUB, 0}, {"*", T_MUL, 0}, {"×", T_MUL, 0}, {"⋅", T_MUL, 0}, {"⋄", T_MUL, 0}, {"⊡", T_MUL, 0},
    {"∗", T_MUL, 0}, {"⋆", T_MUL, 0}, {"∘", T_MUL, 0}, {"∙", T_MUL, 0}, {"⊗", T_MUL, 0}, {"⊠", T_MUL, 0},
    {"⋈", T_MUL, 0}, {"⋉", T_MUL, 0}, {"⋊", T_MUL, 0}, {"/", T_DIV, 0}, {"÷", T_DIV, 0}, {"∕", T_DIV, 0},
    {":", T_DIV, 0}, {"(", T_LPAREN, 0}, {")", T_RPAREN, 0}, {"{", T_LBRACE, 0}, {"}", T_RBRACE, 0},
    {"[", T_LBRACKET, 0}, {"]", T_RBRACKET, 0}, {"|", T_BAR, 0}, {"&", T_COLUMN, 0}, {"_", T_UNDERSCORE, 0},
    {"^", T_CARET, 0}, {"^\\circ", T_DEGREE, 0}, {"^\\degree", T_DEGREE, 0}, {"^\\circle", T_DEGREE, 0},
    {"^°", T_DEGREE, 0}, {"^{\\circ}", T_DEGREE, 0}, {"^{\\degree}", T_DEGREE, 0}, {"^{\\circle}", T_DEGREE, 0},
    {"^{°}", T_DEGREE, 0}, {"^T", T_TRANSPOSE, 0}, {"^{T}", T_TRANSPOSE, 0}, {"'", T_TRANSPOSE, 0},
    {";", T_SEMICOLON, 0}, {",", T_COMMA, 0}, {"=", T_ASSIGN, 0}, {"≡", T_ASSIGN, 0}, {"==", T_EQUAL, 0},
    {"~=", T_APPROX, 0}, {"≈", T_APPROX, 0}, {"≃", T_APPROX, 0}, {"≅", T_APPROX, 0}, {"<", T_LT, 0}, {"≪", T_LT, 0},
    {"≤", T_LE, 0}, {"≦", T_LE, 0}, {"<=", T_LE, 0}, {">", T_GT, 0}, {"≫", T_GT, 0}, {"≥", T_GE, 0}, {"≧", T_GE, 0},
    {">=", T_GE, 0}, {"!=", T_NE, 0}, {"!==", T_NE, 0}, {"≠", T_NE, 0}, {"≢", T_NE, 0}, {"!", T_BANG, 0},
    {"∪", T_UNION, 0}, {"∩", T_INTERSECTION, 0}, {"∖", T_SET_MINUS, 0}, {"±", T_PLUS_MINUS, 0},
    {"∓", T_PLUS_MINUS, 0}, {"∅", T_NAMED_SET, "empty"}, {"∉", T_NOT_IN, 0}, {"ℕ", T_NAMED_SET, "N"},
    {"ℤ", T_NAMED_SET, "Z"}, {"ℚ", T_NAMED_SET, "Q"}, {"ℝ", T_NAMED_SET, "R"}, {"ℂ", T_NAMED_SET, "C"},
    {"α", T_GREEK, "alpha"}, {"β", T_GREEK, "beta"}, {"γ", T_GREEK, "gamma"}, {"δ", T_GREEK, "delta"},
    {"ε", T_GREEK, "epsilon"}, {"ϵ", T_GREEK, "varepsilon"}, {"ζ", T_GREEK, "zeta"}, {"η", T_GREEK, "eta"},
    {"θ", T_GREEK, "theta"}, {"ϑ", T_GREEK, "vartheta"}, {"ι", T_GREEK, "iota"}, {"κ", T_GREEK, "kappa"},
    {"λ", T_GREEK, "lambda"}, {"μ", T_GREEK, "mu"}, {"ν", T_GREEK, "nu"}, {"ξ", T_GREEK, "xi"},
    {"ο", T_GREEK, "omicron"}, {"π", T_GREEK, "pi"}, {"ϖ", T_GREEK, "varpi"}, {"ρ", T_GREEK, "rho"},
    {"ϱ", T_GREEK, "varrho"}, {"σ", T_GREEK, "sigma"}, {"ς", T_GREEK, "varsigma"}, {"τ", T_GREEK, "tau"},
    {"υ", T_GREEK, "upsilon"}, {"φ", T_GREEK, "phi"}, {"ϕ", T_GREEK, "varphi"}, {"χ", T_GREEK, "chi"},
    {"ψ", T_GREEK, "psi"}, {"ω", T_GREEK, "omega"}, {"Γ", T_GREEK, "Gamma"}, {"Δ", T_GREEK, "Delta"},
    {"Θ", T_GREEK, "Theta"}, {"Λ", T_GREEK, "Lambda"}, {"Ξ", T_GREEK, "Xi"}, {"Π", T_GREEK, "Pi"},
    {"Σ", T_GREEK, "Sigma"}, {"Υ", T_GREEK, "Upsilon"}, {"Φ", T_GREEK, "Phi"}, {"Ψ", T_GREEK, "Psi"},
    {"Ω", T_GREEK, "Omega"},
};

// Commands that are symbols named like themselves.
static const char *const symbols[] = {
    "alpha", "beta", "delta", "Delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "Theta", "vartheta", "iota",
    "kappa", "lambda", "Lambda", "mu", "nu", "xi", "Xi", "omicron", "pi", "Pi", "varpi", "rho", "varrho", "sigma",
    "Sigma", "varsigma", "tau", "upsilon", "Upsilon", "phi", "Phi", "varphi", "chi", "psi", "Psi", "omega", "Omega",
    "Bbbk", "wp", "nabla", "bigstar", "angle", "nexists", "diagdown", "measuredangle", "eth", "diagup",
    "sphericalangle", "clubsuit", "varnothing", "Diamond", "complement", "diamondsuit", "imath", "Finv",
    "triangledown", "heartsuit", "jmath", "Game", "triangle", "spadesuit", "ell", "hbar", "vartriangle", "hslash",
    "blacklozenge", "lozenge", "blacksquare", "mho", "blacktriangle", "sharp", "prime", "Im", "flat", "square",
    "backprime", "Re", "natural", "surd", "circledS",
};

// Commands whose braces hold a text, or the symbol that they decorate.
static const char *const accents[] = {
    "acute", "bar", "overline", "breve", "check", "widecheck", "dot", "ddot", "grave", "hat", "tilde", "widetilde",
    "vec", "overrightarrow", "bm", "boldsymbol", "text", "textit", "textbf", "textnormal", "mathbb", "mathbin",
    "mathbf", "mathcal", "mathfrak", "mathit", "mathnormal", "mathop", "mathring", "mathrm", "mathscr", "mathsf",
    "mathtt", "mbox",
};

// Words that the grammar reserves for \operatorname: written as plain letters they are not a product of symbols.
static const char *const keywords[] = {
    "arsinh", "arcsinh", "arcosh", "arccosh", "artanh", "arctanh", "gcd", "lcm", "floor", "ceil", "eye", "zeros",
    "ones", "cols", "rows", "diag", "norm", "rank", "trace", "tr", "rref", "hstack", "vstack", "orth", "ortho",
    "orthogonal", "orthogonalize", "nullspace", "eig", "eigen", "diagonalize", "eigenvals", "eigenvalues",
    "eigenvects", "eigenvectors", "svd", "SVD", "matrix", "pmatrix", "bmatrix", "vmatrix",
};
// clang-format on

#define COUNT(a) (sizeof(a) / sizeof *(a))

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static void literal(Text t, size_t i, const Literal *list, size_t n, Token *best) {
    for (size_t k = 0; k < n; k++) {
        if (list[k].text[0] != t.s[i] || (list[k].text[1] != 0 && list[k].text[1] != text_byte(t, i + 1))) continue;
        Text what = text_of(list[k].text);
        if (what.n > best->text.n && text_at(t, i, what))
            *best = (Token){list[k].kind, text_slice(t, i, i + what.n), text_of(list[k].name ? list[k].name : "")};
    }
}

// The longest of `words` at byte i.
static void word(Text t, size_t i, const char *const *words, size_t n, TokenKind kind, Token *best) {
    size_t slash = kind == T_KEYWORD ? 0 : 1;
    for (size_t k = 0; k < n; k++) {
        if (words[k][0] != text_byte(t, i + slash)) continue;
        Text what = text_of(words[k]);
        if (what.n + slash > best->text.n && text_at(t, i + slash, what))
            *best = (Token){kind, text_slice(t, i, i + slash + what.n), what};
    }
}

// \text{...}: up to the first closing brace.
static void accent(Text t, size_t i, Token *best) {
    Token command = {T_END, {t.s, 0}, {"", 0}};
    word(t, i, accents, COUNT(accents), T_ACCENT, &command);
    size_t open = i + command.text.n;
    if (command.text.n == 0) return;
    if (is_blank(text_byte(t, open))) open++;
    if (text_byte(t, open) != '{') return;
    const char *close = memchr(t.s + open, '}', t.n - open);
    if (!close) return;
    Text whole = text_slice(t, i, (size_t)(close - t.s) + 1);
    if (whole.n > best->text.n) *best = (Token){T_ACCENT, whole, whole};
}

// \begin{array}{cc}
static void array(Text t, size_t i, Token *best) {
    Text begin = text_of("\\begin{array}{");
    if (!text_at(t, i, begin)) return;
    size_t end = i + begin.n;
    while (text_byte(t, end) == 'c' || text_byte(t, end) == 'l' || text_byte(t, end) == 'r') end++;
    if (text_byte(t, end) == '}') *best = (Token){T_MATRIX_BEGIN, text_slice(t, i, end + 1), {"", 0}};
}

static Token number(Text t, size_t i) {
    size_t end = i, tail;
    while (is_ascii_digit(text_byte(t, end))) end++;
    if (text_byte(t, end) == '.' && is_ascii_digit(text_byte(t, end + 1)))
        for (end++; is_ascii_digit(text_byte(t, end));) end++;
    if (end == i) return (Token){T_END, {t.s, 0}, {"", 0}};
    Text name = text_slice(t, i, end);
    if (text_byte(t, end) == 'E') {
        tail = end + 1 + (text_byte(t, end + 1) == '+' || text_byte(t, end + 1) == '-');
        if (is_ascii_digit(text_byte(t, tail))) {
            while (is_ascii_digit(text_byte(t, tail))) tail++;
            return (Token){T_NUMBER_E, text_slice(t, i, tail), name};
        }
    }
    tail = end + is_blank(text_byte(t, end));
    if (text_byte(t, tail) == '%') return (Token){T_PERCENT, text_slice(t, i, tail + 1), name};
    if (text_byte(t, tail) == '\\' && text_byte(t, tail + 1) == '%')
        return (Token){T_PERCENT, text_slice(t, i, tail + 2), name};
    return (Token){T_NUMBER, name, name};
}

// d, or \partial, of n bytes, white space, then a letter or a command: dx, d\theta, \partial x.
static void differential(Text t, size_t i, size_t n, Token *best) {
    size_t k = i + n, end;
    while (is_blank(text_byte(t, k))) k++;
    bool command = text_byte(t, k) == '\\' && is_letter(text_byte(t, k + 1));
    if (!command && !is_letter(text_byte(t, k))) return;
    for (end = k + 1; command && is_letter(text_byte(t, end));) end++;
    if (end - i > best->text.n) *best = (Token){T_DIFFERENTIAL, text_slice(t, i, end), text_slice(t, k + command, end)};
}

static Token letter(Text t, size_t i) {
    Token best = {T_END, {t.s, 0}, {"", 0}};
    word(t, i, keywords, COUNT(keywords), T_KEYWORD, &best);
    if (t.s[i] == 'd') differential(t, i, 1, &best);
    if (best.text.n == 0) {
        Text one = text_slice(t, i, i + 1);
        best = (Token){t.s[i] == 'e' ? T_E : t.s[i] == 'E' ? T_CAPITAL_E : T_LETTER, one, one};
    }
    return best;
}

static Token next_token(Text t, size_t i) {
    if (is_letter(t.s[i])) return letter(t, i);
    if (is_ascii_digit(t.s[i]) || t.s[i] == '.') return number(t, i);
    Token best = {T_END, {t.s, 0}, {"", 0}};
    if (t.s[i] == '\\') {
        literal(t, i, commands, COUNT(commands), &best);
        word(t, i, symbols, COUNT(symbols), T_GREEK, &best);
        accent(t, i, &best);
        array(t, i, &best);
        if (text_word_at(t, i, "\\partial")) { // as d: \partial f / \partial x, \partial^2 f
            Text d = text_slice(t, i, i + strlen("\\partial"));
            best = (Token){T_LETTER, d, text_of("d")};
            differential(t, i, d.n, &best);
        }
    } else literal(t, i, signs, COUNT(signs), &best);
    return best;
}

Token *math_lex(Pool *p, Text latex, int *n) {
    Token *tokens = pool_take(p, (latex.n + 1) * sizeof *tokens);
    *n = 0;
    for (size_t i = 0; i < latex.n;) {
        if (is_blank(latex.s[i])) {
            i++;
            continue;
        }
        Token token = next_token(latex, i);
        if (token.text.n == 0) return NULL;
        if (token.kind != SKIP) tokens[(*n)++] = token;
        i += token.text.n;
    }
    tokens[*n] = (Token){T_END, {latex.s, 0}, {"", 0}};
    ++*n;
    return tokens;
}
