// The report in a real browser (make check-report): its plots and tables hold the logs' numbers, hostile completions
// are text, keys and clicks do what they say, nothing overflows, and the console stays silent.
#include "report.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <cmocka.h>
#include <time.h>
#include "scratch.h"
#include "browser.h"

enum { STEPS = 60 };
static Browser browser;
static const char evil[] =
    "</script><script>window.hit=1</script><img src=x onerror=window.hit=1><b>\"'`\xe2\x80\xae drow ${1}";

static double reward_of(int step) { return (double)(sinf((float)step) * 3.7f); }

static void run_write(const char *dir, int shift) {
    disk_mkdir(dir, NULL);
    char *path = xasprintf("%s/metrics.jsonl", dir);
    FILE *f = fopen(path, "w");
    for (int i = 1; i <= STEPS; i++) {
        fprintf(f,
                "{\"step\": %d, \"loss\": %.9g, \"reward\": %.9g, \"reward_std\": 0.5, \"rewards/<b>x/mean\": %d, "
                "\"rewards/<b>x/std\": 0.25, \"num_tokens\": %d, \"grad_norm\": %.9g, \"kl\": null, \"step_time\": 2, "
                "\"time/rollout\": 1, \"time/train\": 0.75, \"time/rollout/rank_1\": %d, \"time/train/rank_1\": 0.5, "
                "\"memory/process_gib\": %d.5, \"memory/process_gib/rank_1\": 3, \"completions/mean_length\": 20, "
                "\"completions/min_length\": 3, "
                "\"completions/max_length\": 40, \"my own\": %d}\n",
                i, i % 2 ? 1e-7 * i : -1e-7 * i, reward_of(i + shift), i % 3, i * 1000, pow(10, i % 7 - 3),
                i % 2 ? 1 : 3, i, i);
        if (i % 20 == 0) fprintf(f, "{\"step\": %d, \"eval/accuracy\": %.9g}\n", i, i / 100.);
    }
    fclose(f);
    free(path);
    path = xasprintf("%s/completions.jsonl", dir);
    f = fopen(path, "w");
    Str text = {0};
    for (int i = 1; i <= STEPS; i++)
        for (int k = 0; k < 8; k++) {
            str_clear(&text);
            if (k == 7 && i == STEPS) {
                for (int n = 0; n < 1 << 20; n += 16) str_puts(&text, "<i>megabyte</i> ");
            } else str_printf(&text, "%s of %d.%d", evil, i, k);
            fprintf(f, "{\"step\": %d, \"prompt\": \"question %d of <u>%d</u>\", \"completion\": ", i, k / 4, i);
            char *quoted = NULL;
            Str json = {0};
            str_json(&json, text.s, text.n), quoted = json.s;
            fprintf(f,
                    "%s, \"answer\": \"<%d>\", \"rewards\": {\"a\": %d, \"b\": null}, \"reward\": %d, \"advantage\": "
                    "%g, \"truncated\": %s, \"tokens\": [[\"<b>\", -1, 0.5], [\"x\", -8, 0]]}\n",
                    quoted, i, k, k / 4 ? 1 : k, k / 4 ? 0. : k - 1.5, k == 1 ? "true" : "false");
            free(quoted);
        }
    str_free(&text);
    fclose(f);
    free(path);
}

static void report_make(const char *const *dirs, int n, const char *path) {
    Error e = {0};
    Report *r = report_open(dirs, n);
    if (!report_read(r, &e) || !report_write(r, path, false, &e)) fail_msg("%s", e.text);
    report_close(r);
}

static int setup(void **state) {
    if (scratch_setup(state)) return -1;
    browser = browser_open(at("profile"));
    return 0;
}
static int teardown(void **state) {
    browser_close(&browser);
    return scratch_teardown(state);
}

static json_int_t count(const char *expression) {
    json_t *v = browser_value(&browser, expression);
    if (!json_is_number(v)) fail_msg("%s is no number", expression);
    json_int_t n = (json_int_t)json_number_value(v);
    json_decref(v);
    return n;
}
static bool holds(const char *expression) {
    json_t *v = browser_value(&browser, expression);
    bool yes = json_is_true(v);
    json_decref(v);
    return yes;
}
// Soon: an element's own events come when the page gets to them.
static bool becomes(const char *expression) {
    for (int i = 0; i < 200 && !holds(expression); i++) nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return holds(expression);
}
static void silent(void) {
    json_decref(browser_value(&browser, "1"));
    if (browser.complaints.n) fail_msg("the console says %s", browser.complaints.s);
}

#define FIGURE "document.querySelector('figure[data-name=\"%s\"]')"

// Rows of the table behind a plot: [step, value, ...].
static json_t *table_of(const char *name) {
    char *expression = xasprintf(
        "[..." FIGURE ".querySelectorAll('tbody tr')].map(r => [...r.children].map(c => Number(c.textContent)))", name);
    json_t *rows = browser_value(&browser, expression);
    free(expression);
    return rows;
}
// The points of a plot's line in its own units, by what its edges stand for.
static json_t *line_of(const char *name) {
    char *expression =
        xasprintf("(() => { const svg = " FIGURE ".querySelector(':scope > svg'), d = svg.dataset;"
                  "const [y0, y1, x0, x1] = [d.y0, d.y1, d.x0, d.x1].map(Number), w = svg.viewBox.baseVal.width - 64;"
                  "return svg.querySelector('path.line').getAttribute('d').slice(1).split(/[ML]/).map(p => "
                  "p.split(',').map(Number))"
                  ".map(([x, y]) => [x0 + (x - 52) / w * (x1 - x0), d.log === '1' ? y0 * (y1 / y0) ** (1 - (y - 8) / "
                  "160) : y0 + (1 - (y - 8) / 160) * (y1 - y0)]) })()",
                  name);
    json_t *points = browser_value(&browser, expression);
    free(expression);
    return points;
}

static double number(const json_t *rows, size_t row, size_t column) {
    return json_number_value(json_array_get(json_array_get(rows, row), column));
}

static double loss_of(int step) { return step % 2 ? 1e-7 * step : -1e-7 * step; }
static double memory_of(int step) { return step + 0.5; }
static double norm_of(int step) { return pow(10, step % 7 - 3); }
// Table and line of a plot of one number against what the log has.
static void assert_plot(const char *name, double (*want)(int step), double within) {
    json_t *rows = table_of(name), *points = line_of(name);
    assert_int_equal(json_array_size(rows), STEPS);
    assert_int_equal(json_array_size(points), STEPS);
    for (int i = 0; i < STEPS; i++) {
        char text[40];
        snprintf(text, sizeof text, "%.9g", want(i + 1));
        assert_true(number(rows, (size_t)i, 0) == i + 1);
        if (number(rows, (size_t)i, 1) != strtod(text, NULL))
            fail_msg("%s at step %d: the table has %.17g, the log %s", name, i + 1, number(rows, (size_t)i, 1), text);
        if (fabs(number(points, (size_t)i, 0) - (i + 1)) > 0.01 ||
            fabs(number(points, (size_t)i, 1) - want(i + 1)) > within)
            fail_msg("%s at step %d: the line has %g, the log %s", name, i + 1, number(points, (size_t)i, 1), text);
    }
    json_decref(rows), json_decref(points);
}

static void numbers_read_back(void **state) {
    const char *dir = at("run");
    run_write(dir, 0);
    report_make(&dir, 1, at("report.html"));
    browser_goto(&browser, at("report.html"), "tables=1&smooth=0", 1400, 900);
    assert_plot("reward", reward_of, 1e-3);
    assert_plot("loss", loss_of, 1e-9);
    assert_plot("gradient norm", norm_of, 1);
    browser_goto(&browser, at("report.html"), "tables=1&smooth=0&log=1", 1400, 900);
    json_t *points = line_of("gradient norm");
    for (int i = 0; i < STEPS; i++) assert_true(fabs(number(points, (size_t)i, 1) / norm_of(i + 1) - 1) < 0.01);
    json_decref(points);
    json_t *eval = table_of("accuracy");
    assert_int_equal(json_array_size(eval), 3);
    assert_true(number(eval, 2, 0) == 60 && number(eval, 2, 1) == 0.6);
    json_decref(eval);
    assert_true(holds("!!document.querySelector('figure[data-name=\"my own\"]')"));
    assert_plot("memory", memory_of, 0.1);
    // Each rank's own times, and memory in the end; a rank's numbers have no plots of their own.
    assert_true(
        holds("[...document.querySelectorAll('table')].some(t => t.caption?.textContent.startsWith('each rank') && "
              "[...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent).join()).join(';') === "
              "'rank 0,1,0.75,60.5;rank 1,2,0.5,3')"));
    assert_int_equal(count("[...document.querySelectorAll('figure')].filter(f => /rank_/.test(f.dataset.name)).length"),
                     0);
    assert_true(holds("!!document.querySelector('figure[data-name=\"<b>x\"]')"));
    assert_int_equal(count("document.querySelectorAll('figure[data-name=KL]').length"), 0); // null all over
    silent();
}

static void completions_are_text(void **state) {
    const char *dir = at("run");
    run_write(dir, 0);
    report_make(&dir, 1, at("report.html"));
    browser_goto(&browser, at("report.html"), "", 1400, 900);
    assert_int_equal(count("document.scripts.length"), 2);
    assert_int_equal(
        count("document.querySelectorAll('main img, main b:not(header b), main i, main u, main script').length"), 0);
    assert_true(holds("window.hit === undefined"));
    char *expression = xasprintf(
        "document.querySelector('article pre').textContent === "
        "\"</script><script>window.hit=1</script><img src=x onerror=window.hit=1><b>\\\"'`U+202E drow ${1} of %d.0\"",
        STEPS);
    assert_true(holds(expression));
    free(expression);
    assert_int_equal(count("document.querySelectorAll('.group').length"), 2);
    assert_int_equal(count("document.querySelectorAll('article').length"), 8);
    assert_true(holds("document.querySelectorAll('article pre')[7].textContent.includes('bytes are left out')"));
    assert_int_equal(
        count("[...document.querySelectorAll('.badge')].filter(b => b.textContent === 'truncated').length"), 1);
    assert_int_equal(count("[...document.querySelectorAll('h3 .badge')].length"), 1); // a flat group
    browser_goto(&browser, at("report.html"), "shade=logp", 1400, 900);
    assert_int_equal(count("document.querySelectorAll('article .token').length"), 16);
    assert_true(holds("document.querySelector('article pre').textContent === '<b>x'"));
    assert_true(holds("[...document.querySelectorAll('.token')].slice(0, 2).every((t, i) => "
                      "Number(t.style.getPropertyValue('--strength')) === [0.25, 1][i])"));
    browser_goto(&browser, at("report.html"), "find=of+7.2", 1400, 900);
    assert_int_equal(count("document.querySelectorAll('.group').length"), 1);
    assert_true(holds("document.querySelector('.group h3').textContent.startsWith('step 7')"));
    browser_goto(&browser, at("report.html"), "step=9&pair=1&groups=mixed", 1400, 900);
    assert_int_equal(count("document.querySelectorAll('article').length"), 2);
    assert_true(holds("document.querySelector('article').className === 'above'"));
    silent();
}

static void clicks_and_keys_work(void **state) {
    const char *dir = at("run");
    run_write(dir, 0);
    report_make(&dir, 1, at("report.html"));
    browser_goto(&browser, at("report.html"), "", 1400, 3000);
    json_t *place = browser_value(
        &browser, "(() => { const e = document.querySelector('figure[data-name=reward] > svg').getBoundingClientRect();"
                  "return [e.left + 52 + (e.width - 64) * 0.5, e.top + 80] })()");
    browser_click(&browser, json_number_value(json_array_get(place, 0)), json_number_value(json_array_get(place, 1)));
    json_decref(place);
    json_int_t step = count("chosen.step");
    assert_true(step == 30 || step == 31);
    assert_true(holds("document.querySelector('.group h3').textContent.startsWith('step ' + chosen.step)"));
    place = browser_value(
        &browser, "(() => { const e = document.querySelector('figure[data-name=reward] > svg').getBoundingClientRect();"
                  "return [e.left + 52, e.top + 80] })()");
    browser_hover(&browser, json_number_value(json_array_get(place, 0)), json_number_value(json_array_get(place, 1)));
    json_decref(place);
    json_t *told = browser_value(&browser, "document.querySelector('figure[data-name=reward] output').textContent");
    double shown = NAN;
    sscanf(json_string_value(told), "step 1 %lf", &shown);
    if (!(fabs(shown - reward_of(1)) < 1e-3)) fail_msg("hovering says %s", json_string_value(told));
    json_decref(told);
    json_decref(browser_value(&browser, "document.querySelector('figure[data-name=loss]').focus()"));
    browser_key(&browser, "ArrowRight");
    browser_key(&browser, "ArrowRight");
    assert_true(holds("document.querySelector('figure[data-name=loss] output').textContent.startsWith('step 2 ')"));
    browser_key(&browser, "Enter");
    assert_int_equal(count("chosen.step"), 2);
    browser_key(&browser, "l");
    assert_true(holds("document.querySelector('figure[data-name=\"gradient norm\"] > svg').dataset.log === '1'"));
    browser_key(&browser, "t");
    assert_true(holds("[...document.querySelectorAll('figure details')].every(d => d.open)"));
    // Behind every plot a table, whose columns and rows have names.
    assert_true(becomes("[...document.querySelectorAll('figure')].every(f => f.querySelector('table caption') && "
                        "f.querySelector('thead th[scope=col]') && f.querySelector('tbody th[scope=row]'))"));
    browser_key(&browser, "/");
    assert_true(holds("document.activeElement.id === 'find'"));
    silent();
}

static void record_write(const char *dir, const char *rate) {
    char *text =
             xasprintf("{\"command\": \"train\", \"steps\": %d, \"rows\": 7, \"data\": \"90 bytes\", \"starts\": [], "
                       "\"options\": [{\"name\": \"learning_rate\", \"group\": \"optimizer\", \"value\": \"%s\", "
                       "\"default\": \"5e-6\"}, {\"name\": \"seed\", \"group\": \"run\", \"value\": \"0\"}]}\n",
                       STEPS, rate),
         *path = xasprintf("%s/run.json", dir);
    put_text(path, text);
    free(text), free(path);
}

// Final numbers with their differences, configurations with what differs; on paper black on white, whatever the screen
// has.
static void runs_stand_side_by_side(void **state) {
    const char *dirs[] = {at("run a"), at("run b")};
    for (int r = 0; r < 2; r++) run_write(dirs[r], 5 * r), record_write(dirs[r], r ? "2e-5" : "1e-5");
    report_make(dirs, 2, at("two.html"));
    browser_goto(&browser, at("two.html"), "theme=dark", 1400, 900);
    double a = 0, b = 0;
    for (int i = STEPS - 9; i <= STEPS; i++) a += reward_of(i) / 10, b += reward_of(i + 5) / 10;
    json_t *row =
        browser_value(&browser, "[...document.querySelector('table').tBodies[0].rows].find(r => "
                                "r.cells[0].textContent === 'reward').innerText.split('\\t').slice(1).map(Number)");
    const double want[] = {a, b, b - a};
    assert_int_equal(json_array_size(row), 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(fabs(json_number_value(json_array_get(row, i)) - want[i]) < 1e-3 * (1 + fabs(want[i])));
    json_decref(row);
    assert_true(holds("[...document.querySelectorAll('tr.differs')].map(r => r.innerText).join() === "
                      "'learning_rate\\t1e-5\\t2e-5\\t5e-6'"));
    assert_false(holds("getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'"));
    browser_do(&browser, "Emulation.setEmulatedMedia", json_pack("{s:s}", "media", "print"));
    assert_true(holds("getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)' && "
                      "getComputedStyle(document.documentElement).colorScheme === 'light' && "
                      "getComputedStyle(document.querySelector('.c0')).getPropertyValue('--c') === '#0072b2'"));
    silent();
}

// A pipeline: its phases' table; differences within a command alone; a reward model's accuracy is that of pairs. A
// run.json that lacks everything leaves the page whole.
static void a_pipeline_is_compared_by_command(void **state) {
    static const char *const name[] = {"a cold", "b rm", "c rl", "d rl", "e odd"}, *const command[] = {
                                                                                       "sft", "reward_model", "train",
                                                                                       "train", NULL};
    char *dirs[5];
    for (int r = 0; r < 5; r++) {
        dirs[r] = xstrdup(at("%s", name[r]));
        run_write(dirs[r], r);
        char *path = xasprintf("%s/run.json", dirs[r]),
             *text = command[r] ? xasprintf("{\"command\": \"%s\", \"steps\": %d, \"starts\": []}", command[r], STEPS)
                                : xstrdup("{}");
        put_text(path, text);
        free(path), free(text);
    }
    put_text(at("b rm/metrics.jsonl"), "{\"step\": 1, \"accuracy\": 0.5}\n{\"step\": 2, \"accuracy\": 1}\n");
    put_text(at("pipeline.json"), "{\"a cold\": {\"command\": \"sft\", \"made\": \"x\", \"seconds\": 3},"
                                  " \"exam\": {\"command\": \"eval\", \"made\": \"x\", \"seconds\": 1},"
                                  " \"pick\": {\"command\": \"select\", \"made\": \"x\", \"seconds\": 2}}");
    put_text(at("exam.json"), "{\"accuracy\": 0.25, \"mean_length\": 12}");
    assert_true(disk_mkdir(at("pick"), NULL));
    put_text(at("pick/select.json"), "{\"completions\": 64, \"kept\": 9}");
    Error e = {0};
    Report *r = report_open((const char *const *)dirs, 5);
    report_pipeline(r, scratch);
    if (!report_read(r, &e) || !report_write(r, at("pipe.html"), false, &e)) fail_msg("%s", e.text);
    report_close(r);
    browser_goto(&browser, at("pipe.html"), "", 1400, 900);
    assert_true(holds(
        "[...document.querySelector('table').tBodies[0].rows].map(r => r.innerText).join('|') === "
        "'a cold\\tsft\\t3\\t–\\t–\\t–\\t–|exam\\teval\\t1\\t0.25\\t12\\t–\\t–|pick\\tselect\\t2\\t–\\t–\\t9\\t64'"));
    assert_true(holds("[...document.querySelectorAll('table')[1].tHead.rows[0].cells].map(c => c.innerText).join() === "
                      "',a cold,b rm,c rl,d rl,difference,e odd'"));
    assert_true(holds("[...document.querySelectorAll('table')[1].tBodies[0].rows].some(r => r.cells[0].innerText === "
                      "'accuracy of pairs, train' && r.cells[2].innerText !== '–' && r.cells[3].innerText === '–')"));
    assert_true(holds("document.body.innerText.includes('several commands (sft, reward_model, train)')"));
    assert_true(holds("document.getElementById('run').innerText.includes('checkpoints')"));
    silent();
    for (int k = 0; k < 5; k++) free(dirs[k]);
}

static void nothing_overflows(void **state) {
    const char *dirs[] = {at("run a"), at("run b"), NULL};
    run_write(dirs[0], 0);
    run_write(dirs[1], 5);
    report_make(dirs, 2, at("two.html"));
    for (int width = 400; width <= 1400; width += 1000) {
        browser_goto(&browser, at("two.html"), width == 400 ? "theme=dark" : "", width, 900);
        assert_int_equal(count("document.documentElement.scrollWidth"), width);
        assert_int_equal(count("document.querySelectorAll('figure[data-name=reward] .legend li').length"), 2);
    }
    json_t *rows;
    browser_goto(&browser, at("two.html"), "tables=1", 1400, 900);
    rows = table_of("reward");
    for (int i = 0; i < STEPS; i++) assert_true(fabs(number(rows, (size_t)i, 2) - reward_of(i + 6)) < 1e-7);
    json_decref(rows);
    silent();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(numbers_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(completions_are_text, setup, teardown),
        cmocka_unit_test_setup_teardown(clicks_and_keys_work, setup, teardown),
        cmocka_unit_test_setup_teardown(runs_stand_side_by_side, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pipeline_is_compared_by_command, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_overflows, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
