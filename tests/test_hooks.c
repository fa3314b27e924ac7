// Hooks: what a command gets, where its output goes, that nothing waits for it, and how it ends.
#include "clock.h"
#include "file.h"
#include "hooks.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "scratch.h"
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static Config cfg;

static Hooks *hooks_of(const char *name, const char *command, const char *timeout) {
    Error e = {0};
    char *arg[] = {xasprintf("output_dir=%s", scratch), xasprintf("%s=%s", name, command),
                   xasprintf("hook_timeout=%s", timeout)};
    if (!config_read(&cfg, NULL, arg, 3, &e)) fail_aloud("%s", e.text);
    for (int i = 0; i < 3; i++) free(arg[i]);
    return hooks_open(&cfg);
}
static void done(Hooks *h) {
    hooks_close(h);
    config_free(&cfg);
}

static char *text_of(const char *path) {
    size_t n;
    Error e = {0};
    char *text = file_read(path, 2 << 20, &n, &e);
    if (!text) fail_aloud("%s", e.text);
    return text;
}
static bool log_has(const char *word) {
    char *log = exists(at("hooks.log")) ? text_of(at("hooks.log")) : xstrdup("");
    bool has = strstr(log, word) != NULL;
    free(log);
    return has;
}
static void assert_log_has(const char *const *words) {
    char *log = text_of(at("hooks.log"));
    for (; *words; words++)
        if (!strstr(log, *words)) fail_aloud("no %s in %s", *words, log);
    free(log);
}
#define LOG_HAS(...) assert_log_has((const char *const[]){__VA_ARGS__, NULL})

static void wait_for(const char *path) {
    for (int i = 0; i < 500 && !exists(path); i++) nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    if (!exists(path)) fail_aloud("%s does not come", path);
}

static void commands_get_what_they_need(void **state) {
    Hooks *h =
        hooks_of("on_save", "cd / && echo said; echo complained >&2; env | grep ^GRPO_; printf '[%s]' one", "60");
    hooks_start(h, HOOK_EVAL, &(HookCall){.path = "nowhere", .step = 7}); // not set
    hooks_start(h, HOOK_SAVE,
                &(HookCall){"runs/a b/step_8", 8, "{\"step\": 8, \"reward\": 1.5}", "{\"eval/accuracy\": .5}", 0});
    done(h);
    LOG_HAS("on_save, step 8\n", "said\n", "complained\n", "GRPO_EVENT=save\n", "GRPO_STEP=8\n",
            "GRPO_PATH=runs/a b/step_8\n", "GRPO_METRICS={\"step\": 8, \"reward\": 1.5}\n",
            "GRPO_EVAL={\"eval/accuracy\": .5}\n", "[one][runs/a b/step_8][8]");
    char *log = text_of(at("hooks.log"));
    assert_null(strstr(log, "GRPO_EXIT"));
    assert_null(strstr(log, "nowhere"));
    free(log);
    h = hooks_of("on_end", "echo $GRPO_EVENT:$GRPO_EXIT:$GRPO_METRICS:$GRPO_EVAL:", "60");
    hooks_start(h, HOOK_END, &(HookCall){scratch, 9, NULL, NULL, 75});
    done(h);
    LOG_HAS("said\n", "end:75:{}:{}: ");
}

// Of the saves while a hook runs the newest gets its turn; on_end comes after all others.
static void training_does_not_wait(void **state) {
    Error e = {0};
    char *arg[] = {xasprintf("output_dir=%s", scratch), xstrdup("on_save=sleep 2; echo saved $GRPO_STEP; :"),
                   xstrdup("on_end=echo ended $GRPO_STEP; :")};
    if (!config_read(&cfg, NULL, arg, 3, &e)) fail_aloud("%s", e.text);
    Hooks *h = hooks_open(&cfg);
    double start = clock_seconds();
    for (int step = 1; step <= 4; step++) hooks_start(h, HOOK_SAVE, &(HookCall){.path = "p", .step = step});
    hooks_start(h, HOOK_END, &(HookCall){.path = "p", .step = 5});
    hooks_look(h);
    assert_true(clock_seconds() - start < 1.8);
    assert_false(log_has("saved 1\n"));
    done(h);
    for (int i = 0; i < 3; i++) free(arg[i]);
    char *log = text_of(at("hooks.log"));
    const char *one = strstr(log, "saved 1\n"), *four = strstr(log, "saved 4\n"), *end = strstr(log, "ended 5\n");
    if (!one || !four || !end || strstr(log, "step 2") || strstr(log, "step 3") || one > four || four > end)
        fail_aloud("hooks.log: %s", log);
    free(log);
}

// A log that has grown long gives way.
static void a_long_log_is_put_aside(void **state) {
    FILE *log = fopen(at("hooks.log"), "w");
    for (int i = 0; i < 17; i++) fprintf(log, "%01048575d\n", i);
    assert_int_equal(fclose(log), 0);
    Hooks *h = hooks_of("on_save", "echo said", "60");
    hooks_start(h, HOOK_SAVE, &(HookCall){.path = "p", .step = 1});
    done(h);
    assert_true(exists(at("hooks.log.1")));
    char *text = text_of(at("hooks.log"));
    assert_true(strlen(text) < 100 && strstr(text, "said p 1\n"));
    free(text);
}

// What one hook writes is bounded, and said to be cut off; it goes on meanwhile.
static void much_output_is_cut_off(void **state) {
    Hooks *h = hooks_of("on_save", "yes | head -c 9000000; echo; echo the end; touch $GRPO_OUTPUT_DIR/done; :", "60");
    hooks_start(h, HOOK_SAVE, &(HookCall){.path = "p", .step = 1});
    done(h);
    assert_true(exists(at("done")));
    struct stat st;
    assert_int_equal(stat(at("hooks.log"), &st), 0);
    assert_true(st.st_size > 1 << 20 && st.st_size < (1 << 20) + 200);
    LOG_HAS("y\n\n== more output is left out\n");
    h = hooks_of("on_save", "echo short; :", "60");
    hooks_start(h, HOOK_SAVE, &(HookCall){.path = "p", .step = 2});
    done(h);
    LOG_HAS("left out\n== ", "step 2\nshort\n");
}

// Past its time a command ends with what it started; so does what a command leaves behind.
static void what_takes_too_long_is_ended(void **state) {
    Hooks *h = hooks_of("on_save", "trap '' TERM; (sleep 3; touch $GRPO_OUTPUT_DIR/late) & sleep 20; :", "1");
    double start = clock_seconds();
    hooks_start(h, HOOK_SAVE, &(HookCall){.path = "p", .step = 1});
    done(h);
    assert_true(clock_seconds() - start < 15);
    h = hooks_of("on_save", "(sleep 1; touch $GRPO_OUTPUT_DIR/late) & :", "60");
    hooks_start(h, HOOK_SAVE, &(HookCall){.path = "p", .step = 1});
    done(h);
    nanosleep(&(struct timespec){.tv_sec = 3}, NULL);
    assert_false(exists(at("late")));
}

static void failures_are_said(void **state) {
    char *path = xstrdup(at("stderr"));
    fflush(stderr);
    int old = dup(2), to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    dup2(to, 2);
    Hooks *h = hooks_of("on_eval", "exit 3;", "60");
    hooks_start(h, HOOK_EVAL, &(HookCall){.path = "p", .step = 4});
    done(h);
    h = hooks_of("on_end", "no-such-program", "60");
    hooks_start(h, HOOK_END, &(HookCall){.path = "p", .step = 5});
    done(h);
    h = hooks_of("on_save", "kill -9 $$;", "60");
    hooks_start(h, HOOK_SAVE, &(HookCall){.path = "p", .step = 6});
    done(h);
    fflush(stderr);
    dup2(old, 2);
    close(old), close(to);
    char *said = text_of(path);
    const char *const words[] = {"on_eval of step 4 ended with status 3; see ",
                                 "hooks.log; the run does not need it\n",
                                 "on_eval: started 1 times, failed 1, left out 0",
                                 "on_end of step 5 ended with status 127",
                                 "hooks.log\n",
                                 "on_save of step 6 died of signal 9"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(said, words[i])) fail_aloud("no %s in %s", words[i], said);
    LOG_HAS("no-such-program");
    free(said), free(path);
}

// kill -9 of the run's process ends its hook, the programs that the hook started, and those that left its group.
static void a_hook_ends_with_its_run(void **state) {
    pid_t run = fork();
    if (!run) {
        Hooks *h =
            hooks_of("on_save",
                     "cd $GRPO_OUTPUT_DIR; (sleep 3; touch late_child) & setsid sh -c 'touch begun; sleep 3; touch "
                     "late_apart' & sleep 3; touch late; :",
                     "60");
        hooks_start(h, HOOK_SAVE, &(HookCall){.path = "p", .step = 1});
        for (;;) pause();
    }
    wait_for(at("begun"));
    kill(run, SIGKILL);
    assert_int_equal(waitpid(run, NULL, 0), run);
    nanosleep(&(struct timespec){.tv_sec = 3, .tv_nsec = 500000000}, NULL);
    assert_false(exists(at("late")) || exists(at("late_child")) || exists(at("late_apart")));
}

static void examples_work(void **state) {
    assert_true(disk_mkdir(at("step_4/state"), NULL));
    put_text(at("step_4/model.safetensors"), "weights");
    assert_true(disk_mkdir(at("elsewhere/step_4.part"), NULL)); // of a copy that was cut off
    put_text(at("elsewhere/step_4.part/model.safetensors"), "wei");
    Hooks *h = hooks_of("on_save", "tools/hooks/push.sh $GRPO_OUTPUT_DIR/elsewhere", "60");
    hooks_start(h, HOOK_SAVE, &(HookCall){.path = at("step_4"), .step = 4});
    done(h);
    char *text = text_of(at("elsewhere/step_4/model.safetensors"));
    assert_string_equal(text, "weights");
    free(text);
    assert_false(exists(at("elsewhere/step_4.part")));
    h = hooks_of("on_save", "tools/hooks/push.sh $GRPO_OUTPUT_DIR/elsewhere", "60"); // another run's, of that name
    hooks_start(h, HOOK_SAVE, &(HookCall){.path = at("step_4"), .step = 4});
    done(h);
    LOG_HAS("elsewhere/step_4 is there already");
    assert_false(exists(at("elsewhere/step_4.part")) || exists(at("elsewhere/step_4/step_4.part")));
    put_text(at("fake"), "#!/bin/sh\necho \"$@\"\n");
    assert_int_equal(chmod(at("fake"), 0700), 0);
    h = hooks_of("on_save", "GRPO=$GRPO_OUTPUT_DIR/fake tools/hooks/evaluate.sh c.yaml held.jsonl eval_limit=3", "60");
    hooks_start(h, HOOK_SAVE, &(HookCall){.path = at("step_4"), .step = 4});
    done(h);
    LOG_HAS(
        "eval c.yaml device=cpu model=", "/step_4 eval_file=held.jsonl eval_output=", "/eval_4.json eval_limit=3\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(commands_get_what_they_need, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(training_does_not_wait, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_long_log_is_put_aside, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(much_output_is_cut_off, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(what_takes_too_long_is_ended, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(failures_are_said, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_hook_ends_with_its_run, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(examples_work, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
