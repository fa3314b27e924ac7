// tools/bench_beside.sh, with scripts in place of two builds' benches: which rows it compares, and how.
#include "data.h"
#include "file.h"
#include "str.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/grpo-test-XXXXXX";

// A bench that writes `rows` as its table; each call takes the next value of what stands between braces.
static void make_bench(const char *name, const char *rows, int code) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "#!/bin/bash\nn=$(($(cat $0.calls 2>/dev/null || echo 0) + 1)); echo $n >$0.calls\n"
            "echo \"$*\" >$0.arguments\necho went wrong\n"
            "{ echo name,value,unit,limit\nprintf '%%s\\n' %s; } >$2\nexit %d\n",
            rows, code);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0755), 0);
}

// Runs the script on them; its exit status, all that it says in *out.
static int beside(const char *arguments, Str *out) {
    char command[512], part[4096];
    snprintf(command, sizeof command, "BENCH=%s/this tools/bench_beside.sh %s 2>&1", dir, arguments);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    str_clear(out);
    str_puts(out, "");
    for (size_t got; (got = fread(part, 1, sizeof part, f)) > 0;) str_add(out, part, got);
    return WEXITSTATUS(pclose(f));
}
static void assert_says(const Str *out, const char *text) {
    if (!strstr(out->s, text)) fail_msg("no \"%s\" in: %s", text, out->s);
}

static void medians_and_ratios(void **state) {
    Str out = {0};
    char arguments[128];
    make_bench("other", "'\"decode, B = 8\",'$((n * n)),ms,1 '\"train, f32\",'100,tokens/s, old,1,us,", 0);
    make_bench("this", "'\"train, f32\",'$((100 + 50 * n)),tokens/s, '\"decode, B = 8\",'2,ms,1 new,1,us,", 0);
    snprintf(arguments, sizeof arguments, "%s/other --device cpu train", dir);
    assert_int_equal(beside(arguments, &out), 0);
    assert_says(&out,
                "decode, B = 8                                                   4            2 ms            2.00x");
    assert_says(&out,
                "train, f32                                                    100          200 tokens/s      2.00x");
    assert_says(&out, "2 rows that one of the two alone has");
    assert_null(strstr(out.s, "old"));
    char path[128];
    size_t n = 0;
    Error e = {0};
    snprintf(path, sizeof path, "%s/this.arguments", dir);
    char *given = file_read(path, 4096, &n, &e);
    assert_non_null(given);
    assert_non_null(strstr(given, "this.3 --device cpu train"));
    free(given);
    snprintf(arguments, sizeof arguments, "-n 2 %s/other", dir); // calls 4 and 5: 16 and 25 ms
    assert_int_equal(beside(arguments, &out), 0);
    assert_says(&out, "20.5            2 ms           10.25x");
    str_free(&out);
}

static void faults_are_told(void **state) {
    Str out = {0};
    char arguments[128];
    make_bench("other", "a,1,ms,", 0);
    make_bench("this", "b,1,ms,", 0);
    snprintf(arguments, sizeof arguments, "%s/other", dir);
    assert_int_equal(beside(arguments, &out), 1);
    assert_says(&out, "no row that both have");
    make_bench("other", "a,1,ms,", 3);
    assert_int_equal(beside(arguments, &out), 1);
    assert_says(&out, "/other failed; the end of what it said:\nwent wrong");
    assert_int_equal(beside("/nowhere", &out), 2);
    assert_says(&out, "/nowhere is no program that can be run");
    static const char *const wrong[] = {"", "-n 0 x", "-n"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(beside(wrong[i], &out), 2);
        assert_says(&out, "usage: tools/bench_beside.sh");
    }
    str_free(&out);
}

static int remove_dir(void **state) {
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

int main(void) {
    if (!mkdtemp(dir)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(medians_and_ratios), cmocka_unit_test(faults_are_told)};
    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
