// Regular expressions from a configuration, on a model's text: neither can be trusted, so matching is bounded in time
// and memory. (What the rewards themselves look for is written as scanners in C.)
#pragma once
#include "error.h"
#include "str.h"
#include "text.h"

#define REGEX_MAX_TEXT   (64 << 10) // bytes of a text; a longer one is REGEX_LIMIT
#define REGEX_MAX_GROUPS 8

typedef struct Regex Regex;
// Compiles `pattern` (UTF-8; \w, \d and the like mean Unicode's). NULL after filling *e with the place and the reason.
// Safe to share between threads.
Regex *regex_new(const char *pattern, Error *e);
void regex_free(Regex *r);
int regex_groups(const Regex *r); // capturing groups in the pattern

// What a thread needs for matching: its own match data, JIT stack and limits.
typedef struct RegexRun RegexRun;
RegexRun *regex_run_new(const Regex *r);
void regex_run_free(RegexRun *run);

typedef enum { REGEX_NONE, REGEX_FOUND, REGEX_LIMIT } RegexResult;
// Finds the first match at or after byte `from` of `t`, which must be valid UTF-8 (regex_text). group[0] becomes the
// match, group[1..] what the groups took, with s == NULL where a group took no part; REGEX_MAX_GROUPS + 1 of them, or
// NULL.
//
// How it is bounded: PCRE2 counts its match limit anew at every place where a match may begin, so the limit is a budget
// of steps divided by the number of places. Steps within one character class or back reference are not counted at all;
// those are bounded by the length of the text. No clock is read, so the same text always gives the same result.
RegexResult regex_match(RegexRun *run, Text t, size_t from, Text *group);

// `t` itself where it is valid UTF-8; else a copy in *mended, with U+FFFD for invalid bytes.
Text regex_text(Text t, Str *mended);
