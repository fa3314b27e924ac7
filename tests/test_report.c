// grpo report: the page is whole or absent, bounded, and has the logs' numbers; what a completion says stays data.
#include "clock.h"
#include "json.h"
#include "live.h"
#include "report.h"
#include "runs.h"
#include "str.h"
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "scratch.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static char *page_read(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = calloc(1, 16 << 20);
    *n = fread(text, 1, (16 << 20) - 1, f);
    fclose(f);
    return text;
}

// The runs as the page's script will read them.
static json_t *runs_of(const char *page) {
    const char *start = strstr(page, "id=\"data\">"), *end = start ? strstr(start, "</script>") : NULL;
    assert_non_null(end);
    start += strlen("id=\"data\">");
    Error e = {0};
    json_t *all = json_parse(start, (size_t)(end - start), "page", &e);
    if (!all) fail_aloud("%s", e.text);
    json_t *runs = json_incref(json_object_get(all, "runs"));
    json_decref(all);
    return runs;
}

static json_t *page_runs(const char *path) {
    size_t n;
    char *page = page_read(path, &n);
    json_t *runs = runs_of(page);
    free(page);
    return runs;
}

static bool make(const char *const *dirs, int n, const char *path, Error *e) {
    Report *r = report_open(dirs, n);
    bool ok = report_read(r, e) && report_write(r, path, false, e);
    report_close(r);
    return ok;
}

static json_t *made_runs(const char *dir, const char *path) {
    Error e = {0};
    if (!make(&dir, 1, path, &e)) fail_aloud("%s", e.text);
    return page_runs(path);
}

// json_at(j, "a", "b", NULL): j.a.b
static json_t *json_at(const json_t *j, ...) {
    va_list ap;
    va_start(ap, j);
    for (const char *name; (name = va_arg(ap, const char *));) {
        j = json_object_get(j, name);
        if (!j) fail_aloud("no %s", name);
    }
    va_end(ap);
    return (json_t *)(uintptr_t)j;
}
static json_int_t whole(const json_t *j, const char *a, const char *b) {
    return json_integer_value(json_at(j, a, b, NULL));
}

static void hostile_text_stays_data(void **state) {
    static const char evil[] = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>\"'\\u202e";
    Str log = {0};
    str_puts(&log, "{\"step\": 1, \"prompt\": \"p\", \"completion\": ");
    str_json(&log, evil, strlen(evil));
    str_puts(&log,
             ", \"answer\": \"1\"}\nno JSON\n{\"step\": 1, \"prompt\": \"p\", \"comp"); // a killed run's half line
    put_text(at("completions.jsonl"), log.s);
    put_text(at("metrics.jsonl"), "{\"step\": 1, \"</script><b>\": 2, \"reward\": null}\nhalf");
    json_t *runs = made_runs(scratch, at("report.html")), *run = json_array_get(runs, 0);
    const json_t *groups = json_at(run, "completions", "groups", NULL);
    assert_int_equal(json_array_size(groups), 1);
    const json_t *item = json_array_get(json_at(json_array_get(groups, 0), "items", NULL), 0);
    assert_string_equal(json_string_value(json_object_get(item, "completion")), evil);
    assert_int_equal(whole(run, "completions", "torn"), 1);
    assert_true(json_is_true(json_object_get(run, "half")));
    assert_non_null(json_at(run, "train", "columns", "</script><b>", NULL));
    json_decref(runs);
    size_t n;
    char *page = page_read(at("report.html"), &n);
    assert_null(strstr(page, "alert(1)</"));
    assert_null(strstr(page, "<img"));
    assert_null(strstr(page, "</script><b>"));
    free(page), str_free(&log);
}

// Every number of a short log is there; of a long one an even sample with the first and the last step.
static void numbers_are_the_logs(void **state) {
    Str log = {0};
    for (int i = 1; i <= 20000; i++) {
        str_printf(&log, "{\"step\": %d, \"reward\": %.9g", i, (double)((float)i / 7));
        for (int k = 0; k < 38; k++) str_printf(&log, ", \"a longer name %d\": %d", k, i + k);
        str_puts(&log, "}\n");
        if (i % 100 == 0) str_printf(&log, "{\"step\": %d, \"eval/accuracy\": 0.5}\n", i);
        if (i != 5 && i != 20000) continue;
        put_text(at("metrics.jsonl"), log.s);
        json_t *runs = made_runs(scratch, at("report.html")), *run = json_array_get(runs, 0);
        const json_t *steps = json_at(run, "train", "columns", "step", NULL);
        const json_t *rewards = json_at(run, "train", "columns", "reward", NULL);
        size_t n = json_array_size(steps);
        json_int_t stride = whole(run, "train", "stride");
        assert_int_equal(whole(run, "train", "seen"), i);
        assert_int_equal(stride, i == 5 ? 1 : 8);
        assert_int_equal(n, i == 5 ? 5 : 20000 / 8 + 1);
        for (size_t k = 0; k < n; k++) {
            json_int_t step = json_integer_value(json_array_get(steps, k));
            assert_int_equal(step, k + 1 < n ? 1 + (json_int_t)k * stride : i);
            float reward = (float)json_real_value(json_array_get(rewards, k)), want = (float)step / 7;
            if (step % 7) assert_memory_equal(&reward, &want, sizeof want);
        }
        if (i == 20000) assert_int_equal(json_array_size(json_at(run, "eval", "columns", "step", NULL)), 200);
        json_decref(runs);
    }
    str_free(&log);
}

// Groups are taken whole, and a flood of long completions gives a page of bounded size.
static void pages_are_bounded(void **state) {
    FILE *f = fopen(at("completions.jsonl"), "w");
    char *text = malloc((1 << 20) + 1);
    memset(text, 'x', 1 << 20), text[1 << 20] = 0;
    for (int i = 0; i < 8000; i++)
        fprintf(f, "{\"step\": %d, \"prompt\": \"p\", \"completion\": \"%s\"}\n", i / 4,
                text + (i == 7996 ? 0 : (1 << 20) - 5000));
    fclose(f), free(text);
    json_t *runs = made_runs(scratch, at("report.html")), *run = json_array_get(runs, 0);
    const json_t *groups = json_at(run, "completions", "groups", NULL);
    size_t n = json_array_size(groups);
    assert_int_equal(whole(run, "completions", "seen"), 2000);
    assert_true(n > 60 && n < 300);
    for (size_t k = 0; k < n; k++) {
        const json_t *group = json_array_get(groups, k);
        assert_int_equal(json_integer_value(json_object_get(group, "step")),
                         k + 1 < n ? (json_int_t)k * whole(run, "completions", "stride") : 1999);
        assert_int_equal(json_array_size(json_object_get(group, "items")), 4);
    }
    const json_t *last = json_array_get(json_object_get(json_array_get(groups, n - 1), "items"), 0);
    const json_t *megabyte = json_at(last, "completion", NULL);
    assert_int_equal(whole(last, "completion", "cut") +
                         (json_int_t)json_string_length(json_object_get(megabyte, "head")) +
                         (json_int_t)json_string_length(json_object_get(megabyte, "tail")),
                     1 << 20);
    json_decref(runs);
    struct stat st;
    assert_int_equal(stat(at("report.html"), &st), 0);
    assert_true(st.st_size < 8 << 20);
}

// What a run writes after the page was made is read on from there; a run that was resumed has cut its logs back.
static void a_growing_log_is_read_once(void **state) {
    Error e = {0};
    const char *dir = scratch;
    put_text(at("metrics.jsonl"), "{\"step\": 1, \"reward\": 1}\n{\"step\": 2, \"rew");
    Report *r = report_open(&dir, 1);
    assert_true(report_read(r, &e) && report_write(r, at("report.html"), true, &e));
    json_t *runs = page_runs(at("report.html"));
    assert_int_equal(whole(json_array_get(runs, 0), "train", "seen"), 1);
    json_decref(runs);
    put_text(at("metrics.jsonl"),
             "{\"step\": 1, \"reward\": 1}\n{\"step\": 2, \"reward\": 2}\n{\"step\": 3, \"reward\": 3}\n");
    assert_true(report_read(r, &e) && report_write(r, at("report.html"), true, &e));
    runs = page_runs(at("report.html"));
    assert_int_equal(json_array_size(json_at(json_array_get(runs, 0), "train", "columns", "reward", NULL)), 3);
    json_decref(runs);
    put_text(at("metrics.jsonl"), "{\"step\": 1, \"reward\": 5}\n");
    assert_true(report_read(r, &e) && report_write(r, at("report.html"), true, &e));
    runs = page_runs(at("report.html"));
    const json_t *rewards = json_at(json_array_get(runs, 0), "train", "columns", "reward", NULL);
    assert_int_equal(json_array_size(rewards), 1);
    assert_int_equal(json_integer_value(json_array_get(rewards, 0)), 5);
    json_decref(runs);
    report_close(r);
}

// The page of a run that goes on is there after its first step; another run is still kept from its logs; and what
// stands in the page's way does not stop the run.
static void a_live_page_follows_the_run(void **state) {
    Error e = {0};
    Metrics *m = metrics_open(scratch, 0, 0, &e);
    assert_null(live_open(scratch, m, false));
    LiveReport *l = live_open(scratch, m, true);
    for (int step = 1; step <= 3; step++) {
        metrics_add_int(m, "step", step);
        assert_true(metrics_commit(m, &e));
        live_step(l);
        json_t *runs = page_runs(at("report.html")); // the next is due in ten seconds
        assert_int_equal(whole(json_array_get(runs, 0), "train", "seen"), 1);
        json_decref(runs);
    }
    pid_t other = fork();
    if (!other) {
        Metrics *second = metrics_open(scratch, 0, 0, &e);
        _exit(second || e.code != EXIT_CONFIG);
    }
    int status;
    assert_int_equal(waitpid(other, &status, 0), other);
    assert_int_equal(status, 0);
    live_close(l);
    json_t *runs = page_runs(at("report.html"));
    assert_int_equal(whole(json_array_get(runs, 0), "train", "seen"), 3);
    json_decref(runs);
    put_text(at("report.html"), "a letter of somebody's");
    l = live_open(scratch, m, true);
    live_step(l);
    live_close(l);
    size_t n;
    char *text = page_read(at("report.html"), &n);
    assert_string_equal(text, "a letter of somebody's");
    free(text);
    metrics_close(m);
}

static void mistakes_are_one_line(void **state) {
    Error e = {0};
    const char *dir = scratch;
    Runs runs;
    assert_false(runs_find(dir, &runs, &e));
    assert_int_equal(e.code, EXIT_INPUT);
    SAYS(&e, scratch, "metrics.jsonl", "output_dir");
    assert_false(runs_find(at("absent"), &runs, &e));
    assert_int_equal(e.code, EXIT_INPUT);
    SAYS(&e, "absent", "No such file or directory", "check the path");
    put_text(at("metrics.jsonl"), "{\"step\": 1}\n");
    put_text(at("letter"), "dear reader, this is no report, and it is longer than the mark");
    assert_false(make(&dir, 1, at("letter"), &e));
    assert_int_equal(e.code, EXIT_DISK);
    SAYS(&e, "letter", "is no report", "another file");
    size_t n;
    char *text = page_read(at("letter"), &n);
    assert_memory_equal(text, "dear", 4);
    free(text);
    assert_false(make(&dir, 1, at("absent/report.html"), &e));
    assert_int_equal(e.code, EXIT_DISK);
    SAYS(&e, "absent/report.html", "make the directory first");
    assert_false(make(&dir, 1, scratch, &e));
    assert_int_equal(e.code, EXIT_DISK);
    SAYS(&e, scratch, "is a directory; name a file");
    assert_false(runs_find(at("letter"), &runs, &e));
    SAYS(&e, "letter", "is no directory");
    json_decref(made_runs(dir, at("linked.html")));
    assert_int_equal(symlink("linked.html", at("link.html")), 0);
    json_decref(made_runs(dir, at("link.html"))); // the link stays one
    struct stat link;
    assert_true(!lstat(at("link.html"), &link) && S_ISLNK(link.st_mode) && exists(at("linked.html")));
    put_text(at("metrics.jsonl"), ""); // a run that was killed before its first step
    json_decref(made_runs(dir, at("report.html")));
    json_decref(made_runs(dir, at("report.html"))); // in place of the first
    struct rlimit old, small;                       // a full disk
    getrlimit(RLIMIT_FSIZE, &old);
    small = (struct rlimit){1000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    bool ok = make(&dir, 1, at("report.html"), &e);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_false(ok);
    assert_int_equal(e.code, EXIT_DISK);
    SAYS(&e, "the report: ", "report.html: writing failed");
    json_decref(page_runs(at("report.html"))); // the earlier page is there still, whole, and nothing beside it
    glob_t left;
    assert_int_equal(glob(at("*.tmp.*"), 0, NULL, &left), GLOB_NOMATCH);
}

// A pipeline's output_dir stands for its phases that have logs, in the order in which they began.
static void a_pipeline_is_its_phases(void **state) {
    static const char *const phase[] = {"b_first", "a_second", "c_third", "no_logs"};
    for (int i = 0; i < 4; i++) {
        assert_true(disk_mkdir(at("%s", phase[i]), NULL));
        char record[200];
        snprintf(record, sizeof record, "{\"steps\": 2, \"starts\": [{\"at\": \"2026-11-29T0%d:00:00Z\"}]}", i);
        put_text(at("%s/run.json", phase[i]), record);
        if (i < 3) put_text(at("%s/metrics.jsonl", phase[i]), "{\"step\": 1}\n");
    }
    put_text(at("pipeline.json"), "{}");
    Error e = {0};
    Runs runs;
    assert_true(runs_find(scratch, &runs, &e));
    assert_int_equal(runs.n, 3);
    for (int i = 0; i < 3; i++) assert_string_equal(runs.dir[i], at("%s", phase[i]));
    assert_false(run_goes_on(runs.dir[0]));
    runs_free(&runs);
    put_text(at("metrics.jsonl"), ""); // a run of its own: what lies in it is its own business
    assert_true(runs_find(scratch, &runs, &e));
    assert_int_equal(runs.n, 1);
    assert_string_equal(runs.dir[0], scratch);
    runs_free(&runs);
}

static void a_picture_has_the_curves(void **state) {
    Str log = {0};
    for (int i = 1; i <= 1000; i++)
        str_printf(&log, "{\"step\": %d, \"reward\": %d, \"loss\": null, \"kl\": 3}\n", i, i);
    put_text(at("metrics.jsonl"), log.s);
    Error e = {0};
    const char *dirs[] = {scratch, scratch};
    Report *r = report_open(dirs, 2);
    assert_true(report_read(r, &e) && report_picture(r, at("curves.svg"), &e));
    assert_true(report_picture(r, at("curves.svg"), &e)); // in place of the first
    report_close(r);
    size_t n;
    char *svg = page_read(at("curves.svg"), &n);
    assert_non_null(strstr(svg, ">reward</text>"));
    assert_non_null(strstr(svg, ">KL</text>"));
    assert_null(strstr(svg, ">loss</text>"));
    assert_non_null(strstr(svg, "points=\"48.0,159.8 ")); // the first step, 1 of 1 to 1000 with a twentieth of room
    assert_null(strstr(svg, "nan"));
    assert_non_null(strstr(svg, "class=\"c1\""));
    assert_true(n < 200000);
    free(svg), str_free(&log);
}

// 20,000 steps and 100,000 completions: what a process of its own takes.
static void long_runs_are_cheap(void **state) {
    FILE *f = fopen(at("metrics.jsonl"), "w");
    for (int i = 1; i <= 20000; i++) {
        fprintf(f, "{\"step\": %d", i);
        for (int k = 0; k < 35; k++)
            fprintf(f, ", \"rewards/some reward %d/mean\": %.9g", k, (double)((float)(i * k) / 9973));
        fprintf(f, "}\n");
    }
    fclose(f);
    f = fopen(at("completions.jsonl"), "w");
    for (int i = 0; i < 100000; i++)
        fprintf(f,
                "{\"step\": %d, \"prompt\": \"What is %d + 1?\", \"completion\": \"%0300d\", \"answer\": \"%d\", "
                "\"rewards\": {\"correctness\": %d}, \"reward\": %d, \"advantage\": 0.25, \"truncated\": false}\n",
                i / 5 + 1, i / 8, i, i, i % 3, i % 3);
    fclose(f);
    double start = clock_seconds();
    pid_t child = fork();
    if (!child) {
        Error e;
        const char *dir = scratch;
        _exit(!make(&dir, 1, at("report.html"), &e));
    }
    int status;
    struct rusage use;
    assert_int_equal(wait4(child, &status, 0, &use), child);
    assert_int_equal(status, 0);
    double seconds = (double)use.ru_utime.tv_sec + (double)use.ru_utime.tv_usec * 1e-6 + (double)use.ru_stime.tv_sec +
                     (double)use.ru_stime.tv_usec * 1e-6;
    struct stat st;
    assert_int_equal(stat(at("report.html"), &st), 0);
    print_message("%.2f s of one core (%.2f s in all), %ld MB, page %.1f MB\n", seconds, clock_seconds() - start,
                  use.ru_maxrss >> 10, (double)st.st_size / 1e6);
    assert_true(st.st_size <= 8000000);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(use.ru_maxrss <= 200 << 10);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hostile_text_stays_data, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(numbers_are_the_logs, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(pages_are_bounded, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_growing_log_is_read_once, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_live_page_follows_the_run, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(mistakes_are_one_line, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_pipeline_is_its_phases, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_picture_has_the_curves, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(long_runs_are_cheap, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
