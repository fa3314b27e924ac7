// Words of a PTX file.
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

// Words begin with a letter, %, $, _ or a dot, and hold dots, so "ld.global.f32" and "%tid.x" are one each.
std::vector<Token> tokenize(const std::string &text);

} // namespace ptx
