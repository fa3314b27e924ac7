// The program as a user meets it: commands that work together, signals, resuming, damaged directories.
#include "cli_fixture.h"
#include <dirent.h>
#include <sys/resource.h>

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

static char *text_of_file(const char *name) {
    char *path = xasprintf("%s/%s", dir, name);
    size_t n;
    char *text = access(path, F_OK) ? NULL : file_read(path, 1 << 20, &n, NULL);
    free(path);
    return text;
}

// Outputs take the place of an earlier run's, and of nothing else; one that fails leaves nothing.
static void outputs_spare_files(void **state) {
    Str out = {0};
    static const char mine[] = "{\"messages\": [\"mine\"]}\n";
    char *args = words("mkdir -p $D/taken0 $D/taken1 $D/taken2 $D/taken3 $D/kept0 $D/kept1");
    if (system(args)) fail();
    free(args);
    static const struct {
        const char *file, *command;
    } cases[] = {
        {"mine.json", "eval " TINY "eval_file=$D/train.jsonl eval_limit=1 eval_output=$D/mine.json"},
        {"taken0/metrics.jsonl", "train " TINY "train_file=$D/train.jsonl max_steps=1 output_dir=$D/taken0"},
        {"taken1/completions.jsonl", "train " TINY "train_file=$D/train.jsonl max_steps=1 output_dir=$D/taken1"},
        {"taken2/notes.jsonl", "sft " TINY "train_file=$D/sft.jsonl max_steps=1 max_length=128 output_dir=$D/taken2"},
        {"taken3/run.json", "sft " TINY "train_file=$D/sft.jsonl max_steps=1 max_length=128 output_dir=$D/taken3"},
        {"kept0/kept.jsonl", "select " TINY "rewards=xmlcount train_file=$D/train.jsonl select_samples=2 "
                             "select_rules=xmlcount:min=-9 select_output=$D/kept0"},
        {"kept1/select.json", "select " TINY "rewards=xmlcount train_file=$D/train.jsonl select_samples=2 "
                              "select_rules=xmlcount:min=-9 select_output=$D/kept1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(cases[i].file, mine);
        args = words(cases[i].command);
        int code = grpo(args, NULL, &out);
        char *text = text_of_file(cases[i].file);
        if (code != EXIT_DISK || !strstr(out.s, cases[i].file) || !strstr(out.s, "is there already and is not"))
            fail_msg("grpo %s: %d, %s", args, code, out.s);
        if (!text || strcmp(text, mine)) fail_msg("grpo %s: %s is %s", args, cases[i].file, text ? text : "gone");
        free(args), free(text);
    }
    // Four times to the same place, over an empty file and over one that a formatter wrote anew, too; a link stays one.
    args = words("mkdir -p $D/far && ln -sf far/real.json $D/link.json"); // leads to nothing yet
    if (system(args)) fail();
    free(args);
    for (int i = 0; i < 4; i++) {
        if (i == 2) write_file("far/real.json", "");
        if (i == 3) write_file("far/real.json", "{\n\t\"questions\" : 1,\n\t\"samples\": 1}\n");
        args = words("eval " TINY "eval_file=$D/train.jsonl eval_limit=1 eval_output=$D/link.json");
        assert_int_equal(grpo(args, NULL, &out), 0);
        free(args);
        char *text = text_of_file("far/real.json"), *link = words("$D/link.json");
        struct stat st;
        assert_true(!lstat(link, &st) && S_ISLNK(st.st_mode));
        json_t *j = json_loads(text, 0, NULL);
        assert_int_equal(json_integer_value(json_object_get(j, "questions")), 1);
        json_decref(j), free(text), free(link);
    }
    // A pipe is written into.
    args = words("eval " TINY "eval_file=$D/train.jsonl eval_limit=1 eval_output=/dev/stdout");
    assert_int_equal(grpo(args, NULL, &out), 0);
    assert_non_null(strstr(out.s, "{\"questions\": 1, "));
    free(args);
    args = words("mkfifo $D/pipe; cat $D/pipe >$D/piped & sleep 0.3; ");
    char *run_it = words("eval " TINY "eval_file=$D/train.jsonl eval_limit=1 eval_output=$D/pipe");
    char *both = xasprintf("%stimeout -s KILL 60 %s %s 2>/dev/null && wait", args, program(), run_it);
    if (system(both)) fail_msg("%s", both);
    char *piped = text_of_file("piped");
    assert_non_null(strstr(piped, "{\"questions\": 1, "));
    free(args), free(run_it), free(both), free(piped);
    // So is a file that standard output goes to, behind what is there, and one that has no name any more.
    static const char *const into[] = {"%s %s eval_output=$D/log.json 2>/dev/null >>$D/log.json",
                                       "exec 3>$D/log.json 4<$D/log.json; rm $D/log.json; %s %s eval_output=/dev/fd/1 "
                                       "2>/dev/null >&3; cat <&4 >$D/log.json"};
    for (int i = 0; i < 2; i++) {
        write_file("log.json", i ? "" : mine);
        char *form = words(into[i]), *run = words("eval " TINY "eval_file=$D/train.jsonl eval_limit=1");
        args = xasprintf(form, program(), run);
        if (system(args)) fail_msg("%s", args);
        char *text = text_of_file("log.json"), *at = i ? text : text + strlen(mine);
        if (strncmp(text, mine, (size_t)(at - text)) || strncmp(at, "{\"questions\": 1, ", 17))
            fail_msg("%s: %s", args, text);
        free(form), free(run), free(args), free(text);
    }
    // What fails leaves no file, of any size, nor one beside it.
    args = words("eval " TINY "eval_file=$D/train.jsonl eval_limit=1 model=$D/nomodel eval_output=$D/none.json");
    assert_int_equal(grpo(args, NULL, &out), EXIT_INPUT);
    free(args);
    args = words("eval " TINY "init=load eval_file=$D/train.jsonl eval_limit=1 eval_output=$D/none.json"); // no weights
    assert_int_not_equal(grpo(args, NULL, &out), 0);
    free(args);
    args = words("ls $D/none.json* 2>/dev/null");
    assert_int_not_equal(system(args), 0);
    free(args);
    args = words("train " TINY "train_file=$D/train.jsonl max_steps=1 output_dir=$D/again save_steps=0");
    for (int i = 0; i < 2; i++) { // a run without a checkpoint begins anew over its own files
        assert_int_equal(grpo(args, NULL, &out), 0);
        char *step = words("rm -r $D/again/step_1");
        if (system(step)) fail_msg("%s", out.s);
        free(step);
    }
    free(args);
    str_free(&out);
}

// Where one of two ranks fails, its last hook still has its time.
static void a_failed_rank_ends_with_its_hooks(void **state) {
    Str out = {0};
    char *ended = words("$D/ended"),
         *args = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/failed max_steps=3 save_steps=1 gpus=2 "
                       "device=cpu on_end='sleep 3; touch $D/ended'");
    struct rlimit usual, little; // of a file: the weights do not fit
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
    little = usual, little.rlim_cur = 32768;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    int code = grpo(args, NULL, &out);
    setrlimit(RLIMIT_FSIZE, &usual);
    signal(SIGXFSZ, SIG_DFL);
    if (code != EXIT_DISK || !strstr(out.s, "model.safetensors: cannot write")) fail_msg("%d: %s", code, out.s);
    if (access(ended, F_OK)) fail_msg("the hook was cut off: %s", out.s);
    free(args), free(ended);
    str_free(&out);
}

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
    static const struct {
        const char *args;
        int code;
        const char *says;
    } cases[] = {{"report $D/shown $D/unshown output=$D/two.html", 0, "/two.html\n"},
                 {"report $D/shown $D/shown output=$D/two.html", 2, "shown is named twice"},
                 {"report $D/shown output=$D", 4, "is a directory; name a file"},
                 {"report $D/shown output=$D/nothing/a.html", 4, "make the directory first"}};
    for (int i = 0; i < 4; i++) {
        args = words(cases[i].args);
        assert_int_equal(grpo(args, NULL, &out), cases[i].code);
        if (!strstr(out.s, cases[i].says)) fail_msg("%s: %s", args, out.s);
        free(args);
    }
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

// The newest checkpoint's step in $D/NAME; -1: none.
static int newest_step(const char *name) {
    char *path = xasprintf("%s/%s", dir, name);
    DIR *d = opendir(path);
    int newest = -1, step;
    for (struct dirent *entry; d && (entry = readdir(d));)
        if (sscanf(entry->d_name, "step_%9d", &step) == 1 && step > newest) newest = step;
    if (d) closedir(d);
    free(path);
    return newest;
}

static void a_signal_saves_and_the_run_goes_on(void **state) {
    const char *command =
        "train " TINY
        "train_file=$D/train.jsonl output_dir=$D/stopped save_steps=1 save_total_limit=1000 max_steps=100000";
    static const int signals[] = {SIGTERM, SIGUSR2, SIGXCPU};
    int status, step = 0;
    for (int i = 0; i < 3; i++) {
        pid_t pid = start(command);
        char *next = xasprintf("$D/stopped/step_%d", step + 2);
        wait_for(next);
        free(next);
        struct timespec t0, t1;
        clock_gettime(CLOCK_MONOTONIC, &t0);
        kill(pid, signals[i]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        clock_gettime(CLOCK_MONOTONIC, &t1);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 75);
        assert_true(t1.tv_sec - t0.tv_sec < 20);
        char *said = text_of_file("log"), *saved;
        assert_true((step = newest_step("stopped")) >= 2);
        saved = xasprintf("stopped after step %d; saved in ", step);
        if (!strstr(said, saved)) fail_msg("no \"%s\" in %s", saved, said);
        free(said), free(saved);
    }
    pid_t pid = start(command);
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

static void write_pairs(void) {
    Str pairs = {0};
    for (int i = 0; i < 8; i++)
        str_printf(&pairs, "{\"prompt\": \"What is %d?\", \"chosen\": \"%d\", \"rejected\": \"no\"}\n", i, i);
    write_file("pairs.jsonl", pairs.s);
    str_free(&pairs);
}

// What a grader gives no verdict of counts in no accuracy, and is counted itself.
static void no_verdict_is_no_wrong_answer(void **state) {
    static const char grader[] = "#!/bin/sh\n"
                                 "n=0\n"
                                 "while IFS= read -r line; do\n"
                                 "id=${line#*: }; id=${id%%,*}; n=$((n + 1))\n"
                                 "case $id:$((n % 2 * some)) in\n"
                                 "0:*) echo '{\"id\": 0, \"scores\": []}' ;;\n" // n is odd: the next one's is even
                                 "*:1) echo \"{\\\"id\\\": $id, \\\"scores\\\": [1]}\" ;;\n"
                                 "*) echo \"{\\\"id\\\": $id, \\\"scores\\\": [null]}\" ;;\n"
                                 "esac\ndone\n";
    Str out = {0};
    write_file("grader", grader);
    for (int some = 0; some < 2; some++) { // every second one of eight, or none
        char *all = xasprintf("eval " TINY "eval_file=$D/train.jsonl eval_limit=4 eval_samples=2 temperature=1 "
                              "'eval_grader=external:command=env some=%d sh $D/grader' eval_output=$D/verdicts%d.json",
                              some, some),
             *args = words(all), name[32];
        if (grpo(args, NULL, &out)) fail_msg("%s", out.s);
        free(all), free(args);
        snprintf(name, sizeof name, "verdicts%d.json", some);
        char *text = text_of_file(name);
        json_t *j = json_loads(text, 0, NULL), *accuracy = json_object_get(j, "accuracy");
        assert_int_equal(json_integer_value(json_object_get(j, "ungraded")), some ? 4 : 8);
        assert_true(some ? json_number_value(accuracy) == 1 : json_is_null(accuracy));
        assert_true(some ? json_number_value(json_object_get(j, "pass@1")) == 1
                         : json_is_null(json_object_get(j, "pass@1")));
        assert_true(json_is_null(json_object_get(j, "pass@2"))); // no question has two verdicts
        json_decref(j), free(text);
    }
    char *args = words("train " TINY "train_file=$D/train.jsonl eval_file=$D/train.jsonl eval_limit=4 eval_steps=1 "
                       "max_steps=1 output_dir=$D/graded 'eval_grader=external:command=env some=1 sh $D/grader'");
    if (grpo(args, NULL, &out)) fail_msg("%s", out.s);
    assert_non_null(strstr(out.s, "eval accuracy 100.0 %, reward"));
    assert_non_null(strstr(out.s, "(4 questions, 2 answers without a verdict left out)"));
    free(args);
    char *text = text_of_file("graded/metrics.jsonl");
    assert_non_null(strstr(text, "\"eval/accuracy\": 1,"));
    assert_non_null(strstr(text, "\"eval/ungraded\": 2,"));
    assert_null(strstr(text, "eval/lenient_accuracy"));
    free(text);
    str_free(&out);
}

// A run whose training file is cut short meanwhile ends, but what it has learned is saved: mended, it goes on to the
// bytes of a run that nothing happened to.
static void a_row_that_is_gone_ends_a_run_that_is_saved(void **state) {
    static const struct {
        const char *name, *rows, *command;
    } runs[] = {
        {"t", "train.jsonl", "train " TINY "save_steps=0 report=false"},
        {"s", "sft.jsonl", "sft " TINY "max_length=128 save_steps=0 report=false"},
        {"r", "pairs.jsonl", "reward_model " TINY "max_length=128 save_steps=0 report=false"},
    };
    Str out = {0};
    write_pairs();
    for (int i = 0; i < 3; i++) {
        char copy[32], log[32], command[512];
        snprintf(copy, sizeof copy, "copy_%s.jsonl", runs[i].name);
        snprintf(log, sizeof log, "cut_%s/metrics.jsonl", runs[i].name);
        char *rows = text_of_file(runs[i].rows);
        write_file(copy, rows);
        snprintf(
            command, sizeof command,
            "%s train_file=$D/%s max_steps=100000 learning_rate=1e-4 lr_scheduler_type=constant output_dir=$D/cut_%s",
            runs[i].command, copy, runs[i].name);
        pid_t pid = start(command);
        for (int k = 0; k < 3000; k++) { // until three steps are made
            char *text = text_of_file(log), *line = text;
            int lines = 0;
            while (line && (line = strchr(line, '\n'))) lines++, line++;
            free(text);
            if (lines >= 3) break;
            nanosleep(&(struct timespec){0, 10000000}, NULL);
        }
        write_file(copy, "");
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        char *said = text_of_file("log");
        int step = newest_step(strtok(log, "/"));
        char *saved = xasprintf("; step %d is saved in %s/cut_%s: once this is mended, the same command goes on", step,
                                dir, runs[i].name);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_INPUT || step < 3 || !strstr(said, "the line is gone") ||
            !strstr(said, saved))
            fail_msg("status %x, step %d: %s", (unsigned)status, step, said);
        write_file(copy, rows);
        for (int straight = 0; straight < 2; straight++) {
            char *
                format = xasprintf(
                   "%s train_file=$D/%s max_steps=%d learning_rate=1e-4 lr_scheduler_type=constant output_dir=$D/%s_%s",
                   runs[i].command, copy, step + 2, straight ? "straight" : "cut", runs[i].name),
               *args = words(format);
            if (grpo(args, NULL, &out)) fail_msg("%s: %s", args, out.s);
            free(format), free(args);
        }
        char *all = xasprintf("cd %s && cmp cut_%s/step_%d/model.safetensors straight_%s/step_%d/model.safetensors",
                              dir, runs[i].name, step + 2, runs[i].name, step + 2);
        assert_int_equal(system(all), 0);
        free(all), free(rows), free(said), free(saved);
    }
    str_free(&out);
}

// What a run saves beside its weights is what it began with, whatever becomes of the model's directory meanwhile.
static void a_model_directory_that_changes_harms_no_checkpoint(void **state) {
    char here[4096];
    assert_non_null(getcwd(here, sizeof here));
    for (int gone = 0; gone < 2; gone++) {
        char *make = words("rm -rf $D/src $D/changed && cp -r models/tiny $D/src");
        assert_int_equal(system(make), 0);
        free(make);
        pid_t pid = start("train " TINY "model=$D/src train_file=$D/train.jsonl max_steps=100000 save_steps=0 "
                          "output_dir=$D/changed");
        wait_for("$D/changed/run.json");
        make = words(gone ? "rm -r $D/src" : "for f in $D/src/*; do echo '{\"model_type\": \"gone\"}' >$f; done");
        assert_int_equal(system(make), 0);
        free(make);
        nanosleep(&(struct timespec){0, 300000000}, NULL);
        kill(pid, SIGTERM);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        char *said = text_of_file("log");
        if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_STOPPED) fail_msg("%s", said);
        char *same = xasprintf("cd %s/changed/step_%d && cmp tokenizer.json %s/models/tiny/tokenizer.json", dir,
                               newest_step("changed"), here),
             *args = xasprintf("sample " TINY "init=load model=%s/changed/step_%d prompt=hello", dir,
                               newest_step("changed"));
        Str out = {0};
        if (system(same) || grpo(args, NULL, &out)) fail_msg("%s%s", said, out.s ? out.s : "");
        free(said), free(same), free(args);
        str_free(&out);
    }
}

// A run that began from a checkpoint of its own output_dir finds it there at its next start, however many it keeps.
static void a_run_keeps_the_checkpoint_it_began_with(void **state) {
    Str out = {0};
    static const char *const runs[] = {"max_steps=1 init=random", "init=load model=$D/own/step_1 max_steps=4",
                                       "init=load model=$D/own/step_1 max_steps=5"};
    for (int i = 0; i < 3; i++) {
        char *all = xasprintf("train " TINY "train_file=$D/train.jsonl output_dir=$D/own save_steps=1 "
                              "save_total_limit=1 %s",
                              runs[i]),
             *args = words(all);
        if (grpo(args, NULL, &out)) fail_msg("%s: %s", args, out.s);
        free(all), free(args);
    }
    char *check = words("cd $D/own && test -e step_1 && test -e step_5 && test $(ls -d step_* | wc -l) = 2");
    assert_int_equal(system(check), 0);
    free(check);
    str_free(&out);
}

// A damaged checkpoint pushes out no whole one.
static void damage_takes_no_place(void **state) {
    Str out = {0};
    char *first = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/hurt max_steps=2 save_steps=1"),
         *hurt = words("printf x | dd of=$D/hurt/step_2/model.safetensors bs=1 seek=100000 conv=notrunc 2>/dev/null"),
         *then = words("train " TINY "train_file=$D/train.jsonl output_dir=$D/hurt max_steps=3 save_steps=9"),
         *left = words("test \"$(cd $D/hurt && echo step_*)\" = 'step_1 step_3'");
    assert_int_equal(grpo(first, NULL, &out), 0);
    assert_int_equal(system(hurt), 0);
    assert_int_equal(grpo(then, NULL, &out), 0);
    assert_non_null(strstr(out.s, "step_2 cannot be used"));
    assert_int_equal(system(left), 0);
    free(first), free(hurt), free(then), free(left);
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
                 {"max_steps=2 seed=7 progress=off", 0, "config.yaml): learning_rate"}, // a warning, whatever is shown
                 {"max_steps=2 cpu_isa=generic", 0, "this one computes on generic: its last bits will differ"},
                 {"max_steps=3 model=$D/other", 2, "a checkpoint of another model (qwen2, "},
                 {"max_steps=3 dtype=bf16", 2, "saved with dtype=f32"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *all = xasprintf("train " TINY "train_file=$D/train.jsonl output_dir=$D/changed %s", cases[i].options);
        char *args = words(all);
        int code = grpo(args, NULL, &out);
        if (code != cases[i].code || !strstr(out.s, cases[i].says)) fail_msg("grpo %s: exit %d: %s", args, code, out.s);
        free(args);
        free(all);
    }
    static const char *const two[] = {
        "reward_model " TINY "train_file=$D/pairs.jsonl max_length=128 max_steps=1 output_dir=$D/scores",
        "sft " TINY "train_file=$D/sft.jsonl max_length=128 max_steps=2 output_dir=$D/scores"};
    write_pairs();
    for (int i = 0; i < 2; i++) {
        char *command = words(two[i]);
        assert_int_equal(grpo(command, NULL, &out), i ? EXIT_CONFIG : 0);
        free(command);
    }
    assert_non_null(strstr(out.s, "another model (qwen2, a reward model) than this run's (qwen2, a language model);"));
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

// What stands before each question is told from what stood there, though its file has the same name.
static void resuming_names_other_examples(void **state) {
    static const char *const example[] = {"1 + 1", "2 + 1", "2 + 1"};
    Str out = {0};
    for (int i = 0; i < 3; i++) {
        char *line = xasprintf("{\"prompt\": \"%s\", \"completion\": \"3\"}\n", example[i]);
        char *all =
            xasprintf("train " TINY "train_file=$D/train.jsonl output_dir=$D/examples few_shot_file=$D/examples.jsonl "
                      "raw=true max_prompt_length=64 max_steps=%d",
                      i + 1);
        char *args = words(all);
        write_file("examples.jsonl", line);
        if (grpo(args, NULL, &out)) fail_msg("%s", out.s);
        if (!strstr(out.s, "few_shot_file or system_prompt_file says is not what") != (i != 1))
            fail_msg("%d: %s", i, out.s);
        free(line), free(all), free(args);
    }
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resuming_names_what_changed),
        cmocka_unit_test(resuming_names_other_examples),
        cmocka_unit_test(outputs_spare_files),
        cmocka_unit_test(a_model_directory_that_changes_harms_no_checkpoint),
        cmocka_unit_test(a_run_keeps_the_checkpoint_it_began_with),
        cmocka_unit_test(no_verdict_is_no_wrong_answer),
        cmocka_unit_test(a_row_that_is_gone_ends_a_run_that_is_saved),
        cmocka_unit_test(damage_takes_no_place),
        cmocka_unit_test(a_damaged_checkpoint_is_no_model),
        cmocka_unit_test(a_signal_ends_the_wait_for_a_prompt),
        cmocka_unit_test(train_eval_sample_sft_work_together),
        cmocka_unit_test(a_run_is_shown_and_starts_hooks),
        cmocka_unit_test(a_failed_rank_ends_with_its_hooks),
        cmocka_unit_test(a_signal_saves_and_the_run_goes_on),
    };
    return cmocka_run_group_tests(tests, cli_setup, cli_teardown);
}
