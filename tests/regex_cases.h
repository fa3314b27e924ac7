// Patterns and texts on which a backtracking matcher takes exponential, cubic or quadratic time, memory or stack.
#pragma once
#include <stdbool.h>
#include <stddef.h>

static const struct {
    const char *pattern, *before, *unit;
    size_t bytes; // of the units
    const char *after;
    bool limit; // a limit must be hit
} regex_cases[] = {
    {"(a+)+$", "", "a", 40, "!", true},
    {"(a|aa)+$", "", "a", 60, "!", true},
    {"(a|a)+b", "", "a", 60, "!b", true},
    {"^(([a-z])+.)+[A-Z]([a-z])+$", "", "a", 60, "!A", true},
    {"(x+x+)+y", "", "x", 60, "!y", true},
    {"^(.*)*#$", "", "a", 5000, "\n#", true},
    {"(?:.*a){12}#", "", "a", 3000, "\n#", true},
    {"^(?:a?){30}a{30}[bc]$", "", "a", 30, "", false},
    {".*.*.*=.*#", "", "=", 20000, "\n#", true},
    {"\\s+$", "", " ", 60000, "x", true},
    {"(\\w+\\s*)+:", "", "word ", 4000, "!:", true},
    {"(a(?1)?b)+c", "", "a", 60000, "!c", true},
    {"((a)|b)*$(?<=c)", "c", "ab", 60000, "", false},
    {"(?=(a+))\\1b", "", "a", 20000, "!b", false},
    {"(?i)(?=(\\w+))\\1b", "", "aB", 20000, "!b", false},
    {"[a-z]++#", "", "a", 65000, "!#", false},
    {"\\p{L}++#", "", "é", 65000, "!#", false},
    {"a", "", "b", 70000, "a", true}, // longer than a text may be
    {"^(?:(.)(?=.*\\1))+$", "", "abcdefgh", 50000, "i", true},
    {"[a-z]*[a-z]*[a-z]*[a-z]+#", "", "a", 4000, "!#", true},
};
