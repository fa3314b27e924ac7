// Opening files: what is no regular file is refused at once, and what is another kind of file is named.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "file.h"
#include "json.h"
#include "jsonl.h"
#include "scratch.h"

// Nobody ever opens the other end: who waits for it is killed by the alarm.
static void only_regular_files_are_opened(void **state) {
    alarm(20);
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof name.sun_path, "%s", at("socket"));
    assert_int_equal(bind(s, (struct sockaddr *)&name, sizeof name), 0);
    close(s);
    assert_int_equal(symlink("nowhere", at("dangling")), 0);
    const struct {
        const char *path, *word;
        bool once; // refused too where a pipe would do
    } bad[] = {{at("pipe"), "is a pipe", false},
               {at("socket"), "is a socket", true},
               {"/dev/zero", "is a device", true},
               {scratch, "is a directory", true},
               {at("dangling"), "is a link to nowhere", true}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Error e = {0};
        size_t n;
        assert_int_equal(file_open(bad[i].path, &e), -1);
        SAYS(&e, bad[i].path, bad[i].word);
        assert_int_equal(e.code, EXIT_INPUT);
        assert_null(file_read(bad[i].path, 1 << 20, &n, NULL));
        assert_null(json_read(bad[i].path, NULL));
        assert_false(file_regular(bad[i].path, NULL));
        if (!bad[i].once) continue;
        assert_int_equal(file_open_once(bad[i].path, &e), -1);
        SAYS(&e, bad[i].path, bad[i].word);
    }
    alarm(0);
}

// A pipe read once: its writer may come late, and may be gone before the first byte is read.
static void a_pipe_is_read_once(void **state) {
    alarm(20);
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    pid_t child = fork();
    if (child == 0) {
        usleep(50000);
        int fd = open(at("pipe"), O_WRONLY);
        _exit(fd < 0 || write(fd, "{\"a\": 1}\n", 9) != 9);
    }
    LineReader r;
    Error e = {0};
    char *line;
    size_t n;
    if (!line_reader_open(&r, at("pipe"), &e)) fail_aloud("%s", e.text);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(line_reader_next(&r, &line, &n, &e), 1);
    assert_string_equal(line, "{\"a\": 1}");
    assert_int_equal(line_reader_next(&r, &line, &n, &e), 0);
    line_reader_close(&r);
    alarm(0);
}

// What files begin with, as the tools themselves write them.
static void other_kinds_of_files_are_named(void **state) {
    static const char tar[263] = {[257] = 'u', 's', 't', 'a', 'r'};
    static const struct {
        const char *name, *bytes;
        size_t n;
        const char *what, *mend; // where `mend` is a command, %s is the directory
    } kinds[] = {
        {"m.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", 65, "Git LFS",
         "git -C %s lfs pull"},
        {"a.jsonl.gz", "\x1f\x8b\x08\0\0\0\0\0\0\x03", 10, "gzip", "gzip -dc %s/a.jsonl.gz >%s/a.jsonl"},
        {"plain", "\x1f\x8b\x08\0\0\0\0\0\0\x03", 10, "gzip", "gzip -dc %s/plain >%s/plain.out"},
        {"a.zst", "\x28\xb5\x2f\xfd\x24\x01\x09\0", 8, "zstd", "zstd -dc %s/a.zst >%s/a"},
        {"a.xz", "\3757zXZ\0\0\x04", 8, "xz", "xz -dc %s/a.xz >%s/a"},
        {"a.bz2", "BZh91AY&SY\0\0", 12, "bzip2", "bzip2 -dc %s/a.bz2 >%s/a"},
        {"a.lz4", "\x04\x22\x4d\x18\x64\x40", 6, "lz4", "lz4 -dc %s/a.lz4 >%s/a"},
        {"a.zip", "PK\x03\x04\x14\0", 6, "zip", "unzip %s/a.zip"},
        {"a.tar", tar, sizeof tar, "tar", "tar -xkf %s/a.tar"},
        {"a b.parquet", "PAR1\x15\x04\x15\x10", 8, "Parquet", "lines=True)\" '%s/a b.parquet' '%s/a b.jsonl'"},
        {"a.arrow", "ARROW1\0\0", 8, "Arrow", "%s/a.arrow %s/a.jsonl"},
        {"s.arrow", "\xff\xff\xff\xff\x88\0\0\0", 8, "Arrow", "%s/s.arrow %s/s.jsonl"},
        {"bom", "\xff\xfe{\0\"\0a\0\"\0", 10, "UTF-16", "iconv -f UTF-16 -t UTF-8 %s/bom >%s/bom.utf8"},
        {"le", "{\0\"\0a\0\"\0", 8, "UTF-16", "iconv -f UTF-16LE"},
        {"be", "\0{\0\"\0a\0\"", 8, "UTF-16", "iconv -f UTF-16BE"},
        {"wide", "\xff\xfe\0\0{\0\0\0", 8, "UTF-32", "iconv -f UTF-32"},
        {"m.gguf", "GGUF\x03\0\0\0", 8, "GGUF", "safetensors"},
        {"m.bin", "\x80\x02}q", 4, "pickle", "safetensors"},
        {"page", "\n <!DOCTYPE html><html>", 23, "web page", "/resolve/"},
        {"none", "Entry not found", 15, "no such file", "again"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        Error e = {0};
        size_t n;
        char mend[512];
        snprintf(mend, sizeof mend, kinds[i].mend, scratch, scratch);
        put_bytes(at("%s", kinds[i].name), kinds[i].bytes, kinds[i].n);
        assert_null(json_read(at("%s", kinds[i].name), &e));
        SAYS(&e, at("%s", kinds[i].name), kinds[i].what, mend);
        assert_int_equal(e.code, EXIT_INPUT);
        assert_null(file_read_text(at("%s", kinds[i].name), 1 << 20, &n, NULL));
        char *bytes = file_read(at("%s", kinds[i].name), 1 << 20, &n, NULL);
        assert_int_equal(n, kinds[i].n);
        free(bytes);
    }
    Error e = {0};
    assert_true(file_foreign("standard input", "\x1f\x8b\x08", 3, &e));
    SAYS(&e, "standard input: is", "gzip -dc FILE >FILE.out");
    put_bytes(at("it's;x"), "\x1f\x8b\x08", 3);
    assert_null(json_read(at("it's;x"), &e));
    SAYS(&e, "/it'\\''s;x'");
}

// A shell empties a command's output before the command reads its input: what is advised names a file that is not
// there.
static void advice_spares_files(void **state) {
    static const char list[] = "[{\"a\": 1}]", spread[] = "{\n \"a\": 1}", csv[] = "a,b\nc,d\n",
                      tabs[] = "a\tb\nc\td\n";
    static const struct {
        const char *name, *bytes;
        size_t n;
        const char *there, *out; // files that are there too, cut at spaces; the output
    } cases[] = {
        {"a.json", list, sizeof list - 1, "", "a.jsonl"},
        {"a.jsonl", list, sizeof list - 1, "", "a.lines.jsonl"},
        {"a.json", list, sizeof list - 1, "a.jsonl", "a.lines.jsonl"},
        {"a.jsonl", list, sizeof list - 1, "a.lines.jsonl", "a-3.jsonl"},
        {"a.lines.jsonl", list, sizeof list - 1, "", "a.lines.lines.jsonl"},
        {"a.json", spread, sizeof spread - 1, "", "a.jsonl"},
        {"a.jsonl", spread, sizeof spread - 1, "", "a.lines.jsonl"},
        {"a.lines.jsonl", spread, sizeof spread - 1, "", "a.lines.lines.jsonl"},
        {"a", spread, sizeof spread - 1, "", "a.jsonl"},
        {"a.jsonl", csv, sizeof csv - 1, "", "a.lines.jsonl"},
        {"a.csv", csv, sizeof csv - 1, "a.jsonl a.lines.jsonl a-3.jsonl", "a-4.jsonl"},
        {"a.jsonl", tabs, sizeof tabs - 1, "", "a.lines.jsonl"},
        {"a.jsonl", "PAR1\x15", 5, "", "a.lines.jsonl"},
        {"a.jsonl", "ARROW1\0", 8, "", "a.lines.jsonl"},
        {"a.jsonl", "\xff\xff\xff\xff\x88\0\0\0", 8, "", "a.lines.jsonl"},
        {"a.gz", "\x1f\x8b\x08", 3, "a", "a-2"},
        {"a", "\x1f\x8b\x08", 3, "a.out", "a-2.out"},
        {"a", "\xff\xfe{\0", 4, "a.utf8", "a-2.utf8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error e = {0};
        char there[64], *save = NULL, end[512];
        put_bytes(at("%s", cases[i].name), cases[i].bytes, cases[i].n);
        snprintf(there, sizeof there, "%s", cases[i].there);
        for (char *name = strtok_r(there, " ", &save); name; name = strtok_r(NULL, " ", &save))
            put_text(at("%s", name), "");
        bool foreign = file_foreign(at("%s", cases[i].name), cases[i].bytes, cases[i].n, &e) ||
                       file_foreign_lines(at("%s", cases[i].name), cases[i].bytes, cases[i].n, &e);
        assert_true(foreign);
        snprintf(end, sizeof end, "%s/%s", scratch, cases[i].out);
        size_t n = strlen(e.text), m = strlen(end);
        if (n <= m || !strchr(" >", e.text[n - m - 1]) || strcmp(e.text + n - m, end))
            fail_aloud("not %s: %s", end, e.text);
        assert_int_equal(scratch_teardown(NULL), 0);
        assert_int_equal(scratch_setup(NULL), 0);
    }
    put_bytes(at("a"), "\xff\xfe{\0", 4); // a link that leads nowhere is somebody's, too
    assert_int_equal(symlink("nowhere", at("a.utf8")), 0);
    Error e = {0};
    assert_true(file_foreign(at("a"), "\xff\xfe{\0", 4, &e));
    SAYS(&e, "/a-2.utf8");
}

// A prompt's text has no format that would find a byte which is none of text: it is looked for, and placed.
static void plain_text_is_checked(void **state) {
    static const struct {
        const char *bytes;
        size_t n;
        const char *says; // NULL: it is taken
    } cases[] = {
        {"", 0, NULL},
        {"Think.\nThen \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\r\n\x01", 26, NULL},
        {"You are\0 kind.", 14, "text:1: byte 8 is a NUL"},
        {"one\ntwo\nth\xe9\n", 12, "text:3: byte 3 (e9) is not UTF-8"},
        {"\xc0\x80", 2, "text:1: byte 1 (c0) is not UTF-8"},
        {"a\xed\xa0\x80", 4, "text:1: byte 2 (ed) is not UTF-8"},
        {"a\xe2\x82", 3, "text:1: byte 2 (e2) is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error e = {0};
        size_t n = 99;
        put_bytes(at("text"), cases[i].bytes, cases[i].n);
        char *text = file_read_plain(at("text"), 100, &n, &e);
        if (!text != (cases[i].says != NULL)) fail_aloud("%zu: %s", i, e.text);
        if (text) assert_int_equal(n, cases[i].n), assert_memory_equal(text, cases[i].bytes, n + 1);
        else SAYS(&e, scratch, cases[i].says);
        if (!text) assert_int_equal(e.code, EXIT_INPUT);
        free(text);
    }
    Error e = {0};
    size_t n;
    put_text(at("text"), "\xef\xbb\xbfYou are kind.");
    char *text = file_read_plain(at("text"), 100, &n, &e);
    assert_string_equal(text, "You are kind.");
    assert_int_equal(n, 13);
    free(text);
    assert_false(file_plain("standard input", 7, "a\0", 2, &e));
    SAYS(&e, "standard input:7: byte 2 is a NUL");
}

static void text_is_not_taken_for_something_else(void **state) {
    static const char *const texts[] = {"",
                                        "{}",
                                        "BZh is a word",
                                        "ORC, PAR1 and ARROW1",
                                        "PAR1",
                                        "version 2",
                                        "Entry not found in the index, so we go on",
                                        "\xef\xbb\xbf{}",
                                        "<think> first",
                                        "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2",
                                        "\xff\x41"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Error e = {0};
        if (file_foreign("text", texts[i], strlen(texts[i]), &e)) fail_aloud("%s", e.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_regular_files_are_opened, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_pipe_is_read_once, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(other_kinds_of_files_are_named, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(advice_spares_files, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(plain_text_is_checked, scratch_setup, scratch_teardown),
        cmocka_unit_test(text_is_not_taken_for_something_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
