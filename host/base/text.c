// UTF-8 read as Python reads a str (text.h).
#include "text.h"

size_t text_char(Text t, size_t at, uint32_t *c) {
    const unsigned char *p = (const unsigned char *)t.s + at;
    size_t left = t.n - at;
    unsigned char b = p[0];
    if (b < 0x80) return *c = b, 1;
    *c = 0xfffd;
    int more = b >= 0xc2 && b <= 0xdf ? 1 : (b & 0xf0) == 0xe0 ? 2 : b >= 0xf0 && b <= 0xf4 ? 3 : 0;
    if (!more) return 1;
    // The range of the second byte excludes overlong forms, surrogates and code points above U+10FFFF.
    unsigned char low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    unsigned char high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    uint32_t value = b & (0x3fu >> more);
    for (int i = 1; i <= more; i++) {
        if ((size_t)i >= left || p[i] < low || p[i] > high) return (size_t)i;
        value = value << 6 | (p[i] & 0x3fu);
        low = 0x80, high = 0xbf;
    }
    return *c = value, (size_t)more + 1;
}

// The first byte at or after `at` that is not ASCII.
static size_t skip_ascii(Text t, size_t at) {
    for (uint64_t w; t.n - at >= 8; at += 8) {
        memcpy(&w, t.s + at, 8);
        if (w & 0x8080808080808080u) break;
    }
    while (at < t.n && (unsigned char)t.s[at] < 0x80) at++;
    return at;
}

size_t text_length(Text t) {
    size_t count = 0;
    for (size_t i = 0; i < t.n;) {
        size_t end = skip_ascii(t, i);
        count += end - i;
        i = end;
        for (uint32_t c; i < t.n && (unsigned char)t.s[i] >= 0x80; count++) i += text_char(t, i, &c);
    }
    return count;
}

// Which byte of `what` to search for: the '<' behind its newlines if there is one, since newlines are common and '<' is
// not.
static size_t anchor_of(Text what) {
    size_t k = 0;
    while (k + 1 < what.n && what.s[k] == '\n') k++;
    return k;
}

uint64_t text_hash(Text t) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < t.n; i++) h = (h ^ (unsigned char)t.s[i]) * 0x100000001b3u;
    return h;
}

size_t text_find(Text t, size_t from, Text what) {
    size_t k = anchor_of(what);
    for (size_t i = from; i <= t.n && what.n <= t.n - i; i++) {
        const char *hit = memchr(t.s + i + k, what.s[k], t.n - i - what.n + 1);
        if (!hit) return TEXT_NONE;
        i = (size_t)(hit - t.s) - k;
        if (memcmp(t.s + i, what.s, what.n) == 0) return i;
    }
    return TEXT_NONE;
}

size_t text_find_last(Text t, Text what) {
    for (size_t end = t.n; end >= what.n;) {
        const char *hit = memrchr(t.s, what.s[0], end - what.n + 1);
        if (!hit) return TEXT_NONE;
        size_t i = (size_t)(hit - t.s);
        if (memcmp(hit, what.s, what.n) == 0) return i;
        end = i + what.n - 1;
    }
    return TEXT_NONE;
}

size_t text_count(Text t, Text what, size_t *last_end) {
    size_t count = 0, end = 0;
    for (size_t i; (i = text_find(t, end, what)) != TEXT_NONE; count++) end = i + what.n;
    if (last_end) *last_end = end;
    return count;
}

bool text_is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

// Characters of Unicode 14 above ASCII, as ranges: Numeric_Type Decimal, and Numeric_Type Digit.
static const uint32_t decimal_range[][2] = {
    {0x660, 0x669},     {0x6f0, 0x6f9},     {0x7c0, 0x7c9},     {0x966, 0x96f},     {0x9e6, 0x9ef},
    {0xa66, 0xa6f},     {0xae6, 0xaef},     {0xb66, 0xb6f},     {0xbe6, 0xbef},     {0xc66, 0xc6f},
    {0xce6, 0xcef},     {0xd66, 0xd6f},     {0xde6, 0xdef},     {0xe50, 0xe59},     {0xed0, 0xed9},
    {0xf20, 0xf29},     {0x1040, 0x1049},   {0x1090, 0x1099},   {0x17e0, 0x17e9},   {0x1810, 0x1819},
    {0x1946, 0x194f},   {0x19d0, 0x19d9},   {0x1a80, 0x1a89},   {0x1a90, 0x1a99},   {0x1b50, 0x1b59},
    {0x1bb0, 0x1bb9},   {0x1c40, 0x1c49},   {0x1c50, 0x1c59},   {0xa620, 0xa629},   {0xa8d0, 0xa8d9},
    {0xa900, 0xa909},   {0xa9d0, 0xa9d9},   {0xa9f0, 0xa9f9},   {0xaa50, 0xaa59},   {0xabf0, 0xabf9},
    {0xff10, 0xff19},   {0x104a0, 0x104a9}, {0x10d30, 0x10d39}, {0x11066, 0x1106f}, {0x110f0, 0x110f9},
    {0x11136, 0x1113f}, {0x111d0, 0x111d9}, {0x112f0, 0x112f9}, {0x11450, 0x11459}, {0x114d0, 0x114d9},
    {0x11650, 0x11659}, {0x116c0, 0x116c9}, {0x11730, 0x11739}, {0x118e0, 0x118e9}, {0x11950, 0x11959},
    {0x11c50, 0x11c59}, {0x11d50, 0x11d59}, {0x11da0, 0x11da9}, {0x16a60, 0x16a69}, {0x16ac0, 0x16ac9},
    {0x16b50, 0x16b59}, {0x1d7ce, 0x1d7ff}, {0x1e140, 0x1e149}, {0x1e2f0, 0x1e2f9}, {0x1e950, 0x1e959},
    {0x1fbf0, 0x1fbf9}};
static const uint32_t digit_range[][2] = {
    {0xb2, 0xb3},     {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},   {0x2070, 0x2070},
    {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247c},   {0x2488, 0x2490},
    {0x24ea, 0x24ea}, {0x24f5, 0x24fd},   {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},
    {0x278a, 0x2792}, {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a}};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static bool in_ranges(uint32_t c, const uint32_t (*range)[2], size_t n) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > range[middle][1]) low = middle + 1;
        else high = middle;
    }
    return low < n && c >= range[low][0];
}

bool text_is_decimal(uint32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    return in_ranges(c, decimal_range, COUNT(decimal_range));
}

bool text_is_digit(uint32_t c) { return text_is_decimal(c) || in_ranges(c, digit_range, COUNT(digit_range)); }

size_t text_skip_digits(Text t, size_t at) {
    while (at < t.n && t.s[at] >= '0' && t.s[at] <= '9') at++;
    return at;
}

size_t text_skip_space(Text t, size_t at) {
    for (uint32_t c; at < t.n;) {
        size_t n = text_char(t, at, &c);
        if (!text_is_space(c)) break;
        at += n;
    }
    return at;
}

// The length of the white space character that ends t, or 0. They all have 1, 2 or 3 bytes, and a lead byte never
// continues another sequence, so a suffix that reads as one is one.
static size_t space_suffix(Text t) {
    for (size_t n = 1; n <= 3 && n <= t.n; n++) {
        uint32_t c;
        if (text_char(t, t.n - n, &c) == n && text_is_space(c)) return n;
    }
    return 0;
}

Text text_strip(Text t) {
    t = text_from(t, text_skip_space(t, 0));
    for (size_t n; (n = space_suffix(t));) t.n -= n;
    return t;
}

bool text_all_digits(Text t) {
    for (size_t at = 0; at < t.n;) {
        uint32_t c;
        at += text_char(t, at, &c);
        if (!text_is_digit(c)) return false;
    }
    return t.n > 0;
}
