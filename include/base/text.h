// Text: UTF-8 read as Python reads a str. The published graders are written in Python; to agree with them, white space,
// digits, lengths and counts must mean what they mean there. Every function takes time linear in the text.
//
// Invalid bytes count as U+FFFD, one for each longest prefix of a valid sequence, as with Python's errors="replace",
// Rust's from_utf8_lossy, and so HF's decoders.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// A piece of text that another object owns; not NUL-terminated, may hold NUL.
typedef struct {
    const char *s;
    size_t n; // bytes
} Text;

#define TEXT_NONE SIZE_MAX // not found

static inline Text text_of(const char *s) { return (Text){s, strlen(s)}; }
// Bytes [from, to) of t.
static inline Text text_slice(Text t, size_t from, size_t to) { return (Text){t.s + from, to - from}; }
static inline Text text_from(Text t, size_t from) { return (Text){t.s + from, t.n - from}; }

static inline bool text_equal(Text a, Text b) { return a.n == b.n && (a.n == 0 || memcmp(a.s, b.s, a.n) == 0); }
static inline bool text_is(Text t, const char *what) { return text_equal(t, text_of(what)); }
// The byte at `at`; 0 behind the end.
static inline char text_byte(Text t, size_t at) { return at < t.n ? t.s[at] : 0; }
// Whether `what` stands at byte `at`.
static inline bool text_at(Text t, size_t at, Text what) {
    return at <= t.n && what.n <= t.n - at && (what.n == 0 || memcmp(t.s + at, what.s, what.n) == 0);
}
static inline bool text_word_at(Text t, size_t at, const char *what) { return text_at(t, at, text_of(what)); }

// A hash of its bytes (FNV-1a).
uint64_t text_hash(Text t);

// Reads one character at t.s[at], at < t.n: its code point in *c, its bytes (at least 1) returned.
size_t text_char(Text t, size_t at, uint32_t *c);
// Length in code points: len(str).
size_t text_length(Text t);

// Byte position of the first `what` (not empty) at or after `from`, or TEXT_NONE.
size_t text_find(Text t, size_t from, Text what);
// Byte position of the last `what`, or TEXT_NONE.
size_t text_find_last(Text t, Text what);
// str.count: the number of occurrences that do not overlap, counted from the left. *last_end (where not NULL) becomes
// the byte after the last of them, where str.split(what)[-1] begins; 0 where there is none.
size_t text_count(Text t, Text what, size_t *last_end);

// str.isspace and the regex \s: Unicode white space, and U+001C..U+001F.
bool text_is_space(uint32_t c);
// str.isdigit of one character: decimal digits of every script, and superscripts, circled digits and the like.
bool text_is_digit(uint32_t c);
// The regex \d: decimal digits alone.
bool text_is_decimal(uint32_t c);
// The first byte at or after `at` that begins a character other than white space; t.n where there is none.
size_t text_skip_space(Text t, size_t at);
// The first byte at or after `at` that is none of 0 to 9.
size_t text_skip_digits(Text t, size_t at);
// str.strip().
Text text_strip(Text t);
// str.isdigit(): not empty, and digits only.
bool text_all_digits(Text t);
