// The text of each token of a completion (pieces.h).
#include "pieces.h"
#include <stdlib.h>
#include <string.h>

enum { CHARACTER_MOST = 4 }; // the most tokens of a character, as it has at most so many bytes

// Whether a decoded text ends in U+FFFD: the bytes so far are no character, or not yet a whole one.
static bool is_open(const Str *s) { return s->n >= 3 && !memcmp(s->s + s->n - 3, "\xef\xbf\xbd", 3); }

char **token_pieces(const Tokenizer *t, const int32_t *ids, int n) {
    char **piece = xcalloc((size_t)n + 1, sizeof *piece);
    Str s = {0};
    for (int i = 0, begin = 0; i < n; i++) {
        str_clear(&s);
        tokenizer_decode(t, ids + begin, (size_t)(i + 1 - begin), false, &s);
        bool waits = is_open(&s) && i + 1 < n && i + 1 - begin < CHARACTER_MOST;
        piece[i] = xstrdup(waits || !s.n ? "" : s.s);
        if (!waits) begin = i + 1;
    }
    str_free(&s);
    return piece;
}
