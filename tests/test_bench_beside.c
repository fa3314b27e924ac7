// tools/bench_beside.sh, with scripts in place of two builds' benches: which rows it compares, and how.
#include "scratch.h"
#include "shell.h"

// A bench that writes `rows` as its table, where n is the number of the call, and keeps its arguments.
static void make_bench(const char *name, const char *rows, int code) {
    char *script = xasprintf("#!/bin/bash\nn=$(($(cat $0.calls 2>/dev/null || echo 0) + 1)); echo $n >$0.calls\n"
                             "echo \"$*\" >$0.arguments\necho went wrong\n"
                             "{ echo name,value,unit,limit\nprintf '%%s\\n' %s; } >$2\nexit %d\n",
                             rows, code);
    put_text(at("%s", name), script);
    assert_int_equal(chmod(at("%s", name), 0755), 0);
    free(script);
}

// Runs the script; it must end with `code` and say each of the texts, up to NULL.
static void beside(const char *arguments, int code, const char *const *texts) {
    char says[4096], *command = xasprintf("BENCH=%s/this tools/bench_beside.sh %s 2>&1", scratch, arguments);
    int ended = shell_run(command, says, sizeof says);
    if (ended != code) fail_msg("%s: exit code %d: %s", command, ended, says);
    for (; *texts; texts++)
        if (!strstr(says, *texts)) fail_msg("%s: no \"%s\" in: %s", command, *texts, says);
    free(command);
}
#define BESIDE(arguments, code, ...) beside(arguments, code, (const char *const[]){__VA_ARGS__, NULL})

static void medians_and_ratios(void **state) {
    make_bench("other", "'\"decode, B = 8\",'$((n * n)),ms,1 '\"train, f32\",'100,tokens/s, old,1,us,", 0);
    make_bench("this", "'\"train, f32\",'$((100 + 50 * n)),tokens/s, '\"decode, B = 8\",'2,ms,1 new,1,us,", 0);
    char *arguments = xasprintf("%s --device cpu train", at("other"));
    BESIDE(arguments, 0, // a time of 1, 4 and 9, a rate of 150, 200 and 250
           "decode, B = 8                                                   4            2 ms            2.00x\n"
           "train, f32                                                    100          200 tokens/s      2.00x\n"
           "2 rows that one of the two alone has\n");
    free(arguments);
    size_t n = 0;
    Error e = {0};
    char *given = file_read(at("this.arguments"), 4096, &n, &e);
    if (!given) fail_msg("%s", e.text);
    assert_non_null(strstr(given, "this.3 --device cpu train"));
    free(given);
    arguments = xasprintf("-n 2 %s", at("other")); // calls 4 and 5: 16 and 25
    BESIDE(arguments, 0, "20.5            2 ms           10.25x");
    free(arguments);
}

static void faults_are_told(void **state) {
    make_bench("other", "a,1,ms,", 0);
    make_bench("this", "b,1,ms,", 0);
    BESIDE(at("other"), 1, "no row that both have");
    make_bench("other", "a,1,ms,", 3);
    BESIDE(at("other"), 1, "/other failed; the end of what it said:\nwent wrong");
    BESIDE("/nowhere", 2, "/nowhere is no program that can be run");
    static const char *const wrong[] = {"", "-n 0 x", "-n"};
    for (int i = 0; i < 3; i++) BESIDE(wrong[i], 2, "usage: tools/bench_beside.sh");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(medians_and_ratios, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(faults_are_told, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
