// Opening files to read, and recognising by their first bytes files that should have been something else.
#include "file.h"
#include "signals.h"
#include "str.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- opening --------------------------------------------------------------------------------------------------------

static int cannot_open(const char *path, int number, Error *e) {
    char target[256];
    ssize_t n = number == ENOENT ? readlink(path, target, sizeof target - 1) : -1;
    if (n > 0) // as a download cache has them whose other half was removed
        error_set(e, EXIT_INPUT, "%s: is a link to %.*s, which is not there; fetch it again", path, (int)n, target);
    else error_set(e, number == EIO ? EXIT_DISK : EXIT_INPUT, "%s: cannot be opened: %s", path, error_open(number));
    return -1;
}

// What a file is, by name ("a pipe"), if it is no regular file; NULL if it is one.
static const char *irregular(mode_t mode) {
    return S_ISREG(mode)    ? NULL
           : S_ISDIR(mode)  ? "a directory"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

// Waits until a pipe has had a writer.
static bool await_writer(int fd, const char *path, Error *e) {
    for (bool said = false; !stop_requested(); said = true) {
        struct pollfd pipe = {.fd = fd, .events = POLLIN};
        if (poll(&pipe, 1, 1000 /* ms */) > 0) return true;
        if (!said && !stop_requested()) note("%s: is a pipe that nobody writes into yet; waiting", path);
    }
    return error_set(e, EXIT_STOPPED, "stopped by a signal");
}

// Whether a file of this mode may be opened; false after filling *e.
static bool acceptable(const char *path, mode_t mode, bool once, Error *e) {
    const char *what = irregular(mode);
    if (!what || (once && S_ISFIFO(mode))) return true;
    return error_set(e, EXIT_INPUT, "%s: is %s; give %s", path, what,
                     S_ISDIR(mode) ? "the path of a file in it"
                     : once        ? "a file, a pipe, or - for standard input"
                                   : "a regular file: save what comes from it into one first");
}

static int open_it(const char *path, bool once, Error *e) {
    struct stat st;
    if (stat(path, &st)) return cannot_open(path, errno, e);
    // Checked before it is opened, because opening a device may have an effect, and opening a pipe wakes a waiting
    // writer.
    if (!acceptable(path, st.st_mode, once, e)) return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st)) {
        cannot_open(path, errno, e);
        if (fd >= 0) close(fd);
        return -1;
    }
    bool good = acceptable(path, st.st_mode, once, e) && (!S_ISFIFO(st.st_mode) || await_writer(fd, path, e));
    if (good && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) == 0) return fd;
    close(fd);
    return -1;
}

bool file_regular(const char *path, Error *e) {
    struct stat st;
    if (stat(path, &st)) return cannot_open(path, errno, e) == 0;
    return acceptable(path, st.st_mode, false, e);
}

int file_open(const char *path, Error *e) { return open_it(path, false, e); }
int file_open_once(const char *path, Error *e) { return open_it(path, true, e); }

// ---- what it is -----------------------------------------------------------------------------------------------------

// A kind of file that cannot be read here, and how to mend that. Where `mend` is a command, %1 is the path, %2 the path
// of its output, %d the directory, each quoted for a shell.
typedef struct {
    const char *magic;
    int n, at; // bytes of the magic, and where they are in the file
    const char *what, *mend;
    const char *drop, *add; // %2 is %1 without the suffix `drop` ("." for any), and with `add`; see path_out
} Kind;

#define PANDAS(reader)                                                                                                 \
    "python3 -c \"import pandas, sys; pandas." reader                                                                  \
    "(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True)\" %1 %2"
#define ICONV(from) "iconv -f " from " -t UTF-8 %1 >%2"
static const char again[] = "fetch the file itself again";
// The kinds. A short word that a text may begin with is not enough to recognise one: hence the bytes around it.
static const Kind kinds[] = {
    {"version https://git-lfs.", 24, 0, "a Git LFS pointer, not the file it stands for", "git -C %d lfs pull"},
    {"/annex/objects/", 15, 0, "a git-annex pointer, not the file it stands for", "git -C %d annex get ."},
    {"\x1f\x8b", 2, 0, "compressed by gzip", "gzip -dc %1 >%2", ".gz", ""},
    {"\x28\xb5\x2f\xfd", 4, 0, "compressed by zstd", "zstd -dc %1 >%2", ".zst", ""},
    {"\3757zXZ", 6, 0, "compressed by xz", "xz -dc %1 >%2", ".xz", ""},
    {"1AY&SY", 6, 4, "compressed by bzip2", "bzip2 -dc %1 >%2", ".bz2", ""},
    {"\x04\x22\x4d\x18", 4, 0, "compressed by lz4", "lz4 -dc %1 >%2", ".lz4", ""},
    {"PK\x03\x04", 4, 0, "a zip archive (torch.save and spreadsheets write them too)", "unzip %1"},
    {"7z\xbc\xaf\x27\x1c", 6, 0, "a 7z archive", "7z x %1"},
    {"ustar", 5, 257, "a tar archive", "tar -xkf %1"},
    {"PAR1\x15", 5, 0, "a Parquet table", PANDAS("read_parquet"), ".", ".jsonl"},
    {"ARROW1\0", 8, 0, "an Arrow table", PANDAS("read_feather"), ".", ".jsonl"},
    {"\xff\xfe\0", 4, 0, "text in UTF-32", ICONV("UTF-32"), "", ".utf8"},
    {"\xff\xfe", 2, 0, "text in UTF-16", ICONV("UTF-16"), "", ".utf8"},
    {"\xfe\xff", 2, 0, "text in UTF-16", ICONV("UTF-16"), "", ".utf8"},
    {"GGUF", 4, 0, "a model in llama.cpp's format (GGUF)", "give a directory with config.json and safetensors"},
    {"\x93NUMPY", 6, 0, "a NumPy array", again},
    {"\x89HDF\r\n\x1a\n", 8, 0, "an HDF5 file", again},
    {"SQLite format 3", 16, 0, "an SQLite database", again},
    {"%PDF-", 5, 0, "a PDF document", again},
};
static const Kind stream = {
    "",
    0,
    0,
    "an Arrow stream (as the library datasets writes)",
    "python3 -c \"import datasets, sys; datasets.Dataset.from_file(sys.argv[1]).to_json(sys.argv[2])\" %1 %2",
    ".",
    ".jsonl"};
static const Kind pickle = {"", 0, 0, "a Python pickle (as torch.save writes)", "save it again as safetensors"};
static const Kind web_page = {"", 0, 0, "a web page, not the file that it shows",
                              "fetch the file itself (on a hub, /resolve/ in its address in place of /blob/)"};
static const Kind not_found = {"", 0, 0, "a server's answer that it has no such file", again};
static const Kind utf16_le = {"", 0, 0, "text in UTF-16", ICONV("UTF-16LE"), "", ".utf8"};
static const Kind utf16_be = {"", 0, 0, "text in UTF-16", ICONV("UTF-16BE"), "", ".utf8"};

static const Kind csv = {"", 0, 0, "a table in CSV", PANDAS("read_csv"), ".", ".jsonl"};
static const Kind tsv = {"", 0, 0, "a table with tabs", PANDAS("read_table"), ".", ".jsonl"};
static const Kind list = {"", 0, 0, "one JSON list, not an object a line", "jq -c '.[]' %1 >%2", ".", ".jsonl"};
static const Kind spread = {"", 0, 0, "JSON over many lines, not an object a line", "jq -c . %1 >%2", ".", ".jsonl"};

static bool starts(const char *s, size_t n, const char *word) {
    return n >= strlen(word) && !strncasecmp(s, word, strlen(word));
}

// Whether the text begins with characters below U+0100 in UTF-16, two bytes each, of which number `zero` is 0.
static bool is_wide(const char *head, size_t n, size_t zero) {
    for (size_t i = 0; i < 8; i++)
        if (n < 8 || (head[i] == 0) != (i % 2 == zero)) return false;
    return true;
}

static const Kind *kind_of(const char *head, size_t n) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const Kind *k = &kinds[i];
        if (n >= (size_t)(k->at + k->n) && !memcmp(head + k->at, k->magic, (size_t)k->n)) return k;
    }
    if (n >= 8 && !memcmp(head, "\xff\xff\xff\xff", 4) && !head[7]) return &stream; // then a length below 16 MiB
    if (n > 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5) return &pickle;
    if (n <= 16 && starts(head, n, "Entry not found")) return &not_found;
    while (n && (*head == ' ' || *head == '\t' || *head == '\r' || *head == '\n')) head++, n--;
    if (starts(head, n, "<!doctype html") || starts(head, n, "<html")) return &web_page;
    return is_wide(head, n, 1) ? &utf16_le : is_wide(head, n, 0) ? &utf16_be : NULL;
}

// Adds a word, quoted for a shell.
static void add_word(Str *s, const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-";
    bool quote = *word == '-' || word[strspn(word, plain)];
    if (quote) str_puts(s, *word == '-' ? "./'" : "'");
    for (; *word; word++) str_add(s, *word == '\'' ? "'\\''" : word, *word == '\'' ? 4 : 1);
    if (quote) str_puts(s, "'");
}

// A name beside `path` for the command's output, at which nothing is: a shell empties its output before it reads its
// input, so neither the file itself nor another of the user's may be named. Heap memory.
static char *path_out(const char *path, const Kind *k) {
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    size_t n = strlen(path), drop = strlen(k->drop);
    const char *add = k->add;
    if (!strcmp(k->drop, ".")) drop = dot ? strlen(dot) : 0;
    else if (drop && (n <= drop || strcmp(path + n - drop, k->drop))) drop = 0, add = ".out";
    struct stat st;
    int stem = (int)(n - drop);
    char *out = xasprintf("%.*s%s", stem, path, add);
    for (int i = 1; !strcmp(out, path) || !lstat(out, &st); i++) {
        free(out);
        if (i == 1 && !strcmp(add, ".jsonl")) out = xasprintf("%.*s.lines%s", stem, path, add);
        else out = xasprintf("%.*s-%d%s", stem, path, i + 1, add);
    }
    return out;
}

static void add_mend(Str *s, const Kind *k, const char *path) {
    const char *slash = strrchr(path, '/');
    char *directory = slash ? xstrndup(path, (size_t)(slash - path) + (slash == path)) : xstrdup(".");
    char *out = k->drop ? path_out(path, k) : NULL;
    if (strchr(k->mend, '%')) str_puts(s, "run: ");
    for (const char *p = k->mend; *p; p++) {
        if (*p != '%') str_add(s, p, 1);
        else p++, add_word(s, *p == '1' ? path : *p == '2' ? out : directory);
    }
    free(out);
    free(directory);
}

// Whether a text is a table: at least two names of columns in its first line, and no JSON object in the second.
static bool is_header(const char *s, size_t n, char separator) {
    const char *end = memchr(s, '\n', n);
    if (!end || !memchr(s, separator, (size_t)(end - s)) || end + 1 == s + n || end[1] == '{') return false;
    for (const char *p = s; p < end; p++) {
        char c = *p;
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80;
        if (p == s || p[-1] == separator ? !letter && c != '"' && c != '_' && c != separator
                                         : !letter && !strchr("0123456789\"_-. \r", c) && c != separator)
            return false;
    }
    return true;
}

static const Kind *lines_kind_of(const char *head, size_t n) {
    if (n >= 3 && !memcmp(head, "\xef\xbb\xbf", 3)) head += 3, n -= 3;
    while (n && (*head == ' ' || *head == '\t' || *head == '\r' || *head == '\n')) head++, n--;
    if (!n) return NULL;
    size_t at = 1;
    while (at < n && (head[at] == ' ' || head[at] == '\t' || head[at] == '\r')) at++;
    if (*head == '{') return at < n && head[at] == '\n' ? &spread : NULL;
    while (at < n && head[at] == '\n') at++;
    while (at < n && (head[at] == ' ' || head[at] == '\t')) at++;
    if (*head == '[') return at < n && head[at] == '{' ? &list : NULL;
    return is_header(head, n, ',') ? &csv : is_header(head, n, '\t') ? &tsv : NULL;
}

static bool say_kind(const char *path, const Kind *k, Error *e) {
    if (!k) return false;
    Str mend = {0};
    add_mend(&mend, k, access(path, F_OK) ? "FILE" : path);
    error_set(e, EXIT_INPUT, "%s: is %s; %s", path, k->what, mend.s);
    str_free(&mend);
    return true;
}

bool file_foreign(const char *path, const char *head, size_t n, Error *e) {
    return say_kind(path, kind_of(head, n), e);
}
bool file_foreign_lines(const char *path, const char *head, size_t n, Error *e) {
    return say_kind(path, lines_kind_of(head, n), e);
}

// ---- reading --------------------------------------------------------------------------------------------------------

char *file_read(const char *path, size_t limit, size_t *n, Error *e) {
    int fd = file_open(path, e);
    if (fd < 0) return NULL;
    // The size from stat would not do: files of /proc have none, and a file may grow while it is read.
    size_t cap = 1 << 16, used = 0;
    char *buf = xmalloc(cap);
    bool ok = true;
    for (ssize_t got = 1; ok && got;) {
        if (used + 1 >= cap) buf = xrealloc(buf, cap *= 2);
        got = read(fd, buf + used, cap - used - 1);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) ok = error_set(e, EXIT_DISK, "%s: cannot read at byte %zu: %s", path, used, strerror(errno));
        else used += (size_t)got;
        if (ok && used > limit)
            ok = error_set(e, EXIT_INPUT, "%s: larger than %zu bytes, the limit for this kind of file", path, limit);
    }
    close(fd);
    buf[ok ? used : 0] = 0;
    *n = used;
    if (ok) return buf;
    free(buf);
    return NULL;
}

char *file_read_text(const char *path, size_t limit, size_t *n, Error *e) {
    char *text = file_read(path, limit, n, e);
    if (!text || !file_foreign(path, text, *n, e)) return text;
    free(text);
    return NULL;
}

bool file_plain(const char *path, int64_t line, const char *text, size_t n, Error *e) {
    size_t at = str_plain(text, n), begin = 0;
    if (at == n) return true;
    for (size_t i = 0; i < at; i++)
        if (text[i] == '\n') line++, begin = i + 1;
    unsigned byte = (unsigned char)text[at];
    if (!byte)
        return error_set(e, EXIT_INPUT, "%s:%lld: byte %zu is a NUL, which no prompt may hold; take it out", path,
                         (long long)line, at - begin + 1);
    return error_set(e, EXIT_INPUT, "%s:%lld: byte %zu (%02x) is not UTF-8; save it as UTF-8, or change it by iconv",
                     path, (long long)line, at - begin + 1, byte);
}

char *file_read_plain(const char *path, size_t limit, size_t *n, Error *e) {
    char *text = file_read_text(path, limit, n, e);
    if (text && !file_plain(path, 1, text, *n, e)) free(text), text = NULL;
    if (text && !strncmp(text, "\xef\xbb\xbf", 3)) memmove(text, text + 3, (*n -= 3) + 1);
    return text;
}
