// The tokenizer: from text to ids and back, by the byte-level BPE of an HF tokenizer.json.
#pragma once
#include "error.h"
#include "str.h"

typedef struct Tokenizer Tokenizer;

// Loads a tokenizer; `path` is a model directory or a tokenizer.json. Safe to share between threads. NULL after filling
// *e.
Tokenizer *tokenizer_load(const char *path, Error *e);
void tokenizer_free(Tokenizer *t);
int tokenizer_size(const Tokenizer *t);                      // highest id + 1
int32_t tokenizer_id(const Tokenizer *t, const char *token); // -1 where absent
// The id of a special token: one that decoded text leaves out. -1 where `token` is no such token.
int32_t tokenizer_special_id(const Tokenizer *t, const char *token);
// The first special token that stands in `text`; NULL where there is none.
const char *tokenizer_special_in(const Tokenizer *t, const char *text);
const char *tokenizer_path(const Tokenizer *t); // the tokenizer.json it came from
// Appends the ids of `text` (UTF-8; invalid bytes become U+FFFD). Added tokens in the text are matched first; without
// `special`, those marked special are not matched, as with HF's split_special_tokens, so that a user's text stays text.
void tokenizer_encode(const Tokenizer *t, const char *text, size_t n, bool special, Ids *out);
// The same with `special`, for a text that no chat template wrote: behind the tokens that HF puts before one (Llama 3:
// <|begin_of_text|>; most tokenizers: none), unless it begins with them itself.
void tokenizer_encode_raw(const Tokenizer *t, const char *text, size_t n, Ids *out);
// tokenizer_encode with `special`, but for what bytes [begin, end) spell of such tokens: that stays text.
void tokenizer_encode_around(const Tokenizer *t, const char *text, size_t n, size_t begin, size_t end, Ids *out);
// Appends the text of `ids`; bytes that are no UTF-8 become U+FFFD. Ids outside the vocabulary add nothing, and with
// `skip_special` neither do special tokens.
void tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special, Str *out);
// The bytes of an unfinished character, for decoding a sequence id by id: tokenizer_stream appends what is complete,
// and tokenizer_stream_flush the rest. Together they give the same text as tokenizer_decode.
typedef struct {
    char byte[4];
    int n;
} Utf8Pending;
void tokenizer_stream(const Tokenizer *t, int32_t id, bool skip_special, Utf8Pending *pending, Str *out);
void tokenizer_stream_flush(Utf8Pending *pending, Str *out);
