// Reading the lines of a file in bounded memory, and the fields of a JSON line.
#include "file.h"
#include "json.h"
#include "jsonl.h"
#include "signals.h"
#include "str.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>

void line_reader_close(LineReader *r) {
    if (r->buffer && r->fd != STDIN_FILENO) close(r->fd);
    free(r->buffer);
    *r = (LineReader){.fd = -1};
}

// Reads more bytes into the buffer; false after filling *e.
static bool fill(LineReader *r, Error *e) {
    if (r->begin > 0 && (r->end == r->cap || r->begin == r->end)) {
        memmove(r->buffer, r->buffer + r->begin, r->end - r->begin);
        r->end -= r->begin;
        r->begin = 0;
    }
    if (r->end == r->cap) {
        r->cap *= 2;
        r->buffer = xrealloc(r->buffer, r->cap + 1);
    }
    ssize_t n;
    do {
        if (!signals_wait(r->fd)) return error_set(e, EXIT_STOPPED, "stopped by a signal");
        n = read(r->fd, r->buffer + r->end, r->cap - r->end);
    } while (n < 0 && (errno == EINTR || errno == EAGAIN));
    if (n < 0) return error_set(e, EXIT_DISK, "%s: reading failed: %s", r->path, strerror(errno));
    if (n == 0) r->last = true;
    r->end += (size_t)n;
    if (r->known) return true;
    r->known = true; // a pipe gives what it has: few bytes may hide what it is
    size_t head = r->end < FILE_HEAD ? r->end : FILE_HEAD;
    return !file_foreign(r->path, r->buffer, head, e) &&
           !(r->json && file_foreign_lines(r->path, r->buffer, r->end, e));
}

static bool open_lines(LineReader *r, const char *path, bool json, Error *e) {
    bool standard_input = strcmp(path, "-") == 0;
    *r = (LineReader){.path = standard_input ? "standard input" : path, .cap = 64 << 10, .json = json};
    r->fd = standard_input ? STDIN_FILENO : file_open_once(path, e);
    if (r->fd < 0) return false;
    r->buffer = xmalloc(r->cap + 1);
    // Not for a pipe: its first line may be long in coming.
    if (lseek(r->fd, 0, SEEK_CUR) < 0 || fill(r, e)) return true;
    line_reader_close(r);
    return false;
}

bool line_reader_open(LineReader *r, const char *path, Error *e) { return open_lines(r, path, false, e); }
bool line_reader_open_json(LineReader *r, const char *path, Error *e) { return open_lines(r, path, true, e); }

// Finds the end of the line that begins at r->begin: its length in *n, with its newline in *whole. Of a line over the
// limit only the first bytes are kept, and *whole is more than JSONL_MAX_LINE. False after filling *e.
static bool find_line(LineReader *r, size_t *n, size_t *whole, Error *e) {
    size_t dropped = 0;
    for (size_t seen = 0;;) {
        char *start = r->buffer + r->begin, *newline = memchr(start + seen, '\n', r->end - r->begin - seen);
        seen = r->end - r->begin;
        if (newline || r->last) {
            *n = newline ? (size_t)(newline - start) : seen;
            *whole = dropped + *n + (newline ? 1 : 0);
            return true;
        }
        if (seen > JSONL_MAX_LINE) { // nothing of it is needed any more
            dropped += seen;
            r->begin = r->end = seen = 0;
        }
        if (!fill(r, e)) return false;
    }
}

int line_reader_next(LineReader *r, char **text, size_t *n, Error *e) {
    for (;;) {
        size_t whole;
        if (!find_line(r, n, &whole, e)) return -1;
        if (whole == 0) return 0;
        r->line++;
        r->offset = r->next;
        r->next += (int64_t)whole;
        char *s = r->buffer + r->begin;
        bool newline = r->begin + *n < r->end;
        r->begin += *n + newline;
        if (whole > JSONL_MAX_LINE) {
            error_set(e, EXIT_INPUT, "%s:%lld: the line is longer than %zu MiB; is this a JSONL file?", r->path,
                      (long long)r->line, JSONL_MAX_LINE >> 20);
            return -1;
        }
        s[*n] = 0;
        if (r->offset == 0 && strncmp(s, "\xef\xbb\xbf", 3) == 0) s += 3, *n -= 3;
        if (*n > 0 && s[*n - 1] == '\r') s[--*n] = 0;
        if (strspn(s, " \t\r") == *n) continue;
        *text = s;
        return 1;
    }
}

void line_reader_seek(LineReader *r, int64_t offset, int64_t line) {
    r->next = offset;
    r->line = line - 1;
    r->begin = r->end = 0;
    r->last = lseek(r->fd, offset, SEEK_SET) < 0;
}

const char *json_field_string(const json_t *object, const char *field, const char *where, Error *e) {
    const json_t *value = json_object_get(object, field);
    if (!value) return error_set(e, EXIT_INPUT, "%s: no field \"%s\"", where, field), NULL;
    if (!json_is_written_string(value))
        return error_set(e, EXIT_INPUT, "%s: \"%s\" is not a string", where, field), NULL;
    const char *s = json_string_value(value);
    if (strlen(s) != json_string_length(value))
        return error_set(e, EXIT_INPUT, "%s: \"%s\" holds a NUL character", where, field), NULL;
    return s;
}

void json_field_to_text(json_t *object, const char *field) {
    json_t *value = json_object_get(object, field);
    Str text = {0};
    if (!json_wide_number(value) && !json_is_number(value) && !json_is_array(value) && !json_is_object(value)) return;
    json_write(&text, value, JSON_TIGHT);
    json_object_set_new(object, field, json_string(text.s));
    str_free(&text);
}
