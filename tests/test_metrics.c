// What a run tells: logs, the progress line, the answer to a signal.
#include "config.h"
#include "metrics.h"
#include "progress.h"
#include "signals.h"
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/stat.h>
#include <string.h>

static char dir[64];

static int make_dir(void **state) {
    strcpy(dir, "/tmp/grpo_metrics_XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static char *path_of(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int remove_dir(void **state) {
    unlink(path_of("metrics.jsonl"));
    unlink(path_of("completions.jsonl"));
    return rmdir(dir);
}

// A file's text, in memory that the next call reuses.
static const char *text_of(const char *name) {
    static char text[1 << 16];
    FILE *f = fopen(path_of(name), "rb");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static Metrics *open_logs(int64_t metrics_lines, int64_t completions_lines) {
    Error e = {0};
    Metrics *m = metrics_open(dir, metrics_lines, completions_lines, &e);
    if (!m) fail_msg("%s", e.text);
    return m;
}

static void log_step(Metrics *m, int step) {
    static const char *const names[] = {"correctness", "int"};
    float score[] = {(float)step, NAN};
    CompletionRecord r = {step, "1 + 1?", "two \"2\"\n", "2", names, score, 2, (float)step, -0.5f, step == 3};
    Error e = {0};
    metrics_add_int(m, "step", step);
    metrics_add(m, "loss", 0.1f);
    metrics_completion(m, &r);
    assert_true(metrics_commit(m, &e));
}

// ---- logs -----------------------------------------------------------------------------------------------------------
static void metrics_are_json_in_order(void **state) {
    Metrics *m = open_logs(0, 0);
    Error e = {0};
    metrics_add_int(m, "step", 9007199254740993);
    metrics_add(m, "loss", 0.1f);
    metrics_add(m, "rewards/a\"b/mean", -1);
    metrics_add(m, "kl", NAN);
    metrics_add(m, "reward_std", INFINITY);
    assert_string_equal(text_of("metrics.jsonl"), "");
    assert_true(metrics_commit(m, &e));
    metrics_add_int(m, "step", 2);
    metrics_close(m); // not committed: not written
    assert_string_equal(text_of("metrics.jsonl"), "{\"step\": 9007199254740993, \"loss\": 0.100000001, "
                                                  "\"rewards/a\\\"b/mean\": -1, \"kl\": null, \"reward_std\": null}\n");
}

static void metrics_bring_every_f32_back(void **state) {
    Metrics *m = open_logs(0, 0);
    Error e = {0};
    float x[2000];
    uint32_t u = 12345;
    for (int i = 0; i < 2000; i++) {
        do {
            u = u * 1664525u + 1013904223u;
            memcpy(&x[i], &u, 4);
        } while (!isfinite(x[i]));
        metrics_add(m, "x", (double)x[i]);
        assert_true(metrics_commit(m, &e));
    }
    metrics_close(m);
    const char *line = text_of("metrics.jsonl");
    for (int i = 0; i < 2000; i++, line = strchr(line, '\n') + 1) {
        float back = strtof(line + 6, NULL);
        assert_memory_equal(&back, &x[i], 4);
    }
    assert_string_equal(line, "");
}

static void completions_keep_what_was_scored(void **state) {
    Metrics *m = open_logs(0, 0);
    log_step(m, 3);
    metrics_close(m);
    assert_string_equal(
        text_of("completions.jsonl"),
        "{\"step\": 3, \"prompt\": \"1 + 1?\", \"completion\": \"two \\\"2\\\"\\n\", \"answer\": \"2\", "
        "\"rewards\": {\"correctness\": 3, \"int\": null}, \"reward\": 3, \"advantage\": -0.5, "
        "\"truncated\": true}\n");
}

static void logs_are_cut_back_to_a_checkpoint(void **state) {
    Error e = {0};
    char metrics[4096], completions[4096];
    Metrics *m = open_logs(0, 0);
    for (int step = 1; step <= 6; step++) log_step(m, step);
    metrics_close(m);
    strcpy(metrics, text_of("metrics.jsonl"));
    strcpy(completions, text_of("completions.jsonl"));

    m = open_logs(0, 0); // a new run begins with empty logs
    assert_string_equal(text_of("completions.jsonl"), "");
    int64_t metrics_lines, completions_lines;
    for (int step = 1; step <= 3; step++) log_step(m, step);
    assert_true(metrics_sync(m, &metrics_lines, &completions_lines, &e));
    assert_int_equal(metrics_lines, 3);
    assert_int_equal(completions_lines, 3);
    for (int step = 4; step <= 5; step++) log_step(m, step); // lost: the run is killed here
    metrics_close(m);

    m = open_logs(metrics_lines, completions_lines);
    for (int step = 4; step <= 6; step++) log_step(m, step);
    metrics_close(m);
    assert_string_equal(text_of("metrics.jsonl"), metrics);
    assert_string_equal(text_of("completions.jsonl"), completions);
}

static void logs_shorter_than_the_checkpoint_go_on(void **state) {
    Metrics *m = open_logs(0, 0);
    log_step(m, 1);
    metrics_close(m);
    size_t n = strlen(text_of("metrics.jsonl"));
    FILE *f = fopen(path_of("metrics.jsonl"), "a"); // the next line lost its end
    assert_non_null(f);
    fputs("{\"step\": 2, \"lo", f);
    fclose(f);
    m = open_logs(9, 0);
    log_step(m, 2);
    int64_t metrics_lines, completions_lines;
    assert_true(metrics_sync(m, &metrics_lines, &completions_lines, NULL));
    assert_int_equal(metrics_lines, 2);
    metrics_close(m);
    assert_string_equal(text_of("metrics.jsonl") + n, "{\"step\": 2, \"loss\": 0.100000001}\n");
}

// A log that is deleted does not end the run; what is no file is refused without waiting for a reader.
static void logs_that_are_no_files(void **state) {
    Error e = {0};
    Metrics *m = open_logs(0, 0);
    log_step(m, 1);
    assert_int_equal(unlink(path_of("metrics.jsonl")), 0);
    log_step(m, 2);
    metrics_close(m);
    assert_int_equal(mkfifo(path_of("metrics.jsonl"), 0600), 0);
    assert_null(metrics_open(dir, 0, 0, &e));
    assert_int_equal(e.code, EXIT_DISK);
    assert_non_null(strstr(e.text, "metrics.jsonl: is no regular file"));
    assert_int_equal(unlink(path_of("metrics.jsonl")), 0);
}

static void a_second_run_is_kept_out(void **state) {
    int ready[2], end[2];
    assert_int_equal(pipe(ready) | pipe(end), 0);
    pid_t other = fork();
    if (!other) {
        Metrics *m = open_logs(0, 0);
        log_step(m, 1);
        char byte = 0;
        bool told = write(ready[1], &byte, 1) == 1 && read(end[0], &byte, 1) == 1;
        _exit(told ? 0 : 1);
    }
    char byte = 0, pid[32];
    assert_int_equal(read(ready[0], &byte, 1), 1);
    Error e = {0};
    assert_null(metrics_open(dir, 0, 0, &e));
    assert_int_equal(e.code, EXIT_CONFIG);
    snprintf(pid, sizeof pid, "process %d", other);
    assert_non_null(strstr(e.text, pid));
    assert_string_not_equal(text_of("metrics.jsonl"), ""); // nothing was cut
    assert_int_equal(write(end[1], &byte, 1), 1);
    int status;
    assert_int_equal(waitpid(other, &status, 0), other);
    assert_int_equal(status, 0);
    metrics_close(open_logs(0, 0)); // a run that is gone holds nothing, however it ended
    for (int i = 0; i < 2; i++) close(ready[i]), close(end[i]);
}

static void a_failed_write_leaves_whole_lines(void **state) {
    Error e = {0};
    Metrics *m = open_logs(0, 0);
    log_step(m, 1);
    char before[4096];
    strcpy(before, text_of("metrics.jsonl"));
    struct rlimit old, small = {strlen(before) + 10, RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    metrics_add(m, "a name that makes the line long", 1);
    bool ok = metrics_commit(m, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_false(ok);
    assert_int_equal(e.code, EXIT_DISK);
    assert_non_null(strstr(e.text, "metrics.jsonl"));
    assert_string_equal(text_of("metrics.jsonl"), before);
    metrics_close(m);
}

static void an_unwritable_directory_is_an_error(void **state) {
    Error e = {0};
    assert_null(metrics_open("/nonexistent/run", 0, 0, &e));
    assert_int_equal(e.code, EXIT_DISK);
    assert_non_null(strstr(e.text, "/nonexistent/run/metrics.jsonl"));
    assert_null(strchr(e.text, '\n'));
}

// ---- progress -------------------------------------------------------------------------------------------------------
static const ProgressStep step_numbers = {1.25, 0.5, 0.0123, 143.4, NAN, 2100};

static void progress_is_plain_in_a_file(void **state) {
    char *text;
    size_t n;
    FILE *f = tmpfile();
    Progress *p = progress_open(f, PROGRESS_AUTO, 4, 10);
    progress_phase(p, "rollout", 3, 10);
    progress_phase(p, "update", 0, 0);
    progress_phase(p, "rollout", 0, 0);
    progress_step(p, 5, &step_numbers);
    progress_say(p, "saved %s", "a\x1b[2Jb");
    progress_step(p, 10, &(ProgressStep){NAN, NAN, NAN, NAN, NAN, NAN});
    progress_close(p);
    n = (size_t)ftell(f);
    rewind(f);
    text = calloc(1, n + 1);
    assert_int_equal(fread(text, 1, n, f), n);
    fclose(f);
    assert_string_equal(text, "step 5/10  reward 1.250  accuracy 50.0%  ETA 0s  kl 0.0123  length 143  2100 tokens/s  "
                              "rollout 0.0s  update 0.0s\n"
                              "saved a\\x1b[2Jb\n"
                              "step 10/10\n");
    free(text);
}

static void progress_off_is_silent(void **state) {
    FILE *f = tmpfile();
    Progress *p = progress_open(f, PROGRESS_OFF, 0, 10);
    progress_phase(p, "rollout", 3, 10);
    progress_step(p, 1, &step_numbers);
    progress_say(p, "saved");
    progress_close(p);
    assert_int_equal(ftell(f), 0);
    fclose(f);
}

// Draws on a pseudo-terminal of `width` columns, narrowed to `later` on the way; gives back what arrived.
static void draw_on_terminal(int width, int later, char *out, size_t cap) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    const char *name = master >= 0 && !grantpt(master) && !unlockpt(master) ? ptsname(master) : NULL;
    FILE *f = name ? fopen(name, "r+") : NULL;
    if (!f) {
        printf("SKIP progress_fits_the_terminal: this system has no pseudo-terminals (devpts)\n");
        skip();
    }
    ioctl(master, TIOCSWINSZ, &(struct winsize){.ws_row = 24, .ws_col = (unsigned short)width});
    Progress *p = progress_open(f, PROGRESS_AUTO, 0, 100);
    progress_phase(p, "rollout", 1, 2);
    progress_step(p, 1, &step_numbers);
    ioctl(master, TIOCSWINSZ, &(struct winsize){.ws_row = 24, .ws_col = (unsigned short)later});
    progress_say(p, "saved");
    progress_phase(p, "update", 0, 0);
    progress_close(p);
    size_t n = 0;
    fcntl(master, F_SETFL, O_NONBLOCK);
    for (ssize_t k; n < cap - 1 && (k = read(master, out + n, cap - 1 - n)) > 0;) n += (size_t)k;
    out[n] = 0;
    fclose(f);
    close(master);
}

static void progress_fits_the_terminal(void **state) {
    setenv("TERM", "xterm", 1);
    for (int width = 10; width <= 160; width += 30) {
        char text[8192];
        int later = width / 2 + 10;
        draw_on_terminal(width, later, text, sizeof text);
        // Columns used between two returns or line ends; escape sequences take none.
        int column = 0, widest = 0, drawings = 0;
        for (const char *c = text; *c; c++) {
            if (!strncmp(c, "\033[K", 3)) c += 2, drawings++;
            else if (*c == '\r' || *c == '\n') column = 0;
            else if (++column > widest) widest = column;
        }
        assert_true(drawings >= 5);
        assert_true(widest < (width > later ? width : later));
        const char *said = strstr(text, "saved\r\n");
        assert_non_null(said);
        column = 0;
        for (const char *c = said + 7; *c; c++) {
            if (!strncmp(c, "\033[K", 3)) c += 2;
            else column = *c == '\r' || *c == '\n' ? 0 : column + 1;
            assert_true(column < later);
        }
        assert_string_equal(text + strlen(text) - 2, "\r\n");
        if (width >= 100) assert_non_null(strstr(text, "step 1/100  rollout 50%\033[K\r"));
    }
}

// ---- signals --------------------------------------------------------------------------------------------------------
// A child that installs the handlers, tells so, and works until it is asked to stop (or, where `stubborn`, on and on).
static pid_t start_worker(bool stubborn, int *err) {
    int ready[2], fd[2];
    assert_int_equal(pipe(ready) | pipe(fd), 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd[1], STDERR_FILENO);
        close(fd[0]);
        close(fd[1]);
        signals_install(true);
        if (stop_requested()) _exit(1);
        close(ready[0]);
        close(ready[1]);
        for (int i = 0; i < 1000; i++) {
            if (stop_requested() && !stubborn) _exit(EXIT_STOPPED + stop_requested());
            nanosleep(&(struct timespec){0, 10000000}, NULL);
        }
        _exit(2);
    }
    close(ready[1]);
    close(fd[1]);
    char c;
    assert_int_equal(read(ready[0], &c, 1), 0);
    close(ready[0]);
    *err = fd[0];
    return pid;
}

static int end_worker(pid_t pid, int err, char *said, size_t cap) {
    size_t n = 0;
    for (ssize_t k; n < cap - 1 && (k = read(err, said + n, cap - 1 - n)) > 0;) n += (size_t)k;
    said[n] = 0;
    close(err);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void first_signal_asks_to_stop(void **state) {
    static const int sigs[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGUSR2, SIGXCPU};
    static const char *const names[] = {"SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGUSR2", "SIGXCPU"};
    for (int i = 0; i < 6; i++) {
        int err;
        char said[512];
        pid_t pid = start_worker(false, &err);
        kill(pid, sigs[i]);
        assert_int_equal(end_worker(pid, err, said, sizeof said), EXIT_STOPPED + sigs[i]);
        assert_non_null(strstr(said, names[i]));
        assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
    }
}

static void second_signal_quits_at_once(void **state) {
    int err;
    char said[512];
    pid_t pid = start_worker(true, &err);
    kill(pid, SIGTERM);
    assert_true(read(err, said, 1) == 1); // acknowledged, and still alive
    nanosleep(&(struct timespec){0, 150000000}, NULL);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    kill(pid, SIGTERM);
    assert_int_equal(end_worker(pid, err, said, sizeof said), 128 + SIGTERM);

    pid = start_worker(true, &err);
    kill(pid, SIGUSR1);
    assert_true(read(err, said, 1) == 1);
    kill(pid, SIGINT); // another signal is a second one at any time
    assert_int_equal(end_worker(pid, err, said, sizeof said), 128 + SIGINT);
}

// A terminal that closes sends SIGHUP more than once, the kernel SIGXCPU every second beyond a limit of processor time:
// that is one request.
static void a_repeated_signal_is_one_request(void **state) {
    static const int sigs[] = {SIGHUP, SIGXCPU};
    for (int i = 0; i < 2; i++) {
        int err;
        char said[512];
        pid_t pid = start_worker(true, &err);
        kill(pid, sigs[i]);
        assert_true(read(err, said, 1) == 1);
        nanosleep(&(struct timespec){0, 150000000}, NULL);
        kill(pid, sigs[i]);
        nanosleep(&(struct timespec){0, 50000000}, NULL);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        kill(pid, SIGTERM);
        assert_int_equal(end_worker(pid, err, said, sizeof said), 128 + SIGTERM);
    }
}

static void one_request_may_arrive_twice(void **state) {
    // As timeout(1) does: to the process, then to its group. On a busy machine the copy may come too late: try again.
    for (int attempt = 0, status = 128 + SIGTERM; status != 128 + SIGINT; attempt++) {
        assert_true(attempt < 5);
        int err;
        char said[512];
        pid_t pid = start_worker(true, &err);
        kill(pid, SIGTERM);
        assert_true(read(err, said, 1) == 1);
        kill(pid, SIGTERM);
        nanosleep(&(struct timespec){0, 50000000}, NULL);
        kill(pid, SIGINT);
        status = end_worker(pid, err, said, sizeof said);
    }
}

static void a_closed_pipe_ends_nothing(void **state) {
    int err;
    char said[512];
    pid_t pid = start_worker(false, &err);
    kill(pid, SIGPIPE);
    nanosleep(&(struct timespec){0, 50000000}, NULL);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    kill(pid, SIGTERM);
    assert_int_equal(end_worker(pid, err, said, sizeof said), EXIT_STOPPED + SIGTERM);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(metrics_are_json_in_order, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(metrics_bring_every_f32_back, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(completions_keep_what_was_scored, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(logs_are_cut_back_to_a_checkpoint, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(logs_shorter_than_the_checkpoint_go_on, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(logs_that_are_no_files, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_second_run_is_kept_out, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_failed_write_leaves_whole_lines, make_dir, remove_dir),
        cmocka_unit_test(an_unwritable_directory_is_an_error),
        cmocka_unit_test(progress_is_plain_in_a_file),
        cmocka_unit_test(progress_off_is_silent),
        cmocka_unit_test(progress_fits_the_terminal),
        cmocka_unit_test(first_signal_asks_to_stop),
        cmocka_unit_test(second_signal_quits_at_once),
        cmocka_unit_test(a_repeated_signal_is_one_request),
        cmocka_unit_test(one_request_may_arrive_twice),
        cmocka_unit_test(a_closed_pipe_ends_nothing),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
