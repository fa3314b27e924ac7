// Encoding what a policy wrote, inside a template. See encode_around.h.
#include "encode_around.h"

// How many bytes a and b have in common at their beginning or, from_the_end, at their end.
static size_t common(const char *a, size_t n, const char *b, size_t m, bool from_the_end) {
    size_t same = 0;
    while (same < n && same < m && (from_the_end ? a[n - 1 - same] == b[m - 1 - same] : a[same] == b[same])) same++;
    return same;
}

// What two other texts have in common around them is the template's; found in this rendering, it is no word of the
// policy.
bool encode_around(const Tokenizer *t, RenderAround *render, const void *arg, Text said, Ids *out, Error *e) {
    Str x = {0}, y = {0}, text = {0};
    bool ok = render(arg, text_of("x"), &x, e) && render(arg, text_of("y"), &y, e) && render(arg, said, &text, e);
    if (ok && text.n) {
        size_t before = common(x.s, x.n, y.s, y.n, false), behind = common(x.s, x.n, y.s, y.n, true);
        before = common(x.s, before, text.s, text.n, false);
        behind = common(x.s + x.n - behind, behind, text.s + before, text.n - before, true);
        tokenizer_encode_around(t, text.s, text.n, before, text.n - behind, out);
    }
    str_free(&x), str_free(&y), str_free(&text);
    return ok;
}
