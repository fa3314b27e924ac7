// Cuts a PTX file into words: names, numbers, strings, marks; comments left out.
#include "lex.h"
#include <cstdarg>
#include <cstdlib>
#include <cstring>

namespace ptx {

std::string format(const char *text, ...) {
    char room[1024];
    va_list args;
    va_start(args, text);
    vsnprintf(room, sizeof room, text, args);
    va_end(args);
    return room;
}
void fail(int line, const char *text, ...) {
    char room[1024];
    va_list args;
    va_start(args, text);
    vsnprintf(room, sizeof room, text, args);
    va_end(args);
    throw Fault{room, line};
}

namespace {

bool starts_word(char c) { return isalpha((unsigned char)c) || c == '%' || c == '$' || c == '_' || c == '.'; }
bool in_word(char c) { return isalnum((unsigned char)c) || c == '$' || c == '_' || c == '.' || c == '%'; }

} // namespace

void Lexer::skip_comment(bool block) {
    int begun = line;
    at += 2;
    while (at < s.size()) {
        if (!block && s[at] == '\n') return;
        if (block && s[at] == '*' && peek(1) == '/') {
            at += 2;
            return;
        }
        line += s[at++] == '\n';
    }
    if (block) fail(begun, "a comment that does not end");
}

// 0f3F800000, 0d..., 0x..., 0b..., 012, 12, 1.5, 1e-3; U behind integers.
Token Lexer::number() {
    Token t;
    t.line = line;
    size_t from = at;
    char second = (char)tolower(peek(1));
    if (peek() == '0' && (second == 'f' || second == 'd')) {
        size_t digits = second == 'f' ? 8 : 16;
        for (size_t k = 0; k < digits; k++)
            if (!isxdigit((unsigned char)peek(2 + k)))
                fail(line, "a number that is not 0%c and %zu digits", second, digits);
        t.kind = Token::REAL;
        t.bytes = (uint8_t)(digits / 2);
        t.value = strtoull(s.substr(at + 2, digits).c_str(), nullptr, 16);
        at += 2 + digits;
    } else if (peek() == '0' && (second == 'x' || second == 'b')) {
        at += 2;
        size_t digits = at;
        while (isxdigit((unsigned char)peek())) at++;
        t.kind = Token::INTEGER;
        t.value = strtoull(s.substr(digits, at - digits).c_str(), nullptr, second == 'x' ? 16 : 2);
    } else {
        while (isdigit((unsigned char)peek())) at++;
        bool real = peek() == '.' && isdigit((unsigned char)peek(1));
        if (real || (tolower(peek()) == 'e' && (isdigit((unsigned char)peek(1)) || peek(1) == '-' || peek(1) == '+'))) {
            char *end;
            double v = strtod(s.c_str() + from, &end);
            at = (size_t)(end - s.c_str());
            t.kind = Token::REAL;
            t.bytes = 8;
            memcpy(&t.value, &v, 8);
        } else {
            t.kind = Token::INTEGER;
            t.value = strtoull(s.substr(from, at - from).c_str(), nullptr,
                               peek() && s[from] == '0' && at > from + 1 ? 8 : 10);
        }
    }
    if (t.kind == Token::INTEGER && peek() == 'U') at++;
    if (in_word(peek()) && peek() != '.') fail(line, "\"%s\" is no number", s.substr(from, at - from + 1).c_str());
    t.text = s.substr(from, at - from);
    return t;
}

Token Lexer::read() {
    Token t;
    while (at < s.size()) {
        char c = s[at];
        if (c == '\n') line++;
        t.line = line;
        if (isspace((unsigned char)c)) {
            at++;
        } else if (c == '/' && (peek(1) == '/' || peek(1) == '*')) {
            skip_comment(peek(1) == '*');
        } else if (isdigit((unsigned char)c)) {
            return number();
        } else if (starts_word(c)) {
            size_t from = at++;
            // "::" inside a word ("shared::cta") belongs to it; ".reg.b32" is two.
            while ((in_word(peek()) && !(c == '.' && peek() == '.')) ||
                   (peek() == ':' && peek(1) == ':' && isalnum((unsigned char)peek(2))))
                at += peek() == ':' ? 2 : 1;
            t.kind = Token::WORD, t.text = s.substr(from, at - from);
            return t;
        } else if (c == '"') {
            size_t from = ++at;
            while (at < s.size() && s[at] != '"' && s[at] != '\n') at++;
            if (peek() != '"') fail(line, "a string that does not end");
            t.kind = Token::STRING, t.text = s.substr(from, at - from);
            at++;
            return t;
        } else if (c && strchr("{}[]()<>,;:@!|=+-*", c)) {
            t.kind = Token::MARK, t.mark = c, t.text = std::string(1, c);
            at++;
            return t;
        } else {
            fail(line, "a character that PTX does not know (%#x)", (unsigned char)c);
        }
    }
    t.line = line;
    return t;
}

} // namespace ptx
