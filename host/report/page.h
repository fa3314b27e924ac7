// The HTML page: style, script and data, with a content security policy under which no other script runs.
#pragma once
#include "str.h"

// The style, and the script in pieces, as they stand in host/report/page/. NUL-terminated.
extern const char page_css[];
extern const char *const page_js[];
extern const int page_js_count;
extern const char page_mark[]; // the start of every page; page_write replaces only files that have it
// A page that shows `data`, a JSON text.
void page_make(Str *page, const char *data, size_t n);
// The file appears whole or not at all, in place of an earlier page only (EXIT_DISK).
bool page_write(const Str *page, const char *path, Error *e);
