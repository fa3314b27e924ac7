// The program as a user meets it who errs: exit codes, one clear line for each mistake, help, notes on what will not
// work.
#include "cli_fixture.h"

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
        {"report $D/nothing", 3, "nothing: No such file or directory; check the path"},
        {"report $D output=a.html output=b.html", 2, "output= is given twice"},
        {"watch $D/nothing", 3, "nothing: No such file or directory; check the path"},
        {"watch $D", 3, "holds no metrics.jsonl"},
        {"report $D outpt=x", 2, "no option outpt=x; did you mean `output=`?"},
        {"watch $D $D", 2, "one DIR"},
        {"watch $D one=true", 2, "no option one=true; did you mean `once=`?"},
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
        {"sample " TINY "prompt_file=$D/zero.txt", 3, "zero.txt:2: byte 2 is a NUL"},
        {"sample " TINY "prompt_file=$D/latin.txt", 3, "latin.txt:1: byte 4 (e9) is not UTF-8"},
        {"sample " TINY "prompt=hello system_prompt_file=$D/zero.txt", 3, "system_prompt_file: "},
        {"train " TINY "train_file=$D/train.jsonl system_prompt_file=$D/zero.txt", 3, "zero.txt:2: byte 2 is a NUL"},
        {"eval " TINY "eval_file=$D/train.jsonl system_prompt_file=$D/latin.txt", 3, "byte 4 (e9) is not UTF-8"},
        {"reward judge:template_file=$D/zero.txt $D/train.jsonl", 2, "zero.txt:2: byte 2 is a NUL"},
        {"sft " TINY "train_file=$D/train.jsonl", 3, "prompt"},
        {"sft " TINY "train_file=$D/sft.jsonl max_length=5000", 2, "context"},
        {"tokenize $D/nomodel", 3, "nomodel"},
        {"tokenize models/tiny $D/wide.jsonl", 3, "wide.jsonl:1: \"text\" is not a string"},
        {"reward nonsense", 2, "xmlcount"},
        {"reward xmlcount $D/wide.jsonl", 3, "wide.jsonl:1: no string \"completion\""},
        {"plan model=$D/nomodel", 3, "nomodel"},
        {"plan model=$D/ran", 3, "ran: is the output_dir of a run; give one of its checkpoints: "},
        {"plan model=$D/ran/", 3, "/ran/step_12 is the newest"},
        {"train " TINY "train_file=$D/train.jsonl rewards=reward_model:model=$D/ran", 3, "/ran/step_12 is the newest"},
        {"train " TINY "train_file=$D/train.jsonl rewards=judge_model:model=$D/ran", 3, "/ran/step_12 is the newest"},
        {"sample " TINY "prompt=a adapter=$D/ran", 3, "/ran/step_12 is the newest"},
        {"train " TINY "train_file=$D/train.jsonl device=gpu", 2, "not `gpu`; did you mean `cuda`?"},
        {"plan " TINY "dtype=float32x", 2, "dtype wants one of"},
        {"plan " TINY "dtype=bfloat16", 2, "did you mean `bf16`?"},
        {"train " TINY "train_file=$D/train.jsonl 'output_dir=~/runs'", 2,
         "output_dir: `~/runs`: ~ stands for your directory in a shell alone; write the path in full, "},
        {"train " TINY "'train_file=~/train.jsonl'", 2, "train_file: `~/train.jsonl`: ~ stands"},
        {"plan 'model=~/m'", 2, "model: `~/m`: ~ stands"},
        {"plan " TINY "per_device_train_batch_size=3", 2, "num_generations"},
        {"config /nonexistent.yaml", 2, "nonexistent.yaml"},
        {"train /nonexistent.yaml", 2,
         "error: /nonexistent.yaml: cannot be opened"}, // and nothing about what it would set
        {"train " TINY "train_file=$D/train.jsonl output_dir=$D/train.jsonl", 4, "Not a directory"},
        {"sample " TINY "prompt=hello model=$D/\x1b[31mred", 3, "\\x1b[31mred"}, // a terminal is not to obey it
        {"sample " TINY "prompt=hello 'stop=a,<|im_end|>\nUser:'", 2, "<|im_end|> in it is a special token"},
        {"sft " TINY "train_file=$D/unasked.jsonl", 3, "unasked.jsonl:1: messages[0] is of the assistant"},
        {"sft " TINY "train_file=-", 3, "must be in a file"},
        {"train " TINY "train_file=-", 3, "must be in a file"},
        {"eval " TINY "eval_file=-", 3, "must be in a file"},
        {"train " TINY "raw=true train_file=$D/late.jsonl", 3, "late.jsonl:6000: the prompt is empty"},
        {"eval " TINY "raw=true eval_file=$D/late.jsonl", 3, "late.jsonl:6000: the prompt is empty"},
        {"train " TINY "train_file=$D/train.jsonl eval_steps=1 raw=true eval_file=$D/late.jsonl", 3, "late.jsonl:6000"},
        {"eval " TINY "eval_file=$D/train.jsonl max_prompt_length=4 long_prompts=fail", 3,
         "train.jsonl:1: the prompt has"},
        {"train " TINY "train_file=$D/train.jsonl raw=true eval_steps=1 eval_file=$D/long.jsonl max_prompt_length=150 "
         "long_prompts=fail max_steps=1 output_dir=$D/long_eval",
         3, "long.jsonl:2: the prompt has"},
        {"train " TINY "long_prompts=fail max_prompt_length=4 bad_lines=skip train_file=$D/train.jsonl", 3,
         "train.jsonl:1: the prompt has"},
        {"sft " TINY "train_file=$D/roles.jsonl", 3, "roles.jsonl:2: messages[0]: the template r1-zero has no place"},
        {"sft " TINY "train_file=$D/turns.jsonl", 3, "turns.jsonl:1: messages[1]: no field \"content\""},
    };
    Str row = {0};
    str_puts(&row, "{\"question\": \"7\", \"answer\": \"#### 7\"}\n{\"question\": \"");
    for (int i = 0; i < 200; i++) str_puts(&row, "7");
    str_puts(&row, "\", \"answer\": \"#### 7\"}\n");
    write_file("long.jsonl", row.s);
    str_free(&row);
    char *made = words("mkdir -p $D/ran/step_2 $D/ran/step_12 $D/ran/step_9 $D/ran/step_99.tmp");
    assert_int_equal(system(made), 0);
    free(made);
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

// Said once, where a micro-batch can hold two completions of a prompt.
static void shared_prompts_are_told_in_the_header(void **state) {
    static const struct {
        const char *options;
        bool told;
    } cases[] = {{"", true},
                 {" share_prompts=false", false},
                 {" per_device_train_batch_size=1 gradient_accumulation_steps=16", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[400];
        snprintf(text, sizeof text,
                 "train " TINY "raw=true bad_lines=skip train_file=$D/late.jsonl max_steps=2 output_dir=$D/shared%zu%s",
                 i, cases[i].options);
        char *args = words(text);
        Str out = {0};
        assert_int_equal(grpo(args, NULL, &out), 0);
        const char *at = strstr(out.s, ", which share their prompt's rows in training\n");
        if (!!at != cases[i].told || (at && strstr(at + 20, "share their"))) fail_msg("grpo %s:\n%s", args, out.s);
        str_free(&out);
        free(args);
    }
}

// A question that loses its beginning, or is not asked, is not the question of the file: it is said before the first
// step.
static void long_prompts_are_counted(void **state) {
    static const struct {
        const char *args, *says; // NULL: nothing
    } cases[] = {
        {"train " TINY "train_file=$D/lengths.jsonl max_steps=1 output_dir=$D/long0 raw=true max_prompt_length=20",
         "note: train_file: 2 of 5 prompts have more than max_prompt_length 20 tokens (the longest 60): they keep "
         "their "
         "last tokens, without the beginning"},
        {"train " TINY "train_file=$D/lengths.jsonl max_steps=1 output_dir=$D/long1 raw=true max_prompt_length=20 "
         "long_prompts=skip",
         "2 of 5 prompts have more than max_prompt_length 20 tokens (the longest 60): they are left out "
         "(long_prompts=skip)"},
        {"eval " TINY "eval_file=$D/lengths.jsonl raw=true max_prompt_length=20 long_prompts=skip",
         "note: eval_file: 2 of 5 prompts have more than max_prompt_length 20 tokens (the longest 60): they keep their "
         "last tokens, without the beginning (long_prompts=skip leaves nothing out here)"},
        {"eval " TINY "eval_file=$D/lengths.jsonl raw=true max_prompt_length=20",
         "they keep their last tokens, without the beginning; raise"},
        {"train " TINY "train_file=$D/lengths.jsonl max_steps=1 output_dir=$D/long2 raw=true", NULL},
    };
    static const int tokens[] = {5, 40, 20, 60, 1};
    Str rows = {0}, out = {0};
    for (int i = 0; i < 5; i++) {
        str_puts(&rows, "{\"question\": \"");
        for (int k = 0; k < tokens[i]; k++) str_puts(&rows, "7");
        str_puts(&rows, "\", \"answer\": \"#### 1\"}\n");
    }
    write_file("lengths.jsonl", rows.s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *args = words(cases[i].args);
        assert_int_equal(grpo(args, NULL, &out), 0);
        const char *found = strstr(out.s, "have more than max_prompt_length");
        if (!found != !cases[i].says || (found && !strstr(out.s, cases[i].says))) fail_msg("grpo %s: %s", args, out.s);
        free(args);
    }
    str_free(&rows), str_free(&out);
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
    write_file("tab.yaml", "max_steps: 3\n\tseed: 2\n");
    args = words("train $D/tab.yaml");
    assert_int_equal(grpo(args, NULL, &out), 2); // what a file sets that cannot be read, is not missing
    assert_true(strstr(out.s, "tab.yaml:2: not valid YAML") && !strstr(out.s, "is not set"));
    free(args);
    args = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/refused max_steps=1 "
                 "'rewards=external:command=/nonexistent/scorer'");
    assert_int_equal(grpo(args, NULL, &out), 2); // before the first step
    assert_non_null(strstr(out.s, "/nonexistent/scorer: no such program"));
    free(args);
    str_free(&out);
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
    char *line = xasprintf("%s config --reference 2>%s/full >/dev/full", program(), dir), *path = words("$D/full");
    int status = system(line); // of more than a buffer the reason is said, too
    size_t n;
    char *said = file_read(path, 1000, &n, NULL);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 4);
    assert_string_equal(said, "grpo: error: cannot write to standard output: No space left on device\n");
    free(line), free(path), free(said);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_gpu_is_one_clear_line),
        cmocka_unit_test(help_that_cannot_be_written_fails),
        cmocka_unit_test(help_names_every_command),
        cmocka_unit_test(mistakes_are_one_clear_line),
        cmocka_unit_test(shared_prompts_are_told_in_the_header),
        cmocka_unit_test(stop_strings_against_rewards),
        cmocka_unit_test(long_prompts_are_counted),
        cmocka_unit_test(bad_rows_are_counted_in_the_header),
        cmocka_unit_test(faults_of_rewards_are_shown),
    };
    return cmocka_run_group_tests(tests, cli_setup, cli_teardown);
}
