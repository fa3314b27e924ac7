// The tokenizer's stages, in the order in which a text passes through them: added tokens are cut out, the rest is
// normalised to NFC and cut into words by the file's regex, and each word is merged into tokens. All as in HF
// tokenizers 0.22.
#pragma once
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer.h"
#include <pcre2.h>
#include <jansson.h>

// ---- unicode.c -----------------------------------------------------------------------------------------------------
bool utf8_is_valid(const char *s, size_t n);
// Appends s with every malformed sequence replaced by U+FFFD, as Rust's from_utf8_lossy does.
void utf8_repair(Str *out, const char *s, size_t n);
// Appends valid UTF-8 in Unicode's normal form C.
void utf8_nfc(Str *out, const char *s, size_t n);
bool is_ascii(const char *s, size_t n);
// Whether c is in Unicode's White_Space, which is \s of the regex engines that HF uses.
bool is_white_space(uint32_t c);

// ---- added_tokens.c: tokens matched in the text before anything else ------------------------------------------------
typedef struct {
    char *content; // as in the file
    size_t n;
    int32_t id;
    bool special;        // can be left out of decoded text
    bool normalized;     // matched after NFC instead of before
    bool lstrip, rstrip; // swallows white space on its left, right
} AddedToken;

typedef struct {
    int32_t child, sibling; // indices of nodes, 0: none
    int32_t token;          // index of the added token that ends here, -1: none
    unsigned char byte;
} TrieNode;

typedef struct {
    TrieNode *node; // [n]; node 0 is the root
    int n, cap;
    bool starts[256]; // bytes a token begins with
} Trie;

void trie_add(Trie *t, const char *s, size_t n, int token);
// Finds the leftmost, then longest, token at or after *at: fills from and to, and moves *at behind it; -1 where there
// is none.
int trie_next(const Trie *t, const char *s, size_t n, size_t *at, size_t *from, size_t *to);
void trie_free(Trie *t);

// ---- pretoken.c: the regex that cuts text into words ----------------------------------------------------------------
typedef struct {
    pcre2_code *code;
    int digits; // where the pattern is Qwen2's or Llama 3's: how many digits of a number make a word, and ASCII text is
                // cut by a scanner instead of PCRE2; else 0
} Split;

bool split_compile(Split *split, const char *pattern, const char *where, Error *e);
void split_free(Split *split);
// Finds the next match at or after `at` in s (valid UTF-8): true with its bytes [*from, *to), false where there is
// none. *match is allocated at first use; free it with pcre2_match_data_free.
bool split_next(const Split *split, pcre2_match_data **match, const char *s, size_t n, size_t at, size_t *from,
                size_t *to);
extern const char gpt2_pattern[]; // what ByteLevel with use_regex splits by

// ---- bpe.c: tokens as byte strings, and the merges ------------------------------------------------------------------
typedef struct {
    uint64_t key; // the bytes themselves up to 8, else their hash
    int32_t id;
    uint32_t n; // length in bytes; 0: a free place
} TokenSlot;

// The tokens: strings by id, and ids by string.
typedef struct {
    Str pool;
    uint32_t *at, *n; // [size] where in the pool; an absent id has n 0
    int size;
    TokenSlot *slot; // [1 << bits], open addressing
    int bits;
} TokenTable;

typedef struct {
    uint64_t pair; // left id << 32 | right id
    int32_t rank;  // -1: a free place
    int32_t id;    // what the pair becomes
} MergeSlot;

typedef struct {
    TokenTable surface; // tokens as the file has them, with bytes as letters
    TokenTable word;    // tokens as bytes; ids by string only for those that a word of just these bytes becomes
    int32_t byte[256];  // the token of a single byte, -1: none
    MergeSlot *merge;   // [1 << merge_bits], open addressing
    int merge_bits;
    int32_t *merged; // [n_merges] rank -> id
    int n_merges;
} Bpe;

// Working memory of one call.
typedef struct {
    void *memory;
    size_t bytes;
} BpeScratch;

void token_table_init(TokenTable *t, int size);
void token_table_store(TokenTable *t, int32_t id, const char *s, size_t n); // id -> string
void token_table_index(TokenTable *t, int32_t id);                          // string -> id
int32_t token_table_find(const TokenTable *t, const char *s, size_t n);     // -1 where absent
// Appends the bytes that a token's surface stands for: each letter of GPT-2's alphabet is one byte. Where it has any
// other character, it is appended as it is, and the result is false.
bool surface_bytes(const char *s, size_t n, Str *out);

void bpe_init(Bpe *b, int size, size_t n_merges);
void bpe_add_token(Bpe *b, int32_t id, const char *surface, size_t n);
bool bpe_add_merge(Bpe *b, int32_t left, int32_t right,
                   int32_t id); // in order of rank; false where it is there already
// To be called after all tokens and merges have been added. ignore_merges: a word that is a token becomes it without
// merges.
void bpe_finish(Bpe *b, bool ignore_merges);
void bpe_encode(const Bpe *b, BpeScratch *scratch, const char *word, size_t n, Ids *out);
void bpe_free(Bpe *b);

// ---- tokenizer_file.c -----------------------------------------------------------------------------------------------
enum { SPLITS_LIMIT = 8 };

struct Tokenizer {
    char *path;
    Bpe bpe;
    bool nfc;
    Split split[SPLITS_LIMIT]; // each cuts the pieces of the one before
    int n_splits;
    AddedToken *added; // [n_added]
    int n_added;
    int32_t next_id;      // the id HF gives the next added token: above the last, and not below the vocabulary's size
    Trie raw, normalized; // added tokens matched before and after NFC
    bool *special;        // [size] by id
    Ids lead;             // what the post-processor puts before a text
    int size;             // highest id + 1
};

bool tokenizer_read(Tokenizer *t, const json_t *file, Error *e);
