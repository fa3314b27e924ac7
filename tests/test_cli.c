// The program as a user meets it: exit codes, one clear line for each mistake, signals, resuming, rewards on a pipe.
#include "device.h"
#include "file.h"
#include "train_fixture.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <string.h>

static char dir[64]; // holds train.jsonl

static const char *program(void) { return getenv("GRPO") ? getenv("GRPO") : "build/grpo"; }

// Runs `grpo ARGS` through the shell (input may be NULL), both outputs into *out; the exit code.
static int grpo(const char *args, const char *input, Str *out) {
    char *in = xasprintf("%s/input", dir);
    FILE *f = fopen(in, "w");
    assert_non_null(f);
    if (input) fputs(input, f);
    fclose(f);
    char *command = xasprintf("%s %s <%s 2>&1", program(), args, in);
    str_clear(out);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, p)) > 0;) str_add(out, block, n);
    int status = pclose(p);
    free(command);
    free(in);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

// Where the JSON of an output begins: notes may come first.
static char *results(const Str *out) { return strchr(out->s, '{') ? strchr(out->s, '{') : out->s; }

static char *words(const char *fmt) { // "$D" stands for the directory
    Str s = {0};
    for (const char *p = fmt; *p; p++) {
        if (p[0] == '$' && p[1] == 'D') str_puts(&s, dir), p++;
        else str_add(&s, p, 1);
    }
    return s.s;
}

static void write_file(const char *name, const char *text) {
    char *path = xasprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

#define TINY                                                                                                           \
    "model=models/tiny init=random dtype=f32 chat_template=r1-zero max_prompt_length=96 max_completion_length=8 "      \
    "num_generations=2 per_device_train_batch_size=2 gradient_accumulation_steps=1 progress=plain beta=0 "

static void mistakes_are_one_clear_line(void **state) {
    static const struct {
        const char *args;
        int code;
        const char *says;
    } cases[] = {
        {"trian", 2, "train"},
        {"train modle=x", 2, "model"},
        {"train " TINY "train_file=$D/none.jsonl", 3, "none.jsonl"},
        {"train " TINY "train_file=$D/train.jsonl on_eval=true", 2, "eval_steps is 0"},
        {"train " TINY "train_file=$D/train.jsonl log_tokens=true log_completions=false", 2,
         "log_completions is false"},
        {"sft " TINY "train_file=$D/sft.jsonl on_eval=true", 2, "on_eval is not for sft"},
        {"train " TINY "train_file=$D/train.jsonl report_to=wandb", 2, "there is no `wandb`"},
        {"report", 2, "output_dir of a run"},
        {"report $D $D", 2, "output=FILE"},
        {"report $D", 3, "holds no metrics.jsonl"},
        {"report --page $D", 2, "--page"},
        {"watch $D/nothing", 3, "holds no metrics.jsonl"},
        {"watch $D $D", 2, "one DIR"},
        {"train " TINY "train_file=$D/empty.jsonl", 3, "empty"},
        {"train " TINY "train_file=$D/bad.jsonl", 3, "bad.jsonl:2"},
        {"train " TINY "train_file=$D/train.jsonl rewards=corectness", 2, "correctness"},
        {"train " TINY "train_file=$D/train.jsonl output_dir=/proc/nowhere", 4, "/proc/nowhere"},
        {"train " TINY "train_file=$D/train.jsonl max_completion_length=5000", 2, "context"},
        {"train " TINY "train_file=$D/train.jsonl max_prompt_length=4 long_prompts=fail", 3, "train.jsonl:"},
        {"train " TINY "train_file=$D/noquestion.jsonl raw=true", 3, "noquestion.jsonl:1: the prompt is empty"},
        {"eval " TINY "eval_file=$D/noquestion.jsonl raw=true", 3, "noquestion.jsonl:1: the prompt is empty"},
        {"train " TINY "train_file=$D/train.jsonl max_prompt_length=4 long_prompts=skip", 3, "max_prompt_length"},
        {"train " TINY "train_file=$D/train.jsonl resume=must output_dir=$D/nothing", 3, "resume=must"},
        {"train " TINY "train_file=$D/train.jsonl model=$D/nomodel", 3, "nomodel"},
        {"train model=models/tiny train_file=$D/train.jsonl", 3, "safetensors"},
        {"train " TINY "train_file=$D/train.jsonl chat_template=chatml", 2, "qwen2.5"},
        {"train " TINY "train_file=$D/train.jsonl model=$D/small", 3, "vocabulary"},
        {"train " TINY "train_file=$D/train.jsonl system_prompt_file=$D/none.txt", 3, "none.txt"},
        {"train " TINY "train_file=$D/train.jsonl temperature=hot", 2, "temperature"},
        {"eval " TINY "eval_file=$D/none.jsonl", 3, "none.jsonl"},
        {"eval " TINY "eval_file=$D/train.jsonl eval_limit=1 eval_output=/proc/x.json", 4, "/proc/x.json"},
        {"sample " TINY "prompt=hello max_prompt_length=2", 3, "max_prompt_length"},
        {"sample " TINY "prompt_file=$D/none.txt", 3, "none.txt"},
        {"sft " TINY "train_file=$D/train.jsonl", 3, "prompt"},
        {"sft " TINY "train_file=$D/sft.jsonl max_length=5000", 2, "context"},
        {"tokenize $D/nomodel", 3, "nomodel"},
        {"reward nonsense", 2, "xmlcount"},
        {"plan model=$D/nomodel", 3, "nomodel"},
        {"plan " TINY "per_device_train_batch_size=3", 2, "num_generations"},
        {"config /nonexistent.yaml", 2, "nonexistent.yaml"},
        {"train /nonexistent.yaml", 2,
         "error: /nonexistent.yaml: cannot be opened"}, // and nothing about what it would set
        {"train " TINY "train_file=$D/train.jsonl output_dir=$D/train.jsonl", 4, "Not a directory"},
        {"sample " TINY "prompt=hello model=$D/\x1b[31mred", 3, "\\x1b[31mred"}, // a terminal is not to obey it
        {"sft " TINY "train_file=$D/unasked.jsonl", 3, "unasked.jsonl:1: messages[0] is of the assistant"},
        {"sft " TINY "train_file=-", 3, "must be in a file"},
        {"train " TINY "train_file=-", 3, "must be in a file"},
        {"eval " TINY "eval_file=-", 3, "must be in a file"},
        {"train " TINY "raw=true train_file=$D/late.jsonl", 3, "late.jsonl:6000: the prompt is empty"},
        {"eval " TINY "raw=true eval_file=$D/late.jsonl", 3, "late.jsonl:6000: the prompt is empty"},
        {"train " TINY "train_file=$D/train.jsonl eval_steps=1 raw=true eval_file=$D/late.jsonl", 3, "late.jsonl:6000"},
        {"train " TINY "long_prompts=fail max_prompt_length=4 bad_lines=skip train_file=$D/train.jsonl", 3,
         "train.jsonl:1: the prompt has"},
        {"sft " TINY "train_file=$D/roles.jsonl", 3, "roles.jsonl:2: messages[0]: the template r1-zero has no place"},
        {"sft " TINY "train_file=$D/turns.jsonl", 3, "turns.jsonl:1: messages[1]: no field \"content\""},
    };
    Str out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *args = words(cases[i].args);
        int code = grpo(args, NULL, &out);
        if (code != cases[i].code || !out.s || !strstr(out.s, cases[i].says) || !strstr(out.s, "grpo: error: "))
            fail_msg("grpo %s: exit %d (not %d), output: %s", args, code, cases[i].code, out.s ? out.s : "");
        if (strstr(out.s, "internal error") || strstr(out.s, "==ERROR")) fail_msg("grpo %s: %s", args, out.s);
        free(args);
    }
    str_free(&out);
}

// A reward that `stop` keeps from ever being met is named before the first step, with what helps.
static void stop_strings_against_rewards(void **state) {
    static const struct {
        const char *options, *says; // NULL: nothing
    } cases[] = {
        {"rewards=soft_format 'stop=</answer>'",
         "reward soft_format needs what `stop` cuts off: a well-formed answer has "
         "0.5, cut there 0; set include_stop=true"},
        {"rewards=soft_format 'stop=</answer>' include_stop=true", NULL},
        {"rewards=strict_format 'stop=</answer>' include_stop=true", "leave that string out of `stop`"},
        {"rewards=correctness,completion_length 'stop=</answer>'", NULL},
        {"rewards=soft_format,correctness 'stop=User:'", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *all = xasprintf("eval " TINY "init=random eval_file=$D/train.jsonl eval_limit=1 %s", cases[i].options),
             *args = words(all);
        Str out = {0};
        assert_int_equal(grpo(args, NULL, &out), 0);
        bool said = out.s && strstr(out.s, "needs what `stop` cuts off");
        if (said != (cases[i].says != NULL) || (said && !strstr(out.s, cases[i].says)))
            fail_msg("grpo %s:\n%s", args, out.s);
        str_free(&out);
        free(args), free(all);
    }
}

// What only a run finds bad is left out at its start, and counted where it says what it has.
static void bad_rows_are_counted_in_the_header(void **state) {
    char *args = words("train " TINY "raw=true bad_lines=skip train_file=$D/late.jsonl max_steps=1 output_dir=$D/late");
    Str out = {0};
    assert_int_equal(grpo(args, NULL, &out), 0);
    if (!strstr(out.s, "; 5999 questions checked (1 bad line left out), ")) fail_msg("grpo %s:\n%s", args, out.s);
    if (!strstr(out.s, "late.jsonl:6000: the prompt is empty")) fail_msg("grpo %s:\n%s", args, out.s);
    str_free(&out);
    free(args);
}

static void train_eval_sample_sft_work_together(void **state) {
    Str out = {0};
    char *args =
        words("sft " TINY "train_file=$D/sft.jsonl output_dir=$D/sft max_steps=2 max_length=128 learning_rate=1e-3");
    assert_int_equal(grpo(args, NULL, &out), 0);
    free(args);
    args = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/sft max_steps=3");
    assert_int_equal(grpo(args, NULL, &out), 2); // another command's run is not gone on with
    assert_non_null(strstr(out.s, "grpo sft"));
    free(args);
    args = words("train " TINY "init=load model=$D/sft/step_2 train_file=$D/train.jsonl output_dir=$D/run max_steps=2 "
                 "eval_file=$D/train.jsonl eval_steps=2 eval_limit=3");
    assert_int_equal(grpo(args, NULL, &out), 0);
    assert_non_null(strstr(out.s, "eval accuracy"));
    free(args);
    args = words("eval " TINY
                 "init=load model=$D/run/step_2 eval_file=$D/train.jsonl eval_limit=5 eval_samples=4 temperature=1");
    assert_int_equal(grpo(args, NULL, &out), 0);
    json_t *j = json_loads(results(&out), 0, NULL);
    assert_non_null(j);
    assert_int_equal(json_integer_value(json_object_get(j, "questions")), 5);
    assert_true(json_is_number(json_object_get(j, "pass@4")) && json_is_number(json_object_get(j, "maj@4")));
    json_decref(j);
    free(args);
    // Another judge of right and wrong: all are right, or none.
    for (int right = 0; right < 2; right++) {
        args = words(right ? "eval " TINY "init=random eval_file=$D/train.jsonl eval_limit=3 eval_samples=2 "
                             "temperature=1 max_completion_length=4 eval_grader=regex:pattern=^"
                           : "eval " TINY "init=random eval_file=$D/train.jsonl eval_limit=3 eval_samples=2 "
                             "temperature=1 max_completion_length=4 eval_grader=regex:pattern=a^");
        assert_int_equal(grpo(args, NULL, &out), 0);
        j = json_loads(results(&out), 0, NULL);
        assert_non_null(j);
        assert_true(json_number_value(json_object_get(j, "accuracy")) == right);
        assert_true(json_number_value(json_object_get(j, "pass@2")) == right);
        assert_null(json_object_get(j, "lenient_accuracy"));
        json_decref(j);
        free(args);
    }
    args = words("sample " TINY "init=load model=$D/run/step_2");
    assert_int_equal(grpo(args, "one prompt\n{\"prompt\": \"another\"}\n", &out), 0);
    int lines = 0;
    for (char *line = strtok(results(&out), "\n"); line; line = strtok(NULL, "\n"), lines++) {
        j = json_loads(line, 0, NULL);
        assert_string_equal(json_string_value(json_object_get(j, "prompt")), lines ? "another" : "one prompt");
        assert_non_null(json_object_get(j, "completion"));
        json_decref(j);
    }
    assert_int_equal(lines, 2);
    free(args);
    // A weight that is no number: refused where weights are checked, said where only what they make can show it. As in
    // somebody else's directory, no manifest tells.
    char *path = words("$D/run/step_2/manifest.json");
    assert_int_equal(unlink(path), 0);
    free(path);
    path = words("$D/run/step_2/model.safetensors");
    FILE *f = fopen(path, "r+b");
    static const float nan = NAN;
    assert_true(f && !fseek(f, -4, SEEK_END) && fwrite(&nan, 4, 1, f) == 1 && !fclose(f));
    free(path);
    static const char *const uses[] = {"sample " TINY "prompt=hello init=load model=$D/run/step_2 load=%s",
                                       "eval " TINY "eval_file=$D/train.jsonl init=load model=$D/run/step_2 load=%s"};
    for (int i = 0; i < 4; i++) {
        char *load = xasprintf(uses[i / 2], i % 2 ? "mmap" : "strict");
        args = words(load);
        assert_int_equal(grpo(args, NULL, &out), i % 2 ? EXIT_NUMERIC : EXIT_INPUT);
        assert_non_null(strstr(out.s, "is not a finite number") ? out.s : strstr(out.s, "is not finite"));
        free(args);
        free(load);
    }
    str_free(&out);
}

// What goes wrong while rewards score is noted at the end, and a column of metrics.jsonl.
// What a run leaves to look at: the page, what it is, TensorBoard's file; and the commands it starts.
static void a_run_is_shown_and_starts_hooks(void **state) {
    Str out = {0};
    char *args = words(
        "train " TINY "train_file=$D/train.jsonl output_dir=$D/shown max_steps=2 save_steps=1 eval_file=$D/train.jsonl "
        "eval_steps=2 eval_limit=2 log_tokens=true report_to=tensorboard on_save='sleep 0.1; echo saved' on_eval='echo "
        "evaluated' "
        "on_end='echo ended $GRPO_EXIT'");
    assert_int_equal(grpo(args, NULL, &out), 0);
    free(args);
    char *path = xasprintf("%s/shown/hooks.log", dir);
    size_t n;
    char *log = file_read(path, 1 << 20, &n, NULL);
    assert_non_null(log);
    const char *const said[] = {"on_save, step 1\n", "saved",      "/shown/step_1 1\n",
                                "evaluated",         "/shown 2\n", "ended 0 "};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (!strstr(log, said[i])) fail_msg("no %s in %s\n%s", said[i], log, out.s);
    free(log), free(path);
    const char *const files[] = {"report.html", "run.json", "notes.jsonl", "events.out.tfevents.grpo"};
    for (int i = 0; i < 4; i++) {
        path = xasprintf("%s/shown/%s", dir, files[i]);
        assert_int_equal(access(path, R_OK), 0);
        free(path);
    }
    args = words("report $D/shown $D/shown output=$D/two.html");
    assert_int_equal(grpo(args, NULL, &out), 0);
    assert_non_null(strstr(out.s, "/two.html\n"));
    free(args);
    path = xasprintf("%s/shown/completions.jsonl", dir); // tokens put together are the completion, but for special ones
    char *lines = file_read(path, 1 << 20, &n, NULL);
    assert_non_null(lines);
    json_t *row = json_loadb(lines, strcspn(lines, "\n"), 0, NULL);
    const json_t *tokens = json_object_get(row, "tokens");
    assert_true(json_array_size(tokens) > 0 && json_array_size(tokens) <= 8);
    Str joined = {0};
    for (size_t k = 0; k < json_array_size(tokens); k++) {
        const json_t *token = json_array_get(tokens, k);
        str_puts(&joined, json_string_value(json_array_get(token, 0)));
        assert_true(json_number_value(json_array_get(token, 1)) <= 0 &&
                    json_number_value(json_array_get(token, 2)) >= 0);
    }
    const char *text = json_string_value(json_object_get(row, "completion"));
    if (strncmp(joined.s, text, strlen(text))) fail_msg("%s: %s", joined.s, text);
    json_decref(row), str_free(&joined);
    free(lines), free(path);
    args = words("watch $D/shown");
    assert_int_equal(grpo(args, NULL, &out), 0);
    assert_non_null(strstr(out.s, "step 2 of 2  "));
    free(args);
    args = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/unshown max_steps=1 report=false");
    assert_int_equal(grpo(args, NULL, &out), 0);
    path = xasprintf("%s/unshown/report.html", dir);
    assert_int_not_equal(access(path, F_OK), 0);
    free(path), free(args);
    str_free(&out);
}

static void faults_of_rewards_are_shown(void **state) {
    Str out = {0};
    static const char hard[] = "{\"completion\": \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\", \"answer\": \"\"}\n";
    assert_int_equal(grpo("reward 'regex:pattern=(a+)+$'", hard, &out), 0);
    assert_non_null(strstr(out.s, "{\"reward\": 0}"));
    assert_non_null(strstr(out.s, "reward regex: completions without a proper score: regex_limit 1"));
    char *args = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/faults max_steps=1 "
                       "rewards=regex:pattern=a,regex:pattern=b,as=second");
    assert_int_equal(grpo(args, NULL, &out), 0);
    free(args);
    char *path = words("$D/faults/metrics.jsonl");
    size_t n;
    Error e = {0};
    char *metrics = file_read(path, 1 << 20, &n, &e);
    assert_non_null(metrics);
    assert_non_null(strstr(metrics, "\"rewards/regex/regex_limit\": 0"));
    assert_non_null(strstr(metrics, "\"rewards/second/regex_limit\": 0"));
    assert_non_null(strstr(metrics, "\"rewards/second/mean\": "));
    free(metrics);
    free(path);
    args = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/refused max_steps=1 "
                 "'rewards=external:command=/nonexistent/scorer'");
    assert_int_equal(grpo(args, NULL, &out), 2); // before the first step
    assert_non_null(strstr(out.s, "/nonexistent/scorer: no such program"));
    free(args);
    str_free(&out);
}

// Starts grpo in the background, its output in $D/log.
static pid_t start(const char *fmt) {
    char *args = words(fmt), *log = xasprintf("%s/log", dir), *command = xasprintf("exec %s %s", program(), args);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    free(args);
    free(log);
    free(command);
    return pid;
}

static void wait_for(const char *name) {
    char *path = words(name);
    for (int i = 0; i < 600 && access(path, F_OK); i++) usleep(50000);
    if (access(path, F_OK)) fail_msg("%s did not appear", path);
    free(path);
}

static void a_signal_saves_and_the_run_goes_on(void **state) {
    const char *command =
        "train " TINY
        "train_file=$D/train.jsonl output_dir=$D/stopped save_steps=1 save_total_limit=1000 max_steps=100000";
    pid_t pid = start(command);
    wait_for("$D/stopped/step_2");
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    kill(pid, SIGTERM);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 75);
    assert_true(t1.tv_sec - t0.tv_sec < 20);
    pid = start(command);
    wait_for("$D/stopped/metrics.jsonl");
    usleep(300000);
    kill(pid, SIGKILL); // no farewell this time
    waitpid(pid, &status, 0);
    Str out = {0};
    char *args =
        words("train " TINY "train_file=$D/train.jsonl output_dir=$D/stopped save_steps=1 resume=must max_steps=1");
    int code = grpo(args, NULL, &out); // already past step 1: nothing is left to do
    if (code) fail_msg("%s", out.s);
    assert_non_null(strstr(out.s, "resumed from"));
    free(args);
    str_free(&out);
}

// Other options than the checkpoint's are named; another model is refused by name.
static void resuming_names_what_changed(void **state) {
    Str out = {0};
    static const struct {
        const char *options;
        int code;
        const char *says;
    } cases[] = {{"max_steps=1", 0, "saved"},
                 {"max_steps=1", 0, "nothing is left to do: step 1 of 1 is saved"},
                 {"max_steps=2 seed=7 learning_rate=1e-4", 0, "config.yaml): seed, learning_rate, max_steps"},
                 {"max_steps=2 cpu_isa=generic", 0, "this one computes on generic: its last bits will differ"},
                 {"max_steps=3 model=$D/other", 2, "a checkpoint of another model (qwen2, 2 layers"},
                 {"max_steps=3 dtype=bf16", 2, "saved with dtype=f32"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *all = xasprintf("train " TINY "train_file=$D/train.jsonl output_dir=$D/changed %s", cases[i].options);
        char *args = words(all);
        int code = grpo(args, NULL, &out);
        if (code != cases[i].code || !strstr(out.s, cases[i].says)) fail_msg("grpo %s: exit %d: %s", args, code, out.s);
        free(args);
        free(all);
    }
    // The training file grows; what a removal that was cut off left behind goes, too.
    char *file = words("$D/train.jsonl"), *gone = words("$D/changed/step_1.gone"), *args;
    size_t n;
    char *former = file_read(file, 1 << 20, &n, NULL), *longer = xasprintf("%s%s", former, former);
    write_file("train.jsonl", longer);
    assert_int_equal(mkdir(gone, 0777), 0);
    args = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/changed max_steps=4");
    assert_int_equal(grpo(args, NULL, &out), 0);
    if (!strstr(out.s, "train.jsonl is not the file that")) fail_msg("%s", out.s);
    assert_int_equal(access(gone, F_OK), -1);
    write_file("train.jsonl", former);
    free(args), free(former), free(longer), free(file), free(gone);
    str_free(&out);
}

// A checkpoint given as a model is held against its manifest, unless it is only mapped.
static void a_damaged_checkpoint_is_no_model(void **state) {
    Str out = {0};
    char *args = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/whole max_steps=1"),
         *weights = words("$D/whole/step_1/model.safetensors");
    assert_int_equal(grpo(args, NULL, &out), 0);
    FILE *f = fopen(weights, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -100, SEEK_END), 0);
    int byte = fgetc(f);
    assert_int_equal(fseek(f, -100, SEEK_END), 0);
    fputc(byte ^ 1, f);
    fclose(f);
    free(args);
    static const struct {
        const char *load;
        int code;
        const char *says;
    } cases[] = {{"strict", 3, "model.safetensors"}, {"mmap", 0, "is not held against its manifest"}};
    for (int i = 0; i < 2; i++) {
        char *all = xasprintf(
            "sample model=$D/whole/step_1 dtype=f32 raw=true prompt=1 max_completion_length=4 load=%s", cases[i].load);
        args = words(all);
        int code = grpo(args, NULL, &out);
        if (code != cases[i].code || !strstr(out.s, cases[i].says)) fail_msg("grpo %s: exit %d: %s", args, code, out.s);
        free(args), free(all);
    }
    free(weights);
    str_free(&out);
}

// Whether process `pid` has a handler for SIGTERM.
static bool handles_sigterm(pid_t pid) {
    char path[64], line[256];
    unsigned long long caught = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "SigCgt: %llx", &caught);
    if (f) fclose(f);
    return caught >> (SIGTERM - 1) & 1;
}

// A signal also ends the wait for a prompt that has not come.
static void a_signal_ends_the_wait_for_a_prompt(void **state) {
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    char *args = words("sample " TINY), *command = xasprintf("exec %s %s", program(), args);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[0], 0);
        close(ends[1]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    for (int i = 0; i < 400 && !handles_sigterm(pid); i++) usleep(50000);
    usleep(500000);
    kill(pid, SIGTERM);
    pid_t ended = 0;
    for (int i = 0; i < 200 && !(ended = waitpid(pid, &status, WNOHANG)); i++) usleep(50000);
    if (!ended) kill(pid, SIGKILL);
    close(ends[1]);
    free(args);
    free(command);
    assert_int_equal(ended, pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 75);
}

// device=cuda without a GPU is one line that says so; device=auto runs on the CPU then, and names options of no effect.
static void a_missing_gpu_is_one_clear_line(void **state) {
    Error e = {0};
    Device *gpu = device_open(DEVICE_CUDA, 0, 1, CPU_ISA_AUTO, &e);
    bool there = gpu;
    device_close(gpu);
    Str out = {0};
    int code = grpo("sample " TINY "prompt=hello device=cuda", NULL, &out);
    if (code != (there ? 0 : 2)) fail_msg("device=cuda: exit %d: %s", code, out.s);
    if (!there) {
        assert_memory_equal(out.s, "grpo: error: device=cuda: ", 26);
        assert_ptr_equal(strchr(out.s, '\n'), out.s + out.n - 1);
    }
    code = grpo("sample " TINY "prompt=hello device=auto matmul=cublas", NULL, &out);
    if (code) fail_msg("device=auto: exit %d: %s", code, out.s);
    if (!there) assert_non_null(strstr(out.s, "grpo: note: matmul=cublas has no effect"));

    // An option of another loss, and ratios that the loss was not made for.
    code = grpo("config loss_type=vespo sapo_temperature_pos=2 importance_sampling_level=sequence entropy_target=1",
                NULL, &out);
    if (code) fail_msg("%s", out.s);
    assert_non_null(strstr(out.s, "grpo: note: sapo_temperature_pos has no effect with loss_type vespo\n"));
    assert_non_null(strstr(out.s, "grpo: note: entropy_target has no effect without use_adaptive_entropy\n"));
    assert_non_null(strstr(out.s, "loss_type vespo was made for the ratios of tokens"));
    const char *const notes[][2] = {
        {"loss_type=sapo delta=4", "grpo: note: delta has no effect with loss_type sapo\n"},
        {"loss_type=cispo epsilon_high=0.2", "every ratio of 1 counts as 0.2"},
        {"delta=1.2", "delta is 1.2, not above the upper clip (1 + 0.2)"},
        {"use_adaptive_entropy=true entropy_coef=2", "entropy_coef (2) starts outside"},
        {"use_adaptive_entropy=true entropy_coef=-0.1", "entropy_coef (-0.1) starts outside"},
    };
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
        char *command = xasprintf("config %s", notes[i][0]);
        code = grpo(command, NULL, &out);
        if (code || !strstr(out.s, notes[i][1])) fail_msg("%s: %s", command, out.s);
        free(command);
    }
    code = grpo("config loss_type=luspo vespo_k_pos=2", NULL, &out); // its default
    assert_true(!code && strstr(out.s, "loss_type luspo was made for the ratios of sequences"));
    assert_null(strstr(out.s, "no effect"));
    assert_int_equal(grpo("sample " TINY "prompt=hello device=cpu matmul=cublas", NULL, &out), 2);
    str_free(&out);
}

static void help_that_cannot_be_written_fails(void **state) {
    Str out = {0};
    assert_int_equal(grpo("--help >/dev/full", NULL, &out), 4);
    assert_int_equal(grpo("config configs/demo.yaml >/dev/full", NULL, &out), 4);
    str_free(&out);
}

static void help_names_every_command(void **state) {
    static const char *const names[] = {"train",    "sft",  "sample", "eval",  "reward",
                                        "tokenize", "plan", "config", "doctor"};
    Str out = {0};
    assert_int_equal(grpo("--help", NULL, &out), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_non_null(strstr(out.s, names[i]));
        char *args = xasprintf("%s --help", names[i]);
        Str help = {0};
        assert_int_equal(grpo(args, NULL, &help), 0);
        assert_true(help.n > 60);
        str_free(&help);
        free(args);
    }
    assert_int_equal(grpo("plan configs/demo.yaml model=models/tiny", NULL, &out), 0);
    assert_non_null(strstr(out.s, "KV cache"));
    str_free(&out);
}

static int set_up(void **state) {
    static Fixture f;
    fixture_dir(&f);
    snprintf(dir, sizeof dir, "%s", f.dir);
    *state = &f;
    write_file("empty.jsonl", "");
    write_file("noquestion.jsonl", "{\"question\": \"\", \"answer\": \"#### 1\"}\n");
    write_file("bad.jsonl", "{\"question\": \"a\", \"answer\": \"#### 1\"}\n{\"question\": \"a\"\n");
    Str sft = {0};
    for (int i = 0; i < 8; i++)
        str_printf(&sft,
                   i % 2 ? "{\"prompt\": \"What is %d + 1?\", \"completion\": \"%d\"}\n"
                         : "{\"messages\": [{\"role\": \"user\", \"content\": \"What is %d + 1?\"}, {\"role\": "
                           "\"assistant\", \"content\": \"%d\"}]}\n",
                   i, i + 1);
    write_file("sft.jsonl", sft.s);
    Str late = {0};
    for (int i = 1; i <= 6000; i++)
        str_printf(&late, "{\"question\": \"%s\", \"answer\": \"#### 1\"}\n", i < 6000 ? "What?" : "");
    write_file("late.jsonl", late.s);
    str_free(&late);
    write_file("roles.jsonl",
               "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
               "\"b\"}]}\n{\"messages\": [{\"role\": \"critic\", \"content\": \"a\"}, {\"role\": \"assistant\", "
               "\"content\": \"b\"}]}\n");
    write_file("unasked.jsonl", "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}\n");
    write_file("turns.jsonl",
               "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\"}]}\n");
    str_free(&sft);
    char here[4096];
    if (!getcwd(here, sizeof here)) return -1;
    // a model with fewer rows than the tokenizer has ids, and one with narrower layers
    char *make =
        xasprintf("mkdir -p %s/small && cp models/tiny/* %s/small && cd %s/small && sed -i -E "
                  "'s/(vocab_size.: )[0-9]+/\\1128/; s/(_token_id.: )[0-9]+/\\11/' config.json && "
                  "echo '{\"eos_token_id\": 1}' >generation_config.json && cd .. && "
                  "cp -r %s/models/tiny other && sed -i -E 's/(intermediate_size.: )[0-9]+/\\1256/' other/config.json",
                  dir, dir, dir, here);
    int status = system(make);
    free(make);
    return status;
}

static int tear_down(void **state) {
    fixture_remove(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resuming_names_what_changed),         cmocka_unit_test(a_damaged_checkpoint_is_no_model),
        cmocka_unit_test(a_signal_ends_the_wait_for_a_prompt), cmocka_unit_test(a_missing_gpu_is_one_clear_line),
        cmocka_unit_test(help_that_cannot_be_written_fails),   cmocka_unit_test(help_names_every_command),
        cmocka_unit_test(mistakes_are_one_clear_line),         cmocka_unit_test(stop_strings_against_rewards),
        cmocka_unit_test(bad_rows_are_counted_in_the_header),  cmocka_unit_test(train_eval_sample_sft_work_together),
        cmocka_unit_test(a_run_is_shown_and_starts_hooks),     cmocka_unit_test(faults_of_rewards_are_shown),
        cmocka_unit_test(a_signal_saves_and_the_run_goes_on),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
