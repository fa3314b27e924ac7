// The tokenizer (tokenizer.h): loading, encoding, decoding.
#include "json.h"
#include "text.h"
#include "tokenizer_parts.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

Tokenizer *tokenizer_load(const char *path, Error *e) {
    struct stat st;
    Tokenizer *t = xcalloc(1, sizeof *t);
    bool directory = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    t->path = directory ? xasprintf("%s/tokenizer.json", path) : xstrdup(path);
    json_t *file = NULL;
    if (access(t->path, R_OK))
        error_set(
            e, EXIT_INPUT,
            "%s: cannot be read: %s; a tokenizer is a tokenizer.json, or a directory that has one; from vocab.json and "
            "merges.txt: python3 -c \"import sys, transformers as t; "
            "t.AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])\" and the directory",
            t->path, strerror(errno));
    else file = json_read(t->path, e);
    bool good = file && tokenizer_read(t, file, e);
    json_decref(file);
    if (good) return t;
    tokenizer_free(t);
    return NULL;
}

void tokenizer_free(Tokenizer *t) {
    if (!t) return;
    for (int i = 0; i < t->n_splits; i++) split_free(&t->split[i]);
    for (int i = 0; i < t->n_added; i++) free(t->added[i].content);
    bpe_free(&t->bpe);
    trie_free(&t->raw);
    trie_free(&t->normalized);
    ids_free(&t->lead);
    free(t->added), free(t->special), free(t->path), free(t);
}

int tokenizer_size(const Tokenizer *t) { return t->size; }
const char *tokenizer_path(const Tokenizer *t) { return t->path; }
int32_t tokenizer_id(const Tokenizer *t, const char *token) {
    return token_table_find(&t->bpe.surface, token, strlen(token));
}
int32_t tokenizer_special_id(const Tokenizer *t, const char *token) {
    int32_t id = tokenizer_id(t, token);
    return id >= 0 && t->special[id] ? id : -1;
}
const char *tokenizer_special_in(const Tokenizer *t, const char *text) {
    const char *first = NULL, *found = NULL;
    for (int i = 0; i < t->n_added; i++) {
        const char *at = t->added[i].special ? strstr(text, t->added[i].content) : NULL;
        if (at && (!first || at < first)) first = at, found = t->added[i].content;
    }
    return found;
}

// ---- encoding -------------------------------------------------------------------------------------------------------

typedef struct {
    const Tokenizer *t;
    bool special; // match special tokens in the text
    Text plain;   // but for those that begin in this piece of it
    Ids *out;
    pcre2_match_data *match;
    BpeScratch scratch;
    Str normal;
} Encoder;

// Cuts s into pieces by split number `level` (its matches, and what is between them) and these by the later splits; the
// words at the end become ids.
static void encode_words(Encoder *c, int level, const char *s, size_t n) {
    if (!n) return;
    if (level == c->t->n_splits) {
        bpe_encode(&c->t->bpe, &c->scratch, s, n, c->out);
        return;
    }
    size_t done = 0, from, to;
    for (size_t at = 0; split_next(&c->t->split[level], &c->match, s, n, at, &from, &to);) {
        if (from > done) encode_words(c, level + 1, s + done, from - done);
        encode_words(c, level + 1, s + from, to - from);
        done = at = to;
        if (from < to) continue;
        if (at == n) break; // an empty match: look on from the next character
        at++;
        while (at < n && (s[at] & 0xc0) == 0x80) at++;
    }
    encode_words(c, level + 1, s + done, n - done);
}

static void encode_normalized(Encoder *c, const char *s, size_t n) { encode_words(c, 0, s, n); }

static size_t left_strip(const char *s, size_t from, size_t done) {
    while (from > done) {
        size_t back = from - 1;
        while (back > done && (s[back] & 0xc0) == 0x80) back--;
        uint32_t ch;
        text_char((Text){s, from}, back, &ch);
        if (!is_white_space(ch)) break;
        from = back;
    }
    return from;
}

static size_t right_strip(const char *s, size_t n, size_t to) {
    uint32_t ch;
    for (size_t bytes; to < n; to += bytes) {
        bytes = text_char((Text){s, n}, to, &ch);
        if (!is_white_space(ch)) break;
    }
    return to;
}

// Encodes the tokens of the trie that are in s; the pieces between them go to `rest`.
static void encode_added(Encoder *c, const Trie *trie, const char *s, size_t n,
                         void (*rest)(Encoder *, const char *, size_t)) {
    size_t done = 0, from, to;
    int k;
    for (size_t at = 0; (k = trie_next(trie, s, n, &at, &from, &to)) >= 0;) {
        const AddedToken *a = &c->t->added[k];
        bool spelled = s + from >= c->plain.s && s + from < c->plain.s + c->plain.n;
        if (a->special && (!c->special || spelled)) continue;
        if (a->lstrip) from = left_strip(s, from, done);
        if (a->rstrip) to = right_strip(s, n, to);
        if (from > done) rest(c, s + done, from - done);
        ids_add(c->out, a->id);
        done = to;
    }
    if (done < n) rest(c, s + done, n - done);
}

static void encode_raw(Encoder *c, const char *s, size_t n) {
    if (c->t->nfc && !is_ascii(s, n)) {
        str_clear(&c->normal);
        utf8_nfc(&c->normal, s, n);
        s = c->normal.s, n = c->normal.n;
    }
    encode_added(c, &c->t->normalized, s, n, encode_normalized);
}

static void encode(const Tokenizer *t, const char *text, size_t n, bool special, Text plain, Ids *out) {
    Encoder c = {.t = t, .special = special, .plain = plain, .out = out};
    Str repaired = {0};
    if (!utf8_is_valid(text, n)) {
        size_t before = plain.n ? (size_t)(plain.s - text) : 0, behind = before + plain.n;
        utf8_repair(&repaired, text, before);
        size_t begin = repaired.n;
        utf8_repair(&repaired, text + before, plain.n);
        size_t end = repaired.n;
        utf8_repair(&repaired, text + behind, n - behind);
        text = repaired.s, n = repaired.n;
        c.plain = (Text){text + begin, end - begin};
    }
    encode_added(&c, &t->raw, text, n, encode_raw);
    pcre2_match_data_free(c.match);
    free(c.scratch.memory);
    str_free(&c.normal);
    str_free(&repaired);
}

void tokenizer_encode(const Tokenizer *t, const char *text, size_t n, bool special, Ids *out) {
    encode(t, text, n, special, (Text){0}, out);
}

void tokenizer_encode_raw(const Tokenizer *t, const char *text, size_t n, Ids *out) {
    const Ids *lead = &t->lead;
    size_t begin = out->n;
    tokenizer_encode(t, text, n, true, out);
    size_t length = out->n - begin;
    if (!lead->n || (length >= lead->n && !memcmp(out->id + begin, lead->id, lead->n * sizeof *lead->id))) return;
    for (size_t i = 0; i < lead->n; i++) ids_add(out, lead->id[i]);
    memmove(out->id + begin + lead->n, out->id + begin, length * sizeof *out->id);
    memcpy(out->id + begin, lead->id, lead->n * sizeof *out->id);
}

void tokenizer_encode_around(const Tokenizer *t, const char *text, size_t n, size_t begin, size_t end, Ids *out) {
    encode(t, text, n, true, (Text){text + begin, end - begin}, out);
}

// ---- decoding -------------------------------------------------------------------------------------------------------

// Adds bytes to those pending, moves whole characters to `out`, and keeps an unfinished one pending.
static void stream_bytes(Utf8Pending *pending, const char *s, size_t n, Str *out) {
    char few[64], *joined = few;
    size_t total = (size_t)pending->n + n;
    if (total > sizeof few) joined = xmalloc(total);
    memcpy(joined, pending->byte, (size_t)pending->n);
    if (n) memcpy(joined + pending->n, s, n);

    // An unfinished character begins with a lead byte, at most three bytes from the end, followed only by continuation
    // bytes.
    size_t whole = total;
    for (size_t k = 1; k <= 3 && k <= total; k++) {
        unsigned char lead = (unsigned char)joined[total - k];
        if ((lead & 0xc0) == 0x80) continue;
        uint32_t ch;
        size_t wants = lead < 0xc2 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 1;
        if (wants > k && text_char((Text){joined, total}, total - k, &ch) == k) whole = total - k;
        break;
    }
    utf8_repair(out, joined, whole);
    pending->n = (int)(total - whole);
    memcpy(pending->byte, joined + whole, total - whole);
    if (joined != few) free(joined);
}

void tokenizer_stream(const Tokenizer *t, int32_t id, bool skip_special, Utf8Pending *pending, Str *out) {
    if (id < 0 || id >= t->size || (skip_special && t->special[id])) return;
    const TokenTable *word = &t->bpe.word;
    stream_bytes(pending, word->pool.s + word->at[id], word->n[id], out);
}

void tokenizer_stream_flush(Utf8Pending *pending, Str *out) {
    utf8_repair(out, pending->byte, (size_t)pending->n);
    pending->n = 0;
}

void tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special, Str *out) {
    Utf8Pending pending = {0};
    for (size_t i = 0; i < n; i++) tokenizer_stream(t, ids[i], skip_special, &pending, out);
    tokenizer_stream_flush(&pending, out);
}
