// Reading HF's tokenizer.json: byte-level BPE as Qwen, Llama 3, SmolLM2, GPT-2 and their relatives have it. Settings
// that would change ids and are not implemented are refused; truncation and padding, which HF's loaders set at every
// call, are not read.
#include "tokenizer_parts.h"
#include "json.h"
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

// The largest id accepted: ids index tables, so that a huge one would need huge tables.
enum { ID_LIMIT = (1 << 22) - 1 };

static bool bad(const Tokenizer *t, Error *e, const char *fmt, ...) PRINTF_LIKE(3, 4);
static bool bad(const Tokenizer *t, Error *e, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return error_set(e, EXIT_INPUT, "%s: %s", t->path, text);
}

// A token for an error message: quoted, escaped, cut if it is long. The result is in *shown, and so valid until the
// next call.
static const char *show(Str *shown, const char *s, size_t n) {
    str_clear(shown);
    str_json(shown, s, n < 60 ? n : 60);
    return shown->s;
}

// ---- the stages before BPE ------------------------------------------------------------------------------------------

static const char *type_of(const json_t *j) {
    const char *type = json_text(json_object_get(j, "type"));
    return type ? type : json_is_object(j) ? "(no type)" : "(not an object)";
}

static bool flag_is(const json_t *j, const char *name, bool absent, bool wanted) {
    const json_t *flag = json_object_get(j, name);
    return (flag ? json_is_true(flag) : absent) == wanted && (!flag || json_is_boolean(flag));
}

// Stage number i of a normalizer or pre-tokenizer, which is one stage or a "Sequence" of stages in `list`; NULL behind
// the last.
static const json_t *stage(const json_t *j, const char *list, size_t i) {
    if (!j || json_is_null(j)) return NULL;
    if (strcmp(type_of(j), "Sequence")) return i ? NULL : j;
    return json_array_get(json_object_get(j, list), i);
}

static bool read_normalizer(Tokenizer *t, const json_t *j, Error *e) {
    const json_t *s;
    for (size_t i = 0; (s = stage(j, "normalizers", i)); i++) {
        if (strcmp(type_of(s), "NFC"))
            return bad(t, e, "normalizer: type %s is not supported, only NFC is", type_of(s));
        t->nfc = true;
    }
    return true;
}

static bool add_split(Tokenizer *t, const char *pattern, Error *e) {
    char where[300];
    if (t->n_splits == SPLITS_LIMIT) return bad(t, e, "pre_tokenizer: more than %d splits", SPLITS_LIMIT);
    snprintf(where, sizeof where, "%s: pre_tokenizer", t->path);
    if (!split_compile(&t->split[t->n_splits], pattern, where, e)) return false;
    t->n_splits++;
    return true;
}

static bool read_pre_tokenizer(Tokenizer *t, const json_t *j, Error *e) {
    const json_t *s;
    bool byte_level = false;
    for (size_t i = 0; (s = stage(j, "pretokenizers", i)); i++) {
        const char *type = type_of(s);
        if (byte_level) return bad(t, e, "pre_tokenizer: %s after ByteLevel is not supported", type);
        if (!strcmp(type, "ByteLevel")) {
            byte_level = true;
            if (!flag_is(s, "add_prefix_space", true, false))
                return bad(t, e, "pre_tokenizer: ByteLevel with add_prefix_space is not supported");
            if (!flag_is(s, "use_regex", true, false) && !add_split(t, gpt2_pattern, e)) return false;
        } else if (!strcmp(type, "Split")) {
            const json_t *regex = json_object_get(json_object_get(s, "pattern"), "Regex");
            const char *behavior = json_text(json_object_get(s, "behavior"));
            if (!json_is_written_string(regex)) return bad(t, e, "pre_tokenizer: Split without a pattern.Regex");
            if (strlen(json_string_value(regex)) != json_string_length(regex))
                return bad(t, e, "pre_tokenizer: NUL in the regex");
            if (!behavior || strcmp(behavior, "Isolated") || !flag_is(s, "invert", false, false))
                return bad(t, e, "pre_tokenizer: Split needs behavior Isolated and invert false");
            if (!add_split(t, json_string_value(regex), e)) return false;
        } else if (!strcmp(type, "Digits")) { // SmolLM2: what Rust's char::is_numeric holds for, alone or in runs
            bool alone = flag_is(s, "individual_digits", false, true);
            if (!alone && !flag_is(s, "individual_digits", false, false))
                return bad(t, e, "pre_tokenizer: Digits: individual_digits is not true or false");
            if (!add_split(t, alone ? "\\p{N}" : "\\p{N}+", e)) return false;
        } else return bad(t, e, "pre_tokenizer: type %s is not supported, only Split, Digits and ByteLevel are", type);
    }
    return byte_level || bad(t, e, "pre_tokenizer: no ByteLevel at its end; only byte-level BPE is supported");
}

// Puts before t->lead what a TemplateProcessing writes before a text: the special tokens that stand in `single` before
// the sequence. Those behind it are left out: a prompt is to be continued, and where a text ends the caller says.
static bool read_lead(Tokenizer *t, const json_t *template, Error *e) {
    const json_t *single = json_object_get(template, "single"), *tokens = json_object_get(template, "special_tokens");
    const json_t *piece, *id;
    Ids lead = {0};
    size_t i, k;
    bool ok = json_is_array(single) || bad(t, e, "post_processor: TemplateProcessing without a list \"single\"");
    json_array_foreach(single, i, piece) {
        const char *name = json_text(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
        if (!ok || !name) break; // a sequence
        const json_t *ids = json_object_get(json_object_get(tokens, name), "ids");
        if (!json_is_array(ids)) ok = bad(t, e, "post_processor: special_tokens lists no ids of %.100s", name);
        json_array_foreach(ids, k, id) {
            json_int_t n = json_is_integer(id) ? json_integer_value(id) : -1;
            if (n < 0 || n >= t->size) ok = bad(t, e, "post_processor: an id of %.100s is no token's", name);
            else ids_add(&lead, (int32_t)n);
        }
    }
    for (i = 0; i < t->lead.n; i++) ids_add(&lead, t->lead.id[i]);
    ids_free(&t->lead);
    t->lead = lead;
    return ok;
}

// Reads the other settings. A ByteLevel post-processor changes offsets only. A TemplateProcessing adds tokens around a
// text (Llama 3: <|begin_of_text|>), for tokenizer_encode_raw alone: chat templates write them. Anything else is
// refused.
static bool read_rest(Tokenizer *t, const json_t *file, Error *e) {
    const json_t *s;
    for (size_t i = 0; (s = stage(json_object_get(file, "post_processor"), "processors", i)); i++) {
        bool template = !strcmp(type_of(s), "TemplateProcessing");
        if (template && !read_lead(t, s, e)) return false;
        if (!template && strcmp(type_of(s), "ByteLevel"))
            return bad(t, e, "post_processor: type %s is not supported, only ByteLevel and TemplateProcessing are",
                       type_of(s));
    }
    for (size_t i = 0; (s = stage(json_object_get(file, "decoder"), "decoders", i)); i++)
        if (strcmp(type_of(s), "ByteLevel"))
            return bad(t, e, "decoder: type %s is not supported, only ByteLevel is", type_of(s));
    return true;
}

// ---- BPE ------------------------------------------------------------------------------------------------------------

// Reads and checks an id; -1 after filling *e.
static int32_t read_id(const Tokenizer *t, const json_t *j, const char *where, const char *token, size_t n, Error *e) {
    Str shown = {0};
    json_int_t id = json_is_integer(j) ? json_integer_value(j) : -1;
    if (id < 0 || id > ID_LIMIT) {
        bad(t, e, "%s: the id of %s is not a whole number from 0 to %d", where, show(&shown, token, n), ID_LIMIT);
        str_free(&shown);
        return -1;
    }
    return (int32_t)id;
}

static bool read_vocab(Tokenizer *t, const json_t *vocab, Error *e) {
    const char *token;
    json_t *value;
    json_object_foreach((json_t *)vocab, token, value) {
        size_t n = strlen(token);
        int32_t id = read_id(t, value, "model.vocab", token, n, e);
        if (id < 0) return false;
        if (t->bpe.surface.n[id]) {
            Str one = {0}, two = {0};
            bad(t, e, "model.vocab: %s and %s have the same id %d",
                show(&one, t->bpe.surface.pool.s + t->bpe.surface.at[id], t->bpe.surface.n[id]), show(&two, token, n),
                id);
            str_free(&one), str_free(&two);
            return false;
        }
        bpe_add_token(&t->bpe, id, token, n);
    }
    return true;
}

// The two halves of a merge, which is "a b" or ["a", "b"].
static bool merge_halves(const json_t *j, const char **a, size_t *na, const char **b, size_t *nb) {
    if (json_is_array(j) && json_array_size(j) == 2) {
        const json_t *left = json_array_get(j, 0), *right = json_array_get(j, 1);
        *a = json_string_value(left), *b = json_string_value(right);
        *na = json_string_length(left), *nb = json_string_length(right);
        return *a && *b;
    }
    *a = json_string_value(j);
    if (!*a) return false;
    const char *space = memchr(*a, ' ', json_string_length(j));
    if (!space) return false;
    *na = (size_t)(space - *a);
    *b = space + 1, *nb = json_string_length(j) - *na - 1;
    return !memchr(*b, ' ', *nb);
}

static bool read_merges(Tokenizer *t, const json_t *merges, Error *e) {
    Str shown = {0}, whole = {0};
    bool good = true;
    size_t i;
    json_t *merge;
    json_array_foreach(merges, i, merge) {
        const char *a, *b;
        size_t na, nb;
        if (!merge_halves(merge, &a, &na, &b, &nb)) {
            good = bad(t, e, "model.merges[%zu]: neither \"a b\" nor [\"a\", \"b\"]", i);
            break;
        }
        str_clear(&whole);
        str_add(&whole, a, na);
        str_add(&whole, b, nb);
        int32_t left = token_table_find(&t->bpe.surface, a, na), right = token_table_find(&t->bpe.surface, b, nb);
        int32_t id = token_table_find(&t->bpe.surface, whole.s, whole.n);
        if (left < 0 || right < 0 || id < 0) {
            const char *absent = left < 0    ? show(&shown, a, na)
                                 : right < 0 ? show(&shown, b, nb)
                                             : show(&shown, whole.s, whole.n);
            good = bad(t, e, "model.merges[%zu]: %s is not in model.vocab", i, absent);
        } else if (!bpe_add_merge(&t->bpe, left, right, id))
            good = bad(t, e, "model.merges[%zu]: %s is made from the same two tokens by an earlier merge", i,
                       show(&shown, whole.s, whole.n));
        if (!good) break;
    }
    str_free(&shown), str_free(&whole);
    return good;
}

static bool is_absent(const json_t *j) { // null, false, 0 and "" all say that an option is not used
    return !j || json_is_null(j) || json_is_false(j) || (json_is_number(j) && json_number_value(j) == 0) ||
           (json_is_string(j) && !json_string_length(j));
}

static bool read_model(Tokenizer *t, const json_t *model, Error *e) {
    static const char *const unsupported[] = {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                                              "byte_fallback"};
    if (strcmp(type_of(model), "BPE")) return bad(t, e, "model: type %s is not supported, only BPE is", type_of(model));
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (!is_absent(json_object_get(model, unsupported[i])))
            return bad(t, e, "model.%s is set; it is not supported", unsupported[i]);
    const json_t *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    if (!json_is_object(vocab) || !json_object_size(vocab)) return bad(t, e, "model.vocab: not an object with tokens");
    if (!json_is_array(merges)) return bad(t, e, "model.merges: not a list");
    bpe_init(&t->bpe, t->size, json_array_size(merges));
    if (!read_vocab(t, vocab, e) || !read_merges(t, merges, e)) return false;
    bpe_finish(&t->bpe, json_is_true(json_object_get(model, "ignore_merges")));
    return true;
}

// ---- added tokens ---------------------------------------------------------------------------------------------------

static bool read_added_token(Tokenizer *t, const json_t *j, size_t i, Error *e) {
    static const char *const flags[] = {"special", "normalized", "lstrip", "rstrip", "single_word"};
    const json_t *content = json_object_get(j, "content");
    char where[48];
    bool flag[5];
    snprintf(where, sizeof where, "added_tokens[%zu]", i);
    if (!json_is_written_string(content) || !json_string_length(content)) return bad(t, e, "%s: no content", where);
    AddedToken a = {.content = (char *)json_string_value(content), .n = json_string_length(content)};
    if ((a.id = read_id(t, json_object_get(j, "id"), where, a.content, a.n, e)) < 0) return false;
    for (int k = 0; k < 5; k++) {
        const json_t *f = json_object_get(j, flags[k]);
        if (f && !json_is_boolean(f)) return bad(t, e, "%s: %s is not true or false", where, flags[k]);
        flag[k] = json_is_true(f);
    }
    a.special = flag[0], a.normalized = flag[1], a.lstrip = flag[2], a.rstrip = flag[3];
    if (flag[4]) return bad(t, e, "%s: single_word is not supported", where);

    Str one = {0}, two = {0};
    TokenTable *surface = &t->bpe.surface;
    int32_t known = token_table_find(surface, a.content, a.n);
    bool good = true;
    if (known >= 0 && known != a.id)
        good = bad(t, e, "%s: %s has id %d here and id %d above", where, show(&one, a.content, a.n), a.id, known);
    else if (known < 0 && surface->n[a.id])
        good = bad(t, e, "%s: %s and %s have the same id %d", where, show(&one, a.content, a.n),
                   show(&two, surface->pool.s + surface->at[a.id], surface->n[a.id]), a.id);
    else if (known < 0 && a.id != t->next_id)
        good = bad(t, e, "%s: %s has id %d, but HF tokenizers, which numbers added tokens itself, gives it %d", where,
                   show(&one, a.content, a.n), a.id, t->next_id);
    for (int k = 0; good && known >= 0 && k < t->n_added; k++)
        if (t->added[k].id == a.id) good = bad(t, e, "%s: %s is listed twice", where, show(&one, a.content, a.n));
    str_free(&one), str_free(&two);
    if (!good) return false;

    if (known < 0) {
        token_table_store(surface, a.id, a.content, a.n);
        token_table_index(surface, a.id);
        Str bytes = {0};
        surface_bytes(a.content, a.n, &bytes); // as HF's decoder reads it
        token_table_store(&t->bpe.word, a.id, bytes.s, bytes.n);
        str_free(&bytes);
    }
    Str text = {0}; // the form it has in the text it is looked for in
    if (a.normalized && t->nfc) utf8_nfc(&text, a.content, a.n);
    else str_add(&text, a.content, a.n);
    trie_add(a.normalized ? &t->normalized : &t->raw, text.s, text.n, t->n_added);
    str_free(&text);
    t->special[a.id] = a.special;
    if (a.id >= t->next_id) t->next_id = a.id + 1;
    a.content = xstrndup(a.content, a.n);
    t->added[t->n_added++] = a;
    return true;
}

bool tokenizer_read(Tokenizer *t, const json_t *file, Error *e) {
    if (!json_is_object(file)) return bad(t, e, "not an HF tokenizer.json: no object at the top");
    const json_t *model = json_object_get(file, "model"), *added = json_object_get(file, "added_tokens");
    if (!json_is_object(model)) return bad(t, e, "not an HF tokenizer.json: it has no \"model\"");
    if (added && !json_is_null(added) && !json_is_array(added)) return bad(t, e, "added_tokens: not a list");

    // The tables' size: the highest id that will pass.
    const char *key;
    json_t *value;
    size_t i;
    json_int_t last = 0;
    json_object_foreach(json_object_get(model, "vocab"), key, value) {
        if (json_integer_value(value) > last && json_integer_value(value) <= ID_LIMIT) last = json_integer_value(value);
    }
    json_array_foreach(added, i, value) {
        json_int_t id = json_integer_value(json_object_get(value, "id"));
        if (id > last && id <= ID_LIMIT) last = id;
    }
    t->size = (int)last + 1;
    t->special = xcalloc((size_t)t->size, sizeof *t->special);
    t->added = xcalloc(json_array_size(added), sizeof *t->added);
    if (!read_normalizer(t, json_object_get(file, "normalizer"), e) ||
        !read_pre_tokenizer(t, json_object_get(file, "pre_tokenizer"), e) || !read_rest(t, file, e) ||
        !read_model(t, model, e))
        return false;
    t->next_id = (int)json_object_size(json_object_get(model, "vocab"));
    json_array_foreach(added, i, value) if (!read_added_token(t, value, i, e)) return false;
    return true;
}
