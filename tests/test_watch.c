// grpo watch: what it draws fits, is the logs' numbers, and sends nothing of theirs to the terminal but text.
#include "clock.h"
#include "metrics.h"
#include "watch.h"
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <cmocka.h>
#include "scratch.h"
#include <utf8proc.h>

static char *view_of(Watch *w, int columns, int rows, bool utf8) {
    Error e = {0};
    bool changed;
    if (!watch_read(w, &changed, &e)) fail_aloud("%s", e.text);
    Str view = {0};
    watch_view(w, columns, rows, utf8, &view);
    return view.s;
}

static void assert_fits(const char *view, int columns, int rows) {
    int lines = 0;
    for (const char *line = view, *end; *line; line = end + 1, lines++) {
        end = strchr(line, '\n');
        assert_non_null(end);
        int used = 0;
        for (const char *p = line; p < end;) {
            utf8proc_int32_t c;
            p += utf8proc_iterate((const utf8proc_uint8_t *)p, end - p, &c);
            assert_true(c >= 32 && !(c >= 127 && c < 160));
            used += utf8proc_charwidth(c);
        }
        assert_true(used <= columns);
    }
    assert_true(!rows || lines <= rows);
}
static void assert_has(const char *view, const char *words) {
    if (!strstr(view, words)) fail_aloud("no \"%s\" in\n%s", words, view);
}

static void put_logs(int steps) {
    Str s = {0};
    for (int i = 1; i <= steps; i++) {
        str_printf(&s, "{\"step\": %d, \"reward\": %d, \"kl\": null, \"completions/mean_length\": %d}\n", i, i,
                   100 - i);
        if (i == 8) str_puts(&s, "{\"step\": 8, \"eval/accuracy\": 0.25}\n");
    }
    put_text(at("metrics.jsonl"), s.s);
    str_clear(&s);
    for (int k = 0; k < 4; k++)
        str_printf(
            &s,
            "{\"step\": %d, \"prompt\": \"How\\nmany?\\u001b[2J\", \"completion\": \"\\u001b]0;owned\\u0007 <%d> "
            "\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc"
            "\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\\na\\nb\\nc\\nd\\"
            "ne\\nf\\ng\\nh\\ni\", "
            "\"answer\": \"4\", \"rewards\": {}, \"reward\": %d, \"advantage\": %d, \"truncated\": %s}\n",
            steps, k, (k + 2) % 4, k, k == 1 ? "true" : "false");
    put_text(at("completions.jsonl"), s.s);
    str_free(&s);
}

static void a_view_fits_and_tells(void **state) {
    put_logs(8);
    put_text(at("run.json"), "{\"steps\": 9, \"starts\": []}");
    Watch *w = watch_open(scratch);
    char *view = view_of(w, 79, 0, true);
    assert_fits(view, 79, 0);
    assert_has(view, "step 8 of 9, not running here  ");
    assert_has(view, "reward                        8  ▁▂▃▄▅▆▇█\n");
    assert_has(view, "length                       92  █▇▆▅▄▃▂▁\n");
    assert_has(view, "accuracy, held out         0.25  ▁\n");
    assert_has(view, "last group, step 8, 4 completions; gold answer 4\n");
    assert_has(view, "best: reward 3, advantage +1, truncated\n  \\x1b]0;owned\\x07 <1> ");
    assert_has(view, "worst: reward 0, advantage +2\n");
    assert_has(view, "  ...\n");
    assert_null(strstr(view, "\nKL ")); // not in the name of a temporary directory
    assert_false(watch_finished(w));
    free(view);
    put_logs(9);
    view = view_of(w, 40, 6, false);
    assert_fits(view, 40, 6);
    assert_has(view, "step 9 of 9");
    assert_has(view, "reward                        9  _.");
    assert_true(watch_finished(w));
    for (const char *p = view; *p; p++) assert_true((unsigned char)*p < 128);
    free(view);
    watch_close(w);
}

static void long_logs_show_their_last_step(void **state) {
    put_logs(30000);
    Watch *w = watch_open(scratch);
    char *view = view_of(w, 79, 24, true);
    assert_has(view, "step 30000, not running here  ");
    assert_has(view, "reward                    3e+04  ▁▁");
    assert_fits(view, 79, 24);
    free(view);
    watch_close(w);
}

static void a_run_without_steps_has_a_view(void **state) {
    Watch *w = watch_open(scratch);
    put_text(at("metrics.jsonl"), "");
    char *view = view_of(w, 79, 24, true);
    assert_has(view, "step 0, not running here");
    free(view);
    watch_close(w);
}

// Half a line at the end may be under way, a line that is no JSON is damage; a run that holds its log goes on.
static void damage_and_state_are_said(void **state) {
    put_text(at("metrics.jsonl"), "{\"step\": 1}\n{\"step\": \n{\"step\": 3}\n{\"st");
    put_text(at("run.json"), "{\"steps\": 9, \"starts\": []}");
    Watch *w = watch_open(scratch);
    char *view = view_of(w, 79, 24, true);
    assert_has(view, "step 3 of 9, not running here");
    assert_has(view, "1 lines of its logs cannot be read; a log ends in half a line\n");
    free(view);
    put_text(at("metrics.jsonl"), "{\"step\": 1}\n");
    int pipes[2];
    char byte;
    assert_int_equal(pipe(pipes), 0);
    pid_t run = fork();
    if (!run) {
        Error e = {0};
        Metrics *m = metrics_open(scratch, 1, 0, &e);
        if (!m || write(pipes[1], "", 1) != 1) _exit(1);
        for (;;) pause();
    }
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    view = view_of(w, 79, 24, true);
    assert_has(view, "step 1 of 9  ");
    assert_null(strstr(view, "cannot be read"));
    free(view);
    kill(run, SIGKILL);
    assert_int_equal(waitpid(run, NULL, 0), run);
    view = view_of(w, 79, 24, true);
    assert_has(view, "step 1 of 9, not running here");
    free(view);
    watch_close(w);
    close(pipes[0]), close(pipes[1]);
}

// ---- on a terminal --------------------------------------------------------------------------------------------------

static void terminal_size(int terminal, unsigned short columns, unsigned short rows) {
    struct winsize size = {.ws_col = columns, .ws_row = rows};
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &size), 0);
}

// Starts grpo watch on a terminal of its own, whose other end it returns.
static int watch_on_terminal(pid_t *child) {
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) {
        printf("SKIP a_terminal_is_followed_and_left_clean: this system has no pseudo-terminals (devpts)\n");
        skip();
    }
    terminal_size(terminal, 80, 24);
    const char *name = ptsname(terminal), *program = getenv("GRPO") ? getenv("GRPO") : "build/grpo";
    *child = fork();
    if (*child) return terminal;
    setsid();
    int end = open(name, O_RDWR); // its controlling terminal
    for (int fd = 0; fd < 3; fd++) dup2(end, fd);
    setenv("TERM", "xterm", 1), setenv("LC_ALL", "C.UTF-8", 1);
    execl(program, program, "watch", scratch, NULL);
    _exit(127);
}

// Reads until a whole view has the words; returns its text without what moves the cursor. The heap's.
static char *view_with(int terminal, const char *words) {
    Str got = {0};
    for (double give_up = clock_seconds() + 20; clock_seconds() < give_up;) {
        char some[4096];
        struct pollfd ready = {.fd = terminal, .events = POLLIN};
        ssize_t n = poll(&ready, 1, 100) == 1 ? read(terminal, some, sizeof some) : 0;
        for (ssize_t i = 0; i < n; i++)
            if (some[i] != '\r') str_add(&got, some + i, 1);
        char *begin = NULL, *end;
        for (char *at = got.s; at && (at = strstr(at, "\033[H")); at++) begin = at + 3;
        if (!begin || !(end = strstr(begin, "\033[J"))) continue;
        if (end[3]) fail_aloud("behind the view: %s", end + 3);
        if (!strstr(begin, words)) continue;
        Str view = {0};
        for (const char *line = begin; line < end; line = strchr(line, '\n') + 1) {
            const char *clears = strstr(line, "\033[K\n");
            assert_non_null(clears);
            str_add(&view, line, (size_t)(clears - line));
            str_puts(&view, "\n");
        }
        str_free(&got);
        return view.s;
    }
    fail_aloud("no view with \"%s\" in 20 s, but %s", words, got.s ? got.s : "nothing");
    return NULL;
}

// Follows a run that goes on, and a window that changes its size with nothing new to tell; Ctrl-C leaves the terminal
// as it was, the cursor below the view.
static void a_terminal_is_followed_and_left_clean(void **state) {
    put_logs(8);
    put_text(at("run.json"), "{\"steps\": 20, \"starts\": []}");
    pid_t child;
    struct termios before, after;
    int terminal = watch_on_terminal(&child), status;
    assert_int_equal(tcgetattr(terminal, &before), 0);
    char *view = view_with(terminal, "step 8 of 20");
    assert_fits(view, 79, 23);
    assert_has(view, "worst: reward 0");
    free(view);
    put_logs(9);
    free(view_with(terminal, "step 9 of 20"));
    terminal_size(terminal, 45, 12);
    view = view_with(terminal, "step 9 of 20");
    assert_fits(view, 44, 11);
    free(view);
    assert_int_equal(write(terminal, "\003", 1), 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT); // as a shell expects, which begins a new line then
    char rest[64] = "";
    struct pollfd ready = {.fd = terminal, .events = POLLIN};
    if (poll(&ready, 1, 0) == 1 && read(terminal, rest, sizeof rest - 1) > 0) assert_string_equal(rest, "^C");
    assert_int_equal(tcgetattr(terminal, &after), 0);
    assert_true(after.c_iflag == before.c_iflag && after.c_oflag == before.c_oflag && after.c_lflag == before.c_lflag);
    close(terminal);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_view_fits_and_tells, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(long_logs_show_their_last_step, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_terminal_is_followed_and_left_clean, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(damage_and_state_are_said, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_run_without_steps_has_a_view, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
