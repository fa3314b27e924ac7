// Pipelines: a file of phases, what is said of a bad one, and that a run killed anywhere ends in the same bytes.
#include "file.h"
#include "json.h"
#include "phases.h"
#include "shell.h"
#include "train_fixture.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>

static Fixture f;
static char said[16384];

static const char phases[] =
    "# four phases\n"
    "output_dir: $D/$O\n"
    "define: {base: models/tiny, questions: $D/train.jsonl}\n"
    "device: cpu\n"
    "threads: 1\n"
    "dtype: f32\n"
    "raw: true\n"
    "max_prompt_length: 48\n"
    "max_completion_length: 12\n"
    "temperature: 1.0\n"
    "progress: plain\n"
    "rewards: [completion_length, xmlcount]\n"
    "gradient_accumulation_steps: 1\n"
    "stop: [e]\n"
    "phases:\n"
    "  - {name: cold, command: sft, model: \"${base}\", init: random, train_file: $D/sft.jsonl, max_length: 64, "
    "learning_rate: 2e-3, max_steps: 6, per_device_train_batch_size: 4, save_steps: 2}\n"
    "  - name: reasoning\n"
    "    command: train\n"
    "    model: ${cold}\n"
    "    train_file:\n"
    "      - {file: \"${questions}\", weight: 2}\n"
    "      - {file: $D/more.jsonl, weight: 1, rewards: [xmlcount]}\n"
    "    max_steps: 3\n"
    "    num_generations: 4\n"
    "    per_device_train_batch_size: 4\n"
    "    save_steps: 1\n"
    "  - name: pick\n"
    "    command: select\n"
    "    model: ${reasoning.checkpoint}\n"
    "    train_file: ${questions}\n"
    "    select_samples: 4\n"
    "    select_limit: 12\n"
    "    select_rules: [\"completion_length:min=-1000\"]\n"
    "  - {name: measure, command: eval, model: \"${reasoning}\", eval_file: \"${questions}\", eval_limit: 6}\n";

// The text with $D and $O replaced, as $D/NAME.yaml.
static char *write_phases(const char *text, const char *name, const char *output) {
    Str s = {0};
    for (const char *p = text; *p; p++) {
        if (p[0] == '$' && p[1] == 'D') str_puts(&s, f.dir), p++;
        else if (p[0] == '$' && p[1] == 'O') str_puts(&s, output), p++;
        else str_add(&s, p, 1);
    }
    char *path = xasprintf("%s/%s.yaml", f.dir, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(s.s, out);
    assert_int_equal(fclose(out), 0);
    str_free(&s);
    return path;
}

static const char *program(void) { return getenv("GRPO") ? getenv("GRPO") : "build/grpo"; }

static int run(const char *path, const char *more) {
    char *command = xasprintf("%s run %s %s 2>&1", program(), path, more);
    int code = shell_run(command, said, sizeof said);
    free(command);
    return code;
}

static void assert_run(const char *path, const char *more, int code, const char *word) {
    int got = run(path, more);
    if (got != code || !strstr(said, word)) fail_msg("exit %d, not %d, or no \"%s\": %s", got, code, word, said);
}

static char *output(const char *dir, const char *name, size_t *n) {
    char *path = xasprintf("%s/%s/%s", f.dir, dir, name);
    Error e = {0};
    char *text = file_read(path, 1 << 26, n, &e);
    if (!text) fail_msg("%s", e.text);
    free(path);
    return text;
}

static void assert_same_outputs(const char *a, const char *b) {
    static const char *const files[] = {"cold/step_6/model.safetensors",
                                        "reasoning/step_3/model.safetensors",
                                        "pick/samples.jsonl",
                                        "pick/kept.jsonl",
                                        "pick/select.json",
                                        "measure.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t n, m;
        char *x = output(a, files[i], &n), *y = output(b, files[i], &m);
        // The first line of samples.jsonl names the model's directory, which is another one.
        size_t skip_x = strstr(files[i], "samples") ? strcspn(x, "\n") : 0, skip_y = skip_x ? strcspn(y, "\n") : 0;
        if (n - skip_x != m - skip_y || memcmp(x + skip_x, y + skip_y, n - skip_x))
            fail_msg("%s differs between %s and %s", files[i], a, b);
        free(x), free(y);
    }
}

static int setup(void **state) {
    fixture_dir(&f);
    char *path = xasprintf("%s/sft.jsonl", f.dir);
    FILE *out = fopen(path, "w");
    for (int i = 0; i < 40; i++)
        fprintf(out, "{\"prompt\": \"%d and %d?\", \"completion\": \"It is %d, here.\"}\n", i % 7, i % 5,
                i % 7 + i % 5);
    free(path);
    if (fclose(out)) return -1;
    path = xasprintf("%s/pairs.jsonl", f.dir);
    out = fopen(path, "w");
    fputs("{\"prompt\": \"Hi\", \"chosen\": \"Hello to all of you\", \"rejected\": \"No\"}\n", out);
    free(path);
    if (fclose(out)) return -1;
    path = xasprintf("%s/more.jsonl", f.dir);
    out = fopen(path, "w");
    fputs("{\"question\": \"1 and 1?\", \"answer\": \"#### 2\"}\n", out);
    free(path);
    return fclose(out);
}
static int teardown(void **state) { return fixture_remove(&f), 0; }

// Kills the run, and with it the phase, with signal 9 after so many milliseconds; or asks it to stop.
static void run_until(const char *path, int milliseconds, int signal_number) {
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)) _exit(1);
        execl(program(), "grpo", "run", path, (char *)NULL);
        _exit(127);
    }
    struct timespec nap = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    nanosleep(&nap, NULL);
    kill(pid, signal_number);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (signal_number == SIGTERM && WIFEXITED(status))
        assert_true(WEXITSTATUS(status) == EXIT_STOPPED || WEXITSTATUS(status) == 0);
}

static void killed_anywhere_it_ends_in_the_same_bytes(void **state) {
    char *straight = write_phases(phases, "straight", "straight"), *killed = write_phases(phases, "killed", "killed");
    assert_run(straight, "", 0, "== phase 4 of 4: measure (eval)");
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    assert_run(straight, "from=cold", 0, "== phase 4 of 4: measure (eval)");
    clock_gettime(CLOCK_MONOTONIC, &end);
    int whole = (int)((end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000);
    for (int i = 0; i < 8; i++) { // each goes on from where the last was killed, and is killed a little further
        run_until(killed, whole * (i % 4 + 1) / 8, i == 5 ? SIGTERM : SIGKILL);
        usleep(50000); // the phase dies with it, but not at the same instant
    }
    assert_run(killed, "", 0, "all that was asked for");
    assert_same_outputs("straight", "killed");
    assert_run(killed, "", 0, "== phase 2 of 4: reasoning is finished");
    assert_null(strstr(said, "step 1/3")); // nothing ran
    free(straight), free(killed);
}

static void what_changed_is_said_and_made_again_on_request(void **state) {
    char *path = write_phases(phases, "p", "out"), *other = write_phases(phases, "other", "other");
    assert_run(path, "", 0, "all that was asked for");
    assert_run(path, "threads=2 reasoning.save_steps=3", 0, "reasoning is finished"); // change no number
    assert_run(path, "reasoning.learning_rate=1e-3", 2,
               "phase reasoning is finished, with other options (learning_rate; see ");
    assert_run(path, "cold.max_steps=7 seed=3", 2, "phase cold is finished, with other options (seed, max_steps;");
    assert_run(path, "from=pick only=pick", 2, "exclude each other");
    assert_run(path, "from=pikc", 2, "did you mean `pick`?");
    assert_run(path, "only=measure", 0, "== phase 4 of 4: measure (eval)");
    assert_null(strstr(said, "pick (select)"));
    assert_run(path, "from=reasoning reasoning.learning_rate=1e-3", 0, "== phase 2 of 4: reasoning (train)");
    assert_non_null(strstr(said, "cold is finished"));
    // Only one phase made again, from another seed: what follows is of another model now.
    assert_run(path, "only=reasoning reasoning.learning_rate=1e-3 reasoning.seed=5", 0,
               "phase 2 of 4: reasoning (train)");
    assert_run(path, "reasoning.learning_rate=1e-3 reasoning.seed=5", 2, "phase pick was made from another model");
    assert_run(path, "from=pick reasoning.learning_rate=1e-3 reasoning.seed=5", 0, "all that was asked for");
    // A damaged product, and one that is gone.
    char *kept = xasprintf("%s/out/pick/kept.jsonl", f.dir);
    assert_int_equal(truncate(kept, 10), 0);
    assert_run(path, "reasoning.learning_rate=1e-3 reasoning.seed=5", 3, "which phase pick made, is not as it left it");
    assert_int_equal(unlink(kept), 0);
    assert_run(path, "reasoning.learning_rate=1e-3 reasoning.seed=5", 3, "which phase pick made, is not as it left it");
    // A question file that was edited.
    char *questions = xasprintf("%s/train.jsonl", f.dir);
    FILE *more = fopen(questions, "a");
    fputs("{\"question\": \"One more?\", \"answer\": \"#### 1\"}\n", more);
    fclose(more);
    assert_run(path, "reasoning.learning_rate=1e-3 reasoning.seed=5", 2,
               "phase reasoning was made from another train_file[1] than");
    assert_run(other, "only=pick", 2, "phase cold is not finished; only=pick needs those before it");
    free(path), free(other), free(kept), free(questions);
}

static void a_phase_that_fails_stops_the_run(void **state) {
    char *path = write_phases(phases, "p", "fails");
    assert_run(path, "pick.select_rules=xmlcount:min=9", 3, "no completion is kept");
    assert_non_null(strstr(said, "phase 3 of 4, pick, ended with exit code 3"));
    assert_null(strstr(said, "measure (eval)"));
    assert_run(path, "", 0, "== phase 2 of 4: reasoning is finished"); // looser rules draw nothing anew
    assert_null(strstr(said, "step 12/12"));
    free(path);
}

// Where several problems are said, their number stands above them, whoever found them: a line each.
static void assert_problems_counted(void) {
    const char *head = strstr(said, " problems:\n"), *number = head;
    if (!head) return;
    while (number > said && number[-1] >= '0' && number[-1] <= '9') number--;
    int lines = 0;
    for (const char *p = strchr(head, '\n') + 1; *p; p++) lines += *p == '\n';
    if (atoi(number) != lines) fail_msg("%d problems, and not so many lines: %s", atoi(number), said);
}

static void mistakes_are_said_before_the_first_phase(void **state) {
    static const char head[] = "output_dir: $D/bad\nmax_prompt_length: 48\nphases:\n";
    static const struct {
        const char *text;
        int code;
        const char *says[4];
    } cases[] = {
        {"dtype: f32\n", 2, {"no `phases`"}},
        {"phases: []\n", 2, {"`phases` is empty"}},
        {"phases: {name: a}\n", 2, {":1: phases wants a list"}},
        {"phases: [a]\n", 2, {":1: a phase is {name: NAME"}},
        {"- a\n", 2, {":1: a pipeline is `phases:`"}},
        {"phases:\n  - {command: sft}\n  - {name: b}\n  - {name: c, command: tran}\n  - {name: b, command: sft}\n",
         2,
         {":2: the phase has no `name`", ":3: the phase has no `command`",
          ":4: a phase's command is sft, train, select, reward_model or "
          "eval, not `tran`; did you mean `train`?",
          ":5: phase `b` is there twice; first on line 3"}},
        // Bad YAML, wherever it stands.
        {"phases:\n  - {name: a, command: sft, model: &b x}\n", 2, {":2: anchors (&) are not read here"}},
        {"phases:\n  - {name: a, command: sft, model: [x", 2, {": not valid YAML: "}},
        {"phases:\n  - {name: *a, command: sft}\n", 2, {":2: aliases (*) are not read here"}},
        {"define: {a: b, c: *x}\nphases: []\n", 2, {":1: aliases (*) are not read here"}},
        {"define: {a: b\nphases:\n  - {name: a, command: sft}\n", 2, {": not valid YAML: "}},
        {"*  - {name: a/b, command: sft}\n", 2, {":4: a phase's name is letters"}},
        {"*  - {name: pipeline, command: sft}\n  - {name: x, name: y, command: sft}\n",
         2,
         {":4: no phase is named `pipeline`", ":5: the phase has two names"}},
        {"define: {a: x, b: y, b: z, c: \"${b}\"}\nphases:\n  - {name: a, command: sft, train_file: x}\nphases: []\n",
         2,
         {":1: define: `b` is there twice", ":1: define: `c` is made of another word",
          ":3: `a` is a phase and a word of `define`", ":4: `phases` is there twice"}},
        // Of a word that means nothing, nothing more is said, but of what has nothing to do with it.
        {"define: {a: \"${b}\", b: \"${a}\"}\nphases:\n"
         "  - {name: c, command: sft, model: \"${a}\", train_file: $D/no.jsonl}\n",
         2,
         {"3 problems:\n", ":1: define: `a` is made of", ":1: define: `b` is made of", ":3: phase c: train_file: "}},
        // One kind of mistake does not hide another.
        {"lerning_rate: 1\nphases:\n  - {name: a, command: sft, model: $D/none, train_file: $D/no.jsonl, beta: 1}\n"
         "  - {name: b, command: eval, model: \"${d}\", eval_file: x}\n",
         2,
         {":1: there is no option `lerning_rate`", ":3: sft reads no `beta`", ":4: model: ${d} is neither",
          ":3: phase a: train_file: "}},
        {"*  - {name: a, command: sft, model: models/tiny}\n  - {name: b, command: select, model: \"${a}\", "
         "train_file: "
         "$D/train.jsonl, select_rules: []}\n",
         2,
         {":4: phase a: train_file is not set", ":5: select_rules is empty"}},
        // What a phase makes is not what the option wants.
        {"*  - {name: a, command: sft, model: models/tiny, init: random, train_file: $D/sft.jsonl}\n"
         "  - {name: b, command: sft, model: models/tiny, train_file: \"${a}\"}\n"
         "  - {name: c, command: select, model: \"${a}\", train_file: $D/train.jsonl, select_rules: "
         "[\"xmlcount:min=0\"], rewards: xmlcount}\n"
         "  - {name: d, command: eval, model: \"${c}\", eval_file: $D/train.jsonl}\n",
         2,
         {":5: phase b: train_file: phase a makes a model, not rows",
          ":7: phase d: model: phase c makes rows, not a model"}},
        {"*  - {name: a, command: eval, model: models/tiny, init: random, eval_file: $D/train.jsonl}\n"
         "  - {name: b, command: reward_model, model: models/tiny, init: random, train_file: $D/pairs.jsonl}\n"
         "  - {name: c, command: eval, model: \"${b}\", eval_file: \"${a}\"}\n",
         2,
         {":6: phase c: model: phase b makes a model that scores texts, not a model that writes",
          ":6: phase c: eval_file: phase a makes an evaluation's result, not rows"}},
        // A path beside output_dir, or of no phase in it, is not made; rows are read as the phase will.
        {"*  - {name: a, command: sft, model: models/tiny, init: random, train_file: $D/sft.jsonl}\n"
         "  - {name: b, command: sft, model: \"${a}\", init: random, train_file: $D/bad-data/x.jsonl}\n"
         "  - {name: c, command: eval, model: \"${a}\", eval_file: $D/bad/typo.jsonl}\n",
         3,
         {":5: phase b: train_file: ", ":6: phase c: eval_file: "}},
        {"*  - {name: a, command: reward_model, model: models/tiny, init: random, train_file: $D/pairs.jsonl, "
         "max_length: 4}\n"
         "  - {name: b, command: train, model: models/tiny, init: random, train_file: $D/train.jsonl, raw: true, "
         "long_prompts: fail, max_prompt_length: 3, max_completion_length: 4}\n",
         3,
         {":4: phase a: train_file: ", "pairs.jsonl:1: ", ":5: phase b: train_file: ", "train.jsonl:1: "}},
        {"*  - {name: a, command: eval, model: models/tiny, init: random, eval_file: $D/train.jsonl, rewards: "
         "[\"external:command=$D/none x\", \"plugin:path=$D/none.so\"]}\n",
         3,
         {":4: phase a: external: ", ":4: phase a: plugin: ", "none.so: there is no such file"}},
        // What begins like a product is none.
        {"*  - {name: a, command: select, model: models/tiny, init: random, train_file: $D/train.jsonl, rewards: "
         "xmlcount, "
         "select_rules: [\"xmlcount:min=0\"]}\n"
         "  - {name: b, command: sft, model: models/tiny, init: random, train_file: \"${a}2\"}\n",
         3,
         {":5: phase b: train_file: ", "kept.jsonl2"}},
        // Adapters and whole models; weights that are not there.
        {"*  - {name: lora, command: sft, model: models/tiny, init: random, lora_r: 2, train_file: $D/sft.jsonl}\n"
         "  - {name: b, command: sft, model: \"${lora}\", train_file: $D/sft.jsonl}\n"
         "  - {name: c, command: eval, model: models/tiny, init: random, adapter: \"${b}\", eval_file: "
         "$D/train.jsonl}\n"
         "  - {name: d, command: eval, model: models/tiny, eval_file: $D/train.jsonl, rewards: [{name: judge_model, "
         "model: "
         "\"${lora}\", template: \"{completion}\", pattern: \"(x)\"}]}\n",
         2,
         {":5: phase b: model: phase lora makes an adapter, not a model",
          ":6: phase c: adapter: phase b makes a whole model",
          ":7: phase d: rewards.judge_model: reward judge_model asks a whole model",
          ":7: phase d: model: models/tiny: no model.safetensors"}},
        // Memory of all phases.
        {"dtype: f32\nmax_completion_length: 2000\nphases:\n"
         "  - {name: a, command: eval, model: models/tiny, init: random, eval_file: $D/train.jsonl}\n"
         "  - {name: b, command: eval, model: models/tiny, init: random, eval_file: $D/train.jsonl}\n",
         2,
         {":4: phase a: max_prompt_length ", ":5: phase b: max_prompt_length "}},
        {"*  - {name: a, command: sft, model: models/tiny, train_file: x, lerning_rate: 1}\n"
         "  - {name: b, command: sft, model: \"${a}\", train_file: \"${c.kept}\"}\n"
         "  - {name: c, command: eval, model: \"${d}\", eval_file: x, beta: 1}\n",
         2,
         {":4: there is no option `lerning_rate`; did you mean `learning_rate`?",
          ":5: train_file: ${c.kept} is made by a later phase", ":6: model: ${d} is neither a phase nor a word",
          ":6: eval reads no `beta`; leave it out of phase c"}},
        {"*  - {name: a, command: sft, model: models/tiny, init: random, train_file: x, output_dir: y}\n",
         2,
         {":4: output_dir: leave it out; phase a writes into"}},
        {"*  - {name: a, command: sft, model: \"${a}\", train_file: x}\n",
         2,
         {":4: model: ${a} is made by this phase itself"}},
        {"*  - {name: a, command: sft, model: models/tiny, train_file: x}\n"
         "  - {name: b, command: eval, model: \"${a.best}\", eval_file: \"${a\"}\n",
         2,
         {":5: model: phase a makes no `best`", ":5: eval_file: ${ without }"}},
        {"*  - name: a\n    command: sft\n    model: models/tiny\n    train_file:\n      - $D/sft.jsonl\n"
         "      - {file: $D/no.jsonl, weight: 2}\n",
         3,
         {":9: phase a: train_file[2]: "}},
        {"*  - {name: a, command: sft, model: models/tiny, train_file: [{file: \"${b}\"}, x]}\n"
         "  - {name: b, command: train, model: \"${a}\", train_file: [{file: x, weight: 0}, {file: y, weight: 0}]}\n",
         2,
         {":4: train_file: ${b} is made by a later phase", ":5: train_file: every weight is 0"}},
        {"*  - {name: a, command: sft, model: models/tiny, init: random, train_file: $D/train.jsonl}\n"
         "  - {name: b, command: eval, model: \"${a}\", eval_file: $D/sft.jsonl}\n",
         3,
         {":4: phase a: train_file: ", "train.jsonl:1: ", ":5: phase b: eval_file: ", "sft.jsonl:1: "}},
        {"*  - {name: a, command: sft, model: $D/none, train_file: $D/no.jsonl}\n"
         "  - {name: b, command: eval, model: \"${a}\", eval_file: $D/no2.jsonl}\n",
         3,
         {":4: phase a: model: ", ":4: phase a: train_file: ", ":5: phase b: eval_file: "}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *body = cases[i].text;
        char *text = *body == '*' ? xasprintf("%s%s", head, body + 1) : xstrdup(body),
             *path = write_phases(text, "bad", "bad");
        for (int k = 0; k < 4 && cases[i].says[k]; k++) assert_run(path, "", cases[i].code, cases[i].says[k]);
        assert_problems_counted();
        assert_null(strstr(said, NO_MEANING)); // of a bad reference nothing more is said
        free(text), free(path);
    }
    Str many = {0}; // more than fits
    str_puts(&many, head);
    for (int i = 0; i < 40; i++)
        str_printf(&many, "  - {name: p%d, command: sft, model: models/tiny, init: random, train_file: $D/no.jsonl}\n",
                   i);
    char *all = write_phases(many.s, "many", "bad");
    assert_run(all, "", 3, "\n... and more; correct these first\n");
    str_free(&many), free(all);
    assert_run("", "", 2, "run wants a file of phases: grpo run FILE.yaml");
    assert_run("--help", "", 0, "usage: grpo run FILE.yaml");
    assert_run("/nowhere.yaml", "", 2, "/nowhere.yaml");
    char *path = write_phases(phases, "p", "out");
    assert_run(path, "resoning.max_steps=1", 2, "there is no phase `resoning`; did you mean `reasoning`?");
    free(path);
}

// from= and only= take away nothing before all is checked, and say what goes on after them.
static void products_stay_until_all_is_checked(void **state) {
    char *path = write_phases(phases, "p", "stay"), *result = xasprintf("%s/stay/measure.json", f.dir),
         *kept = xasprintf("%s/stay/pick/kept.jsonl", f.dir), *dir = xasprintf("%s/stay", f.dir);
    // What looks like a phase's, and the pipeline did not make, it does not remove.
    static const char *const foreign[][2] = {
        {"mkdir -p $D/pick; echo dear >$D/pick/kept.jsonl",
         "pick/kept.jsonl: is there already, and by pipeline.json phase pick"},
        {"mkdir -p $D/cold/step_4.old", "cold/step_4.old: is there already, and by pipeline.json phase cold"},
        {"echo dear >$D/cold", "cold: phase cold needs a directory there: Not a directory; move away"},
        {"ln -s nowhere $D/cold", "cold: phase cold needs a directory there: No such file or directory; move away"},
        {"echo dear >$D/measure.json", "phase measure: "},
        {"echo dear >$D/measure.yaml", "measure.yaml: is there already, and phase measure writes"}};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        char *make = xasprintf("D=%s; mkdir -p $D; %s", dir, foreign[i][0]),
             *count = xasprintf("[ $(find %s | wc -l) -gt 1 ] && rm -r %s", dir, dir);
        assert_int_equal(system(make), 0);
        assert_run(path, "from=cold", 4, foreign[i][1]);
        if (strstr(foreign[i][1], "yaml")) assert_run(path, "", 4, foreign[i][1]);
        assert_int_equal(system(count), 0);
        free(make), free(count);
    }
    assert_run(path, "", 0, "all that was asked for");
    assert_run(path, "from=pick measure.eval_file=/nowhere.jsonl", 3, "phase measure: eval_file: ");
    assert_run(path, "from=pick cold.seed=5", 2, "phase cold is finished, with other options (seed;");
    assert_run(path, "only=pick learning_rate=1e-4", 2,
               "phase reasoning is finished, with other options (learning_rate");
    assert_int_equal(access(result, F_OK) | access(kept, F_OK), 0);
    assert_run(path, "", 0, "== phase 4 of 4: measure is finished");
    assert_run(path, "from=pick pick.select_rules=xmlcount:min=9", 3,
               "the same command without from= goes on from there");
    assert_run(path, "", 0, "== phase 4 of 4: measure (eval)");
    char *slash = xasprintf("output_dir=%s/", dir);
    assert_run(path, slash, 0, "== phase 4 of 4: measure is finished"); // the same directory
    // Another run at work there.
    int lock = open(dir, O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_run(path, "from=cold", 4, "stay: another `grpo run` is at work there");
    close(lock);
    assert_int_equal(access(result, F_OK) | access(kept, F_OK), 0);
    free(path), free(result), free(kept), free(dir), free(slash);
}

// What is made again takes away what its command had made, and of nothing else; links lead where they led.
static void what_the_user_keeps_there_stays(void **state) {
    static const char keep[] =
        "set -e; cd %s/kept; cp -r reasoning/step_3 reasoning/best; mkdir pick/sub reasoning/step_2.gone; "
        "for mine in reasoning/mine.txt pick/sub/x pick/run.json reasoning.json; do echo mine >$mine; done; "
        ": >reasoning/run.json.tmp.9; mv reasoning ../disk; ln -s ../disk reasoning; "
        "mv measure.json ../result; ln -s ../result measure.json; : >was";
    static const char kept[] =
        "set -e; cd %s/kept; [ $(cat reasoning/mine.txt pick/sub/x pick/run.json reasoning.json | wc -l) = 4 ]; "
        "[ -f reasoning/best/model.safetensors ]; [ -L reasoning ]; [ -d ../disk/step_2 ]; "
        "[ -L measure.json ]; grep -q questions ../result; [ ../result -nt was ]; "
        "for gone in step_3 step_2.gone hooks.log events.out.tfevents.grpo run.json.tmp.9 report.html; do "
        "[ ! -e ../disk/$gone ]; done";
    static const char stays[] =
        "cd %s/kept; [ \"$(ls -A ../disk pick | tr '\\n' ' ')\" = '../disk: best mine.txt  pick: "
        "run.json sub ' ] && [ ! -e ../result ] && [ -L measure.json ]";
    char *path = write_phases(phases, "kept", "kept"), *make = xasprintf(keep, f.dir), *look = xasprintf(kept, f.dir),
         *left = xasprintf(stays, f.dir), *list = xasprintf("%s/kept/pipeline.json", f.dir);
    assert_run(path, "reasoning.report_to=[tensorboard] reasoning.on_save=true", 0, "all that was asked for");
    assert_int_equal(system(make), 0);
    assert_run(path, "from=reasoning reasoning.max_steps=2 reasoning.report=false", 0, "all that was asked for");
    assert_int_equal(system(look), 0);
    // All of a phase's files are known: of one that is not made yet, nothing is left but what is the user's.
    assert_run(path, "from=cold reasoning.report_to=[tensorboard] reasoning.on_save=true", 0, "all that was asked for");
    Error e = {0};
    json_t *made = json_read(list, &e);
    assert_non_null(made);
    for (int i = 0; i < 3; i++)
        json_object_set_new(made, (const char *[]){"reasoning", "pick", "measure"}[i],
                            json_pack("{s:b}", "forgotten", 1));
    assert_int_equal(json_dump_file(made, list, 0), 0);
    json_decref(made);
    assert_run(path, "only=cold", 0, "all that was asked for");
    assert_int_equal(system(left), 0);
    free(path), free(make), free(look), free(left), free(list);
}

// A run that was killed while it removed what is to be made again leaves half of it, from which nothing goes on.
static void what_is_half_removed_is_made_anew(void **state) {
    char *straight = write_phases(phases, "straight", "whole"), *path = write_phases(phases, "half", "half"),
         *list = xasprintf("%s/half/pipeline.json", f.dir),
         *weights = xasprintf("%s/half/cold/step_6/model.safetensors", f.dir);
    assert_run(straight, "", 0, "all that was asked for");
    assert_run(path, "", 0, "all that was asked for");
    Error e = {0};
    json_t *made = json_read(list, &e);
    assert_non_null(made);
    json_object_set_new(made, "cold", json_pack("{s:b}", "forgotten", 1));
    json_object_set_new(made, "pick", json_pack("{s:b}", "forgotten", 1));
    assert_int_equal(json_dump_file(made, list, 0), 0);
    json_decref(made);
    assert_int_equal(unlink(weights), 0);
    assert_run(path, "", 0, "== phase 1 of 4: cold (sft)");
    assert_non_null(strstr(said, "reasoning is finished"));
    assert_non_null(strstr(said, "== phase 3 of 4: pick (select)"));
    assert_same_outputs("whole", "half");
    free(straight), free(path), free(list), free(weights);
}

// Takes `made` out of what pipeline.json says of a phase: it has begun, and is not finished.
static void unfinish(const char *dir, const char *name) {
    char *command = xasprintf("sed -i '/\"made\": \".*\\/%s\\//d' %s/%s/pipeline.json", name, f.dir, dir);
    assert_int_equal(system(command), 0);
    free(command);
}

// What a phase does not read may change; its command, all that it made, and what one that goes on began with may not.
static void a_phase_is_held_to_what_it_is_made_of(void **state) {
    char *path = write_phases(phases, "held", "held"), *samples = xasprintf("%s/held/pick/samples.jsonl", f.dir),
         *unread = xasprintf("eval_file=%s/pairs.jsonl", f.dir);
    assert_run(path, "", 0, "all that was asked for");
    assert_run(path, unread, 0, "all that was asked for"); // which the phases that are not measure do not read
    assert_run(path, "few_shot_file=/nowhere.jsonl", 2,
               "phase reasoning is finished, with other options (few_shot_file;");
    assert_null(strstr(said, "phase cold"));
    assert_run(path, "system_prompt=S", 2, "phase cold is finished, with other options (system_prompt;");
    assert_run(path, "beta=0.5", 2, "phase reasoning is finished, with other options (beta;");
    assert_null(strstr(said, "phase cold"));
    char *killed = xasprintf("%s/held/pipeline.json.tmp.999999999", f.dir), // what a process left, and one that lives
        *writes = xasprintf("%s/held/pipeline.json.tmp.%ld", f.dir, (long)getpid());
    for (int i = 0; i < 2; i++) assert_int_equal(close(open(i ? writes : killed, O_CREAT | O_WRONLY, 0666)), 0);
    assert_run(path, "only=measure", 0, "all that was asked for");
    assert_int_not_equal(access(killed, F_OK), 0);
    assert_int_equal(unlink(writes), 0);
    free(killed), free(writes);
    // How a program is asked changes no score.
    assert_run(path, "from=pick 'pick.rewards=[completion_length, \"external:command=cat,batch=1\"]'", 0,
               "all that was asked for");
    assert_run(path, "'pick.rewards=[completion_length, \"external:workers=2,command=cat,batch=1,timeout=9\"]'", 0,
               "pick is finished");
    assert_run(path, "'pick.rewards=[completion_length, \"external:command=tac,batch=1\"]'", 2,
               "phase pick is finished, with other options (rewards;");
    assert_run(path, "from=pick", 0, "all that was asked for");
    assert_int_equal(truncate(samples, 10), 0);
    assert_run(path, "", 3, "pick/samples.jsonl, which phase pick made, is not as it left it");
    assert_run(path, "from=pick", 0, "all that was asked for");
    // A phase that goes on from a checkpoint.
    unfinish("held", "cold");
    assert_run(path, "cold.seed=5", 2, "phase cold has begun, with other options (seed;");
    char *change = xasprintf("echo '{\"prompt\": \"a\", \"completion\": \"b\"}' >>%s/sft.jsonl", f.dir),
         *command = xasprintf("sed -i 's/command: eval/command: select, select_rules: [\"xmlcount:min=-9\"]/; "
                              "s/eval_file: \"/train_file: \"/; s/, eval_limit: 6//' %s",
                              path),
         *forget = xasprintf("rm -r %s/held/cold", f.dir);
    assert_int_equal(system(change), 0);
    assert_run(path, "", 2, "phase cold has begun with another train_file than ");
    assert_int_equal(system(forget), 0); // of which nothing is left may be made of anything
    assert_run(path, "from=cold", 0, "all that was asked for");
    assert_int_equal(system(command), 0);
    assert_run(path, "", 2, "phase measure is finished, as `eval` and not as `select`");
    free(path), free(samples), free(unread), free(change), free(command), free(forget);
}

// What is finished behind a phase that is not is held to what it is made of before that phase runs, and all of it is
// said; what the phase will make may come out as it was.
static void what_changed_is_said_before_a_phase_runs(void **state) {
    char *path = write_phases(phases, "early", "early"), *samples = xasprintf("%s/early/pick/samples.jsonl", f.dir),
         *rename = xasprintf("sed 's/name: reasoning/name: second/; s/{reasoning/{second/' %s >%s.2", path, path),
         *renamed = xasprintf("%s.2", path), *remove = xasprintf("rm -r %s/early/reasoning", f.dir),
         *made = xasprintf("%s/early/second", f.dir);
    assert_run(path, "", 0, "all that was asked for");
    assert_int_equal(system(rename), 0);
    assert_run(renamed, "measure.seed=3", 2, "2 problems:\n");
    assert_non_null(strstr(said, ":27: phase pick is finished, with other options (model;"));
    assert_non_null(strstr(said, ":34: phase measure is finished, with other options (model, seed;"));
    assert_non_null(strstr(said, "again by from=second")); // from=pick would want it finished
    assert_null(strstr(said, "== phase"));
    assert_int_not_equal(access(made, F_OK), 0);
    assert_run(path, "reasoning.seed=3 pick.seed=3 measure.seed=3", 2, "3 problems:\n");
    // Of the same phase, the same comes out.
    unfinish("early", "reasoning");
    assert_run(path, "cold.seed=5 reasoning.seed=3", 2, ":17: phase reasoning has begun, with other options (seed;");
    assert_non_null(strstr(said, "phase cold is finished, with other options (seed;"));
    assert_int_equal(system(remove), 0);
    assert_run(path, "", 0, "== phase 3 of 4: pick is finished");
    assert_non_null(strstr(said, "== phase 2 of 4: reasoning (train)"));
    unfinish("early", "reasoning");
    assert_int_equal(truncate(samples, 10), 0);
    assert_run(path, "", 3, "pick/samples.jsonl, which phase pick made, is not as it left it");
    assert_null(strstr(said, "== phase"));
    free(path), free(samples), free(rename), free(renamed), free(remove), free(made);
}

// A reward model that goes on from another, or is an adapter; a model's template is part of it.
static void models_are_made_of_models(void **state) {
    static const char text[] =
        "output_dir: $D/models\ndefine: {base: $D/base}\nraw: true\nmax_completion_length: 4\ndtype: f32\nmax_steps: "
        "1\n"
        "eval_limit: 2\nphases:\n"
        "  - {name: a, command: reward_model, model: \"${base}\", init: random, train_file: $D/pairs.jsonl, "
        "per_device_train_batch_size: 1, gradient_accumulation_steps: 1}\n"
        "  - {name: b, command: reward_model, model: \"${a}\", train_file: $D/pairs.jsonl, lora_r: 2, "
        "per_device_train_batch_size: 1, gradient_accumulation_steps: 1}\n"
        "  - {name: c, command: reward_model, model: \"${a}\", adapter: \"${b}\", train_file: $D/pairs.jsonl, "
        "per_device_train_batch_size: 1, gradient_accumulation_steps: 1}\n"
        "  - {name: d, command: eval, model: \"${base}\", init: random, eval_file: $D/train.jsonl, rewards: "
        "[{name: reward_model, model: \"${c}\", chat_template: raw}]}\n";
    char *copy = xasprintf("cp -r models/tiny %s/base", f.dir), *path = write_phases(text, "models", "models"),
         *template = xasprintf("echo '{{ messages[0].content }}' >%s/base/chat_template.jinja", f.dir);
    assert_int_equal(system(copy), 0);
    assert_run(path, "", 0, "all that was asked for");
    assert_int_equal(system(template), 0);
    assert_run(path, "", 2, "phase a was made from another model than ");
    free(copy), free(path), free(template);
}

// A program behind a reward is part of what a phase was made from; $${ is a hook's own ${.
static void programs_and_hooks_of_phases(void **state) {
    char *score = xasprintf("%s/score.sh", f.dir),
         *text = xasprintf("output_dir: $D/programs\nraw: true\nmax_completion_length: 4\ndtype: f32\nphases:\n"
                           "  - {name: a, command: eval, model: models/tiny, init: random, eval_file: $D/train.jsonl, "
                           "eval_limit: 2, rewards: [\"external:command=sh %s\"]}\n"
                           "  - {name: b, command: sft, model: models/tiny, init: random, train_file: $D/sft.jsonl, "
                           "max_steps: 1, on_save: \"echo $${GRPO_STEP} ${a} >$D/hook\"}\n",
                           score),
         *path = write_phases(text, "programs", "programs");
    for (int worth = 1; worth <= 2; worth++) {
        FILE *program = fopen(score, "w");
        assert_non_null(program);
        fprintf(program,
                "while read -r line; do id=${line#*\\\"id\\\": }; n=$(echo \"$line\" | grep -o '\"completion\"' | wc "
                "-l); all=\n"
                "while [ $n -gt 0 ]; do all=\"$all${all:+, }%d\"; n=$((n - 1)); done\n"
                "echo \"{\\\"id\\\": ${id%%%%,*}, \\\"scores\\\": [$all]}\"; done\n",
                worth);
        assert_int_equal(fclose(program), 0);
        if (worth == 1) assert_run(path, "", 0, "all that was asked for");
        else assert_run(path, "", 2, "phase a was made from another rewards.external.program than sh ");
    }
    size_t n;
    char *hook = output(".", "hook", &n), *want = xasprintf("1 %s/programs/a.json ", f.dir); // its arguments follow
    assert_int_equal(strncmp(hook, want, strlen(want)), 0);
    free(score), free(text), free(path), free(hook), free(want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(killed_anywhere_it_ends_in_the_same_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(what_changed_is_said_and_made_again_on_request, setup, teardown),
        cmocka_unit_test_setup_teardown(a_phase_that_fails_stops_the_run, setup, teardown),
        cmocka_unit_test_setup_teardown(mistakes_are_said_before_the_first_phase, setup, teardown),
        cmocka_unit_test_setup_teardown(products_stay_until_all_is_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_user_keeps_there_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_half_removed_is_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(models_are_made_of_models, setup, teardown),
        cmocka_unit_test_setup_teardown(a_phase_is_held_to_what_it_is_made_of, setup, teardown),
        cmocka_unit_test_setup_teardown(what_changed_is_said_before_a_phase_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(programs_and_hooks_of_phases, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
