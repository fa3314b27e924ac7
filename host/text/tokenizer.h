// The tokenizer: text to ids and back, by the byte-level BPE of an HF tokenizer.json.
#pragma once
#include "error.h"
#include "str.h"

typedef struct Tokenizer Tokenizer;

// `path` is a model directory or a tokenizer.json. Safe to share between threads once loaded.
Tokenizer *tokenizer_load(const char *path, Error *e);
void tokenizer_free(Tokenizer *t);
int tokenizer_size(const Tokenizer *t);                      // highest id + 1
int32_t tokenizer_id(const Tokenizer *t, const char *token); // -1 where absent
const char *tokenizer_path(const Tokenizer *t);              // the tokenizer.json it came from
// Appends the ids of `text` (UTF-8; invalid bytes become U+FFFD). Added tokens in the text are matched first; where
// `special` is false those marked special are not, as with HF's split_special_tokens: so a user's text stays text.
void tokenizer_encode(const Tokenizer *t, const char *text, size_t n, bool special, Ids *out);
// Appends the text of `ids`; bytes that are no UTF-8 become U+FFFD. Ids outside the vocabulary add nothing.
// `skip_special`: special tokens add nothing.
void tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special, Str *out);
// Streaming: appends what is complete UTF-8 so far; bytes of an unfinished character wait in `pending`. Decoding a
// sequence piece by piece, then flushing, gives the text of decoding it whole.
typedef struct {
    char byte[4];
    int n;
} Utf8Pending;
void tokenizer_stream(const Tokenizer *t, int32_t id, bool skip_special, Utf8Pending *pending, Str *out);
void tokenizer_stream_flush(Utf8Pending *pending, Str *out);
