// The words of a PTX file, one after the other.
#pragma once
#include "program.h"

namespace ptx {

struct Token {
    enum Kind : uint8_t { END, WORD, INTEGER, REAL, STRING, MARK } kind = END;
    uint8_t bytes = 0; // REAL: 4 or 8
    char mark = 0;
    int line = 0;
    uint64_t value = 0;
    std::string text; // as written
};

// Reads a text word by word, so that no more of them than the parser looks at take memory. Words begin with a letter,
// %, $, _ or a dot, and hold dots, so "ld.global.f32" and "%tid.x" are one each; what begins with a dot ends before the
// next.
struct Lexer {
    const std::string &s;
    size_t at = 0;
    int line = 1;

    Token read(); // END at the end of the text, again and again

  private:
    char peek(size_t k = 0) const { return at + k < s.size() ? s[at + k] : '\0'; }
    void skip_comment(bool block);
    Token number();
};

} // namespace ptx
