// Thoughts and summary: where the markers are in a completion.
#include "think.h"
#include "str.h"
#include <stdio.h>
#include <string.h>

const ThinkMarkers think_tags = {"<think>", "</think>"};

bool think_markers_read(ThinkMarkers *m, char *const *marker, int n, Error *e) {
    if (n != 2)
        return error_set(e, EXIT_CONFIG,
                         "think_markers wants two texts, what stands before the thoughts and what stands behind them "
                         "(the same one twice, if you like), not %d",
                         n);
    for (int i = 0; i < 2; i++) {
        size_t bytes = strlen(marker[i]);
        if (bytes >= THINK_MARKER_MAX)
            return error_set(e, EXIT_CONFIG, "think_markers: `%.20s...` has %zu bytes, %d are the most", marker[i],
                             bytes, THINK_MARKER_MAX - 1);
        if (!text_strip(text_of(marker[i])).n || text_strip(text_of(marker[i])).n != bytes)
            return error_set(e, EXIT_CONFIG, "think_markers: `%s` is blank, or has white space at an end", marker[i]);
    }
    snprintf(m->open, sizeof m->open, "%s", marker[0]);
    snprintf(m->close, sizeof m->close, "%s", marker[1]);
    return true;
}

// Where the first opening marker ends and the last closing one begins; TEXT_NONE: there is none. One marker that is
// both closes only where another one opened.
static void find(const ThinkMarkers *m, Text t, size_t *open_end, size_t *close) {
    size_t open = text_find(t, 0, text_of(m->open));
    *open_end = open == TEXT_NONE ? TEXT_NONE : open + strlen(m->open);
    *close = text_find_last(t, text_of(m->close));
    if (*close == open) *close = TEXT_NONE;
}

Text thoughts_of(const ThinkMarkers *m, Text t) {
    size_t begin, end;
    find(m, t, &begin, &end);
    if (begin == TEXT_NONE) begin = 0;
    return text_slice(t, begin, end == TEXT_NONE || end < begin ? t.n : end);
}

Text after_thoughts(const ThinkMarkers *m, Text t) {
    size_t begin, end;
    find(m, t, &begin, &end);
    return end == TEXT_NONE ? (Text){0} : text_from(t, end + strlen(m->close));
}

Text summary_of(const ThinkMarkers *m, Text t) {
    Text after = after_thoughts(m, t);
    return text_strip(after.s ? after : t);
}

bool think_is_whole(const ThinkMarkers *m, Text t) {
    Text open = text_of(m->open), close = text_of(m->close);
    size_t each = text_equal(open, close) ? 2 : 1;
    if (!text_at(t, 0, open) || text_count(t, open, NULL) != each || text_count(t, close, NULL) != each) return false;
    return text_strip(thoughts_of(m, t)).n && summary_of(m, t).n;
}

char *think_replace(const ThinkMarkers *m, const char *text) {
    const char *const tag[] = {think_tags.open, think_tags.close}, *const marker[] = {m->open, m->close};
    Str out = {0};
    str_puts(&out, "");
    while (*text) {
        int k = 0;
        while (k < 2 && strncmp(text, tag[k], strlen(tag[k]))) k++;
        if (k < 2) str_puts(&out, marker[k]), text += strlen(tag[k]);
        else str_add(&out, text++, 1);
    }
    return out.s;
}

Text think_beside(const char *before, const char *marker, const char *after, char room[THINK_ROOM]) {
    int n = snprintf(room, THINK_ROOM, "%s%s%s", before, marker, after);
    if (n < 0 || n >= THINK_ROOM) die("a marker has no room");
    return (Text){room, (size_t)n};
}
