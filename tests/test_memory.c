// Memory that runs out at any call, in our own code or inside a library (tests/memory/fail.c): the program says so and
// ends with exit code 5; what is on the disk stays whole, and the next run goes on from it as if nothing had been.
//
// MEMORY_CALLS=all tries every call, as make check does; without it a sample.
#include "file.h"
#include "scratch.h"
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif

static bool all_calls(void) {
    const char *v = getenv("MEMORY_CALLS");
    return v && !strcmp(v, "all");
}

// "$D" of a text becomes the test's directory. Heap.
static char *in_scratch(const char *text) {
    Str s = {0};
    for (const char *p = text; *p; p++) {
        if (p[0] == '$' && p[1] == 'D') str_puts(&s, scratch), p++;
        else str_add(&s, p, 1);
    }
    return s.s;
}

// Runs a shell's command; both outputs into *out, which may be NULL. The exit code; 128 + n: signal n.
static int shell(const char *text, Str *out) {
    char *command = in_scratch(text), *quoted = xasprintf("{ %s\n} 2>&1", command), block[4096];
    FILE *p = popen(quoted, "r");
    assert_non_null(p);
    if (out) str_clear(out);
    for (size_t n; (n = fread(block, 1, sizeof block, p)) > 0;)
        if (out) str_add(out, block, n);
    int status = pclose(p);
    free(quoted);
    free(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Runs grpo with these variables of the failing allocator (NULL: without it); what that has to say is in $D/log.
static int grpo(const char *fail, const char *args, Str *out) {
    char self[4096] = "";
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    *strrchr(self, '/') = 0;
    const char *program = getenv("GRPO") ? getenv("GRPO") : "build/grpo";
    char *preload = fail ? xasprintf("LD_PRELOAD=%s/memory/fail.so FAIL_LOG=$D/log %s", self, fail) : xstrdup("");
    // The waiting policy is set, so that grpo need not start itself anew.
    char *text = xasprintf("rm -f $D/log; %s OMP_WAIT_POLICY=passive OMP_NUM_THREADS=2 %s %s", preload, program, args);
    int code = shell(text, out);
    free(text);
    free(preload);
    return code;
}

static char *log_text(void) {
    size_t n;
    char *text = file_read(at("log"), 1 << 20, &n, NULL);
    return text ? text : xstrdup("");
}

#define MODEL "device=cpu dtype=f32 chat_template=r1-zero max_prompt_length=96 max_completion_length=12 "
#define TRAIN                                                                                                          \
    "train " MODEL "model=models/tiny init=random train_file=$D/train.jsonl output_dir=$D/run num_generations=4 "      \
    "per_device_train_batch_size=4 gradient_accumulation_steps=2 learning_rate=1e-3 beta=0.04 max_steps=2 "            \
    "save_steps=1 progress=off log_completions=true 'rewards=completion_length,accuracy,regex:pattern=[a-m]+' "

// What is tried, and the shell's command that makes $D/run ready for it.
static const struct {
    const char *name, *before, *args;
} commands[] = {
    {"train", "rm -rf $D/run", TRAIN},
    {"resume", "rm -rf $D/run; cp -r $D/half $D/run", TRAIN},
    {"sample", ":", "sample " MODEL "model=$D/straight/step_2 'prompt=How many pens?'"},
    {"eval", ":", "eval " MODEL "model=$D/straight/step_2 eval_file=$D/train.jsonl eval_limit=4"},
    {"reward", ":", "reward accuracy $D/scored.jsonl"},
    {"regex", ":", "reward 'regex:pattern=(?i)is ([0-9]+)' $D/scored.jsonl"},
    {"tokenize", ":", "tokenize models/tiny $D/texts.jsonl"},
    {"yaml", ":", "plan configs/demo.yaml model=models/tiny init=random train_file=$D/train.jsonl"},
    {"doctor", ":", "doctor configs/demo.yaml model=models/tiny init=random train_file=$D/train.jsonl"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

// The straight run, and half of it.
static int setup(void **state) {
    if (scratch_setup(state)) return -1;
    Str rows = {0}, scored = {0}, texts = {0};
    for (int i = 0; i < 12; i++) {
        str_printf(&rows, "{\"question\": \"Tom has %d pens and gets %d. How many?\", \"answer\": \"#### %d\"}\n", i, 2,
                   i + 2);
        str_printf(&scored, "{\"completion\": \"It is \\\\boxed{%d/2}\", \"answer\": \"%d\"}\n", i, i / 2);
        str_printf(&texts, "{\"text\": \"caf\\u0065\\u0301 no. %d\"}\n", i);
    }
    put_text(at("train.jsonl"), rows.s);
    put_text(at("scored.jsonl"), scored.s);
    put_text(at("texts.jsonl"), texts.s);
    str_free(&rows);
    str_free(&scored);
    str_free(&texts);
    Str out = {0};
    if (!SANITIZED && grpo(NULL, TRAIN, &out)) fail_aloud("%s", out.s);
    str_free(&out);
    return SANITIZED ? 0 : shell("mv $D/run $D/straight; cp -r $D/straight $D/half; rm -r $D/half/step_2", NULL);
}

static void skip_under_sanitizers(const char *test) {
    if (!SANITIZED) return;
    printf("SKIP %s: a sanitizer brings its own allocator\n", test);
    skip();
}

static void assert_straight(const char *name) {
    Str out = {0};
    // Two files count the digits of timings.
    if (shell("diff -r -x train.json -x manifest.json $D/run/step_2 $D/straight/step_2 && "
              "diff $D/run/completions.jsonl $D/straight/completions.jsonl",
              &out))
        fail_aloud("%s: not the straight run: %s", name, out.s);
    str_free(&out);
}

// One run a command, in which every call is tried in a copy of the process.
static void every_call_that_fails_ends_in_exit_code_5(void **state) {
    skip_under_sanitizers(__func__);
    for (int i = 0; i < N_COMMANDS; i++) {
        Str out = {0};
        assert_int_equal(shell(commands[i].before, NULL), 0);
        int code = grpo(all_calls() ? "FAIL_EVERY=1" : "FAIL_EVERY=131", commands[i].args, &out);
        char *log = log_text(), *end = strstr(log, "calls ");
        if (code || !end) fail_aloud("%s: exit code %d: %s", commands[i].name, code, out.n ? out.s : "");
        long calls, copies, wrong;
        assert_int_equal(sscanf(end, "calls %ld, copies %ld, wrong %ld", &calls, &copies, &wrong), 3);
        if (wrong || strstr(log, " ends ")) fail_aloud("%s: %s", commands[i].name, log);
        if (calls < 200 || copies != (all_calls() ? calls : calls / 131))
            fail_aloud("%s: %ld calls, %ld copies", commands[i].name, calls, copies);
        if (i < 2) assert_straight(commands[i].name);
        free(log);
        str_free(&out);
    }
}

// Runs command i with the allocator as `fail` says, which has to end it; then the same command without it, which goes
// on.
static void dies_and_goes_on(int i, const char *fail) {
    Str out = {0};
    assert_int_equal(shell(commands[i].before, NULL), 0);
    int code = grpo(fail, commands[i].args, &out);
    char *log = log_text();
    if (code != EXIT_MEMORY || !out.n || !strstr(out.s, "grpo: error: out of memory") || strncmp(log, "call ", 5))
        fail_aloud("%s, %s: exit code %d: %s%s", commands[i].name, fail, code, out.n ? out.s : "", log);
    if (grpo(NULL, commands[i].args, &out)) fail_aloud("%s after %s: %s", commands[i].name, log, out.n ? out.s : "");
    if (out.n && strstr(out.s, "cannot be used"))
        fail_aloud("%s after %s: %s", commands[i].name, log, out.n ? out.s : "");
    assert_straight(log);
    free(log);
    str_free(&out);
}

static long calls_of(int i, const char *fail) {
    assert_int_equal(shell(commands[i].before, NULL), 0);
    assert_int_equal(grpo(fail, commands[i].args, NULL), 0);
    long calls = 0;
    char *log = log_text();
    assert_int_equal(sscanf(log, "calls %ld", &calls), 1);
    free(log);
    return calls;
}

static void a_run_that_ends_so_is_taken_up(void **state) {
    skip_under_sanitizers(__func__);
    int tries = all_calls() ? 60 : 4;
    for (int i = 0; i < 2; i++) {
        long calls = calls_of(i, "FAIL_AT=0");
        for (int k = 0; k < tries; k++) {
            char fail[64];
            // The last calls free what there is; the libraries' own beginnings are the first thousand.
            snprintf(fail, sizeof fail, "FAIL_%s=%ld", k % 2 ? "FROM" : "AT", 1 + (calls * 9 / 10) * (k + 1) / tries);
            dies_and_goes_on(i, fail);
        }
    }
}

// Ranks are processes that the first one forks; of all of them one line comes.
static void a_rank_that_ends_so_ends_all(void **state) {
    skip_under_sanitizers(__func__);
    Str out = {0};
    assert_int_equal(shell("rm -rf $D/run", NULL), 0);
    assert_int_equal(grpo("FAIL_AT=0", TRAIN "gpus=2", &out), 0);
    char *log = log_text();
    long before = 0; // calls of the process that forks
    assert_int_equal(sscanf(log, "calls %ld", &before), 1);
    free(log);
    int tries = all_calls() ? 40 : 2;
    for (int k = 0; k < tries; k++) {
        char fail[64];
        snprintf(fail, sizeof fail, "FAIL_IN=children FAIL_AT=%ld", before + 1 + 4000 * k / tries);
        shell("rm -rf $D/run", NULL);
        int code = grpo(fail, TRAIN "gpus=2", &out);
        char *line = out.n ? strstr(out.s, "grpo: error: out of memory") : NULL;
        if (code != EXIT_MEMORY || !line || strstr(line + 1, "grpo: error"))
            fail_aloud("%s: exit code %d: %s", fail, code, out.n ? out.s : "");
    }
    str_free(&out);
}

// The judge's requests are made by a process of their own. What it lacks must not pass for a judge that is silent.
static void a_helper_that_ends_so_ends_its_run(void **state) {
    skip_under_sanitizers(__func__);
    Str out = {0};
#define JUDGE "reward 'judge:url=http://127.0.0.1:1/v1,template={completion},retries=0,timeout=5' $D/scored.jsonl"
    if (grpo(NULL, JUDGE, &out)) {
        printf("SKIP %s: no libcurl\n", __func__);
        skip();
    }
    int hits = 0;
    for (int k = 0; k < 6; k++) {
        char fail[64];
        snprintf(fail, sizeof fail, "FAIL_IN=children FAIL_%s=%d", k ? "AT" : "FROM", k ? 300 * k : 1);
        int code = grpo(fail, JUDGE, &out);
        char *log = log_text();
        bool hit = !strncmp(log, "call ", 5);
        if (code != (hit ? EXIT_MEMORY : EXIT_OK) || (hit && !strstr(out.s, "grpo: error: out of memory")))
            fail_aloud("%s: exit code %d: %s%s", fail, code, out.n ? out.s : "", log);
        hits += hit;
        free(log);
    }
    assert_true(hits > 2);
    str_free(&out);
}

// Weights and caches come from mmap, which says what is wanted; PCRE2 does without its JIT, and with the same results.
static void no_pages_is_an_error_or_the_same_run(void **state) {
    skip_under_sanitizers(__func__);
    Str out = {0};
    int ended = 0;
    for (int n = 1;; n++) {
        char fail[64];
        snprintf(fail, sizeof fail, "FAIL_CALLS=mmap FAIL_AT=%d", n);
        shell("rm -rf $D/run", NULL);
        int code = grpo(fail, TRAIN, &out);
        char *log = log_text();
        bool hit = !strncmp(log, "call ", 5);
        if (code && (code != EXIT_MEMORY || !out.n || !strstr(out.s, "memory")))
            fail_aloud("%s: exit code %d: %s%s", fail, code, out.n ? out.s : "", log);
        if (!code) assert_straight(log);
        ended += code != 0;
        free(log);
        if (!hit) break;
    }
    assert_true(ended >= 2); // scratch memory, the run's own
    str_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_that_fails_ends_in_exit_code_5),
        cmocka_unit_test(a_run_that_ends_so_is_taken_up),
        cmocka_unit_test(a_rank_that_ends_so_ends_all),
        cmocka_unit_test(a_helper_that_ends_so_ends_its_run),
        cmocka_unit_test(no_pages_is_an_error_or_the_same_run),
    };
    return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
