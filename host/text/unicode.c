// UTF-8: checking and repairing it, and Unicode's normal form C.
#include "text.h"
#include "tokenizer_parts.h"
#include <stdlib.h>
#include <utf8proc.h>

bool is_ascii(const char *s, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t eight;
        memcpy(&eight, s + i, 8);
        if (eight & 0x8080808080808080u) return false;
    }
    for (; i < n; i++)
        if (s[i] & 0x80) return false;
    return true;
}

bool is_white_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

// Whether c, which text_char read from these bytes, stands for malformed ones: U+FFFD may also be in the text, as three
// bytes.
static bool is_malformed(const char *s, size_t bytes, uint32_t c) {
    return c == 0xfffd && !(bytes == 3 && !memcmp(s, "\xef\xbf\xbd", 3));
}

bool utf8_is_valid(const char *s, size_t n) {
    Text t = {s, n};
    uint32_t c;
    for (size_t i = 0; i < n;) {
        if (!(s[i] & 0x80)) {
            i++;
            continue;
        }
        size_t bytes = text_char(t, i, &c);
        if (is_malformed(s + i, bytes, c)) return false;
        i += bytes;
    }
    return true;
}

void utf8_repair(Str *out, const char *s, size_t n) {
    Text t = {s, n};
    uint32_t c;
    size_t good = 0;
    for (size_t i = 0, bytes; i < n; i += bytes) {
        bytes = text_char(t, i, &c);
        if (!is_malformed(s + i, bytes, c)) continue;
        str_add(out, s + good, i - good);
        str_puts(out, "\xef\xbf\xbd");
        good = i + bytes;
    }
    str_add(out, s + good, n - good);
}

// Characters that HF's normalizer, which has Unicode 9, takes for plain starters, because they got a combining class or
// a canonical composition later: they are copied, and nothing composes across them, whatever Unicode utf8proc has. The
// ranges were found by asking HF tokenizers 0.22 about every character that has either property in Unicode 18. U+11A7
// stands before the first trailing consonant of Hangul and is none; utf8proc composes it, and loses it.
static const uint32_t inert[][2] = {
    {0x5c8, 0x5c9},     {0x7fd, 0x7fd},     {0x897, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
    {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x11a7, 0x11a7},   {0x1715, 0x1715},
    {0x1abf, 0x1af0},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},   {0x105c9, 0x105c9}, {0x105d2, 0x105d2},
    {0x105da, 0x105da}, {0x105e4, 0x105e4}, {0x10d24, 0x10d27}, {0x10d69, 0x10d6d}, {0x10eab, 0x10eac},
    {0x10ecb, 0x10ecf}, {0x10ef0, 0x10efb}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
    {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x11382, 0x11385}, {0x1138b, 0x1138e}, {0x11390, 0x11391},
    {0x113b8, 0x113b8}, {0x113bb, 0x113bb}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5}, {0x113c7, 0x113c9},
    {0x113ce, 0x113d0}, {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11935, 0x11935},
    {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x1611e, 0x16129}, {0x1612f, 0x1612f}, {0x16d63, 0x16d63}, {0x16d67, 0x16d6a},
    {0x16ff0, 0x16ff1}, {0x1d127, 0x1d128}, {0x1d250, 0x1d252}, {0x1d25b, 0x1d25c}, {0x1d25f, 0x1d25f},
    {0x1d280, 0x1d281}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef},
    {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef}, {0x1e6e3, 0x1e6e3}, {0x1e6e6, 0x1e6e6}, {0x1e6ee, 0x1e6ef},
    {0x1e6f5, 0x1e6f5},
};

static bool is_inert(uint32_t c) {
    int lo = 0, hi = (int)(sizeof inert / sizeof *inert);
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (c > inert[mid][1]) lo = mid + 1;
        else hi = mid;
    }
    return lo < (int)(sizeof inert / sizeof *inert) && c >= inert[lo][0];
}

// Sorts a run of combining marks into canonical order: stably, by class. A counting sort, so that a megabyte of marks
// takes linear time.
static void sort_marks(int32_t *mark, size_t n, int32_t *copy) {
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++) start[utf8proc_get_property(mark[i])->combining_class + 1]++;
    for (int k = 1; k < 257; k++) start[k] += start[k - 1];
    memcpy(copy, mark, n * sizeof *mark);
    for (size_t i = 0; i < n; i++) mark[start[utf8proc_get_property(copy[i])->combining_class]++] = copy[i];
}

static void compose(Str *out, const char *s, size_t n) {
    Text t = {s, n};
    Ids chars = {0};
    for (size_t i = 0; i < n;) {
        uint32_t c;
        int32_t part[8];
        i += text_char(t, i, &c);
        utf8proc_ssize_t parts =
            utf8proc_decompose_char((int32_t)c, part, 8, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
        for (utf8proc_ssize_t k = 0; k < parts; k++) ids_add(&chars, part[k]);
    }
    int32_t *copy = NULL;
    for (size_t i = 0, end; i < chars.n; i = end + 1) {
        for (end = i; end < chars.n && utf8proc_get_property(chars.id[end])->combining_class; end++) {
        }
        if (end - i < 2) continue;
        if (!copy) copy = xmalloc(chars.n * sizeof *copy);
        sort_marks(chars.id + i, end - i, copy);
    }
    utf8proc_ssize_t left =
        utf8proc_normalize_utf32(chars.id, (utf8proc_ssize_t)chars.n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < left; i++) {
        utf8proc_uint8_t bytes[4];
        str_add(out, (const char *)bytes, (size_t)utf8proc_encode_char(chars.id[i], bytes));
    }
    free(copy);
    ids_free(&chars);
}

// Writes s in normal form C. ASCII never changes, and composes only with what follows it: so only runs of other
// characters are composed, each with the one ASCII character before it.
void utf8_nfc(Str *out, const char *s, size_t n) {
    Text t = {s, n};
    size_t i = 0, begin = 0; // [begin, i): not written yet
    while (i < n) {
        if (!(s[i] & 0x80)) {
            i++;
            continue;
        }
        size_t start = i > begin ? i - 1 : i;
        str_add(out, s + begin, start - begin);
        uint32_t c = 0;
        size_t bytes = 0;
        while (i < n && s[i] & 0x80 && (bytes = text_char(t, i, &c), !is_inert(c))) i += bytes;
        if (i > start + 1) compose(out, s + start, i - start);
        else str_add(out, s + start, i - start); // one ASCII character, or nothing
        if (i < n && s[i] & 0x80) {
            str_add(out, s + i, bytes);
            i += bytes;
        }
        begin = i;
    }
    str_add(out, s + begin, n - begin);
}
