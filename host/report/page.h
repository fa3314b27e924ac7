// The page itself: style and script beside the data, under a policy that lets nothing else run.
#pragma once
#include "str.h"

// The style, and the script in pieces, as they stand in host/report/page/. NUL-terminated.
extern const char page_css[];
extern const char *const page_js[];
extern const int page_js_count;
extern const char page_mark[]; // at the start of what page_write may replace
// A page that shows `data`, a JSON text.
void page_make(Str *page, const char *data, size_t n);
// The file appears whole or not at all, in place of an earlier page only (EXIT_DISK).
bool page_write(const Str *page, const char *path, Error *e);
