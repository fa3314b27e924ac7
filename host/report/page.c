// Writes the report as one self-contained HTML file. See page.h.
#include "page.h"
#include "whole.h"
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

const char page_mark[] = "<!-- grpo report -->\n"; // by this a page of ours is recognized

// Appends JSON for use inside <script>. Every '<' (only strings can have one) is escaped, so that no text ends the
// element.
static void add_data(Str *page, const char *data, size_t n) {
    for (const char *end = data + n, *hit; data < end; data = hit + 1) {
        hit = memchr(data, '<', (size_t)(end - data));
        if (!hit) return str_add(page, data, (size_t)(end - data));
        str_add(page, data, (size_t)(hit - data));
        str_puts(page, "\\u003c");
    }
}

void page_make(Str *page, const char *data, size_t n) {
    uint64_t nonce[2]; // random, drawn after the logs were written, so that no completion can contain it
    if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce) die("getrandom: %s", strerror(errno));
    char key[40];
    snprintf(key, sizeof key, "%016llx%016llx", (unsigned long long)nonce[0], (unsigned long long)nonce[1]);
    str_printf(
        page,
        "<!doctype html>%s<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'nonce-%s'; "
        "style-src 'nonce-%s'; base-uri 'none'; form-action 'none'\">\n"
        "<meta name=\"viewport\" content=\"width=device-width\">\n<title>grpo report</title>\n<style nonce=\"%s\">\n",
        page_mark, key, key, key);
    str_puts(page, page_css);
    str_puts(page, "</style></head><body><main></main>\n<script type=\"application/json\" id=\"data\">");
    add_data(page, data, n);
    str_printf(page, "</script>\n<script nonce=\"%s\">\n\"use strict\";\n", key);
    for (int i = 0; i < page_js_count; i++) str_puts(page, page_js[i]);
    str_puts(page, "</script></body></html>\n");
}

static bool is_page(int fd) {
    char start[64] = "";
    return read(fd, start, sizeof start - 1) > 0 && strstr(start, page_mark);
}

bool page_write(const Str *page, const char *path, Error *e) {
    struct stat st;
    if (!stat(path, &st) && S_ISDIR(st.st_mode))
        return error_set(e, EXIT_DISK, "%s: is a directory; name a file, such as %s/report.html", path, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool other = fd >= 0 ? !is_page(fd) : errno != ENOENT;
    if (fd >= 0) close(fd);
    if (other && !access(path, F_OK))
        return error_set(e, EXIT_DISK, "%s: is there and is no report; move it away, or name another file", path);
    char *place = whole_place(path);
    bool ok = whole_write(place, page->s, page->n, false, e) || error_prefix(e, "the report");
    free(place);
    return ok;
}
