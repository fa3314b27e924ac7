// What supervised tuning learns of a row, and what its checkpoints say of conversations.
#include "train_commands.h"
#include "learner.h"
#include "chat.h"
#include "commands.h"
#include "train.h"
#include "data.h"
#include "example.h"
#include "file.h"
#include "near.h"
#include "outdir.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A run as far as rows need it, on models/tiny or a copy of it.
typedef struct {
    Config cfg;
    Engine engine;
    Prompter prompter;
} Rows;

static void rows_open(Rows *x, const char *template, const char *more) {
    char *args[] = {xasprintf("chat_template=%s", template), xstrdup(more)};
    Error e = {0};
    bool ok = config_read(&x->cfg, NULL, args, 2, &e);
    x->engine = (Engine){.cfg = &x->cfg, .tokenizer = tokenizer_load("models/tiny", &e)};
    ok = ok && x->engine.tokenizer && hf_config_read("models/tiny", &x->engine.hf, &e) &&
         engine_find_template(&x->engine, &e);
    if (!ok || !engine_prompter(&x->engine, &x->prompter, &e)) fail_msg("%s", e.text);
    free(args[0]), free(args[1]);
}

static void rows_close(Rows *x) {
    prompter_close(&x->prompter);
    tokenizer_free(x->engine.tokenizer);
    config_free(&x->cfg);
}

// Ids and learned tokens as transformers and TRL have them, up to the last that is learned.
static void conversations_are_learned_as_trl_learns_them(void **state) {
    json_t *golden = json_load_file("tests/golden/chat.json", 0, NULL), *c;
    size_t i;
    assert_non_null(golden);
    json_array_foreach(json_object_get(golden, "rows"), i, c) {
        Rows x;
        Example made = {0};
        Error e = {0};
        rows_open(&x, json_string_value(json_object_get(c, "template")), "raw=false");
        if (!example_read(&x.prompter, json_object_get(c, "row"), &made, &e)) fail_msg("%s", e.text);
        const json_t *ids = json_object_get(c, "ids");
        const char *learned = json_string_value(json_object_get(c, "learned"));
        assert_int_equal(made.ids.n, strrchr(learned, '1') - learned + 1);
        for (size_t k = 0; k < made.ids.n; k++) {
            assert_int_equal(made.ids.id[k], json_integer_value(json_array_get(ids, k)));
            assert_int_equal(made.wanted[k], learned[k] == '1');
        }
        example_free(&made);
        rows_close(&x);
    }
    json_decref(golden);
}

// Tools may be a text, as data sets keep them; what cannot be rendered, or teaches nothing, is refused.
static void rows_that_are_read_and_refused(void **state) {
    static const struct {
        const char *template, *row, *error; // NULL: it is read
    } cases[] = {
        {"qwen2.5",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}],"
         " \"tools\": \"[{\\\"name\\\": \\\"f\\\"}]\"}",
         NULL},
        {"qwen2.5",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}],"
         " \"tools\": \"[\"}",
         "\"tools\""},
        {"r1-zero",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}],"
         " \"tools\": [{\"name\": \"f\"}]}",
         "no place for tools"},
        {"r1-zero",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"tool_calls\": "
         "[{\"name\": \"f\", \"arguments\": {}}]}]}",
         "messages[1]: the template r1-zero has no place for tool calls"},
        {"qwen2.5", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "nothing to learn"},
        {"qwen2.5", "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", "nothing comes before it"},
        {"qwen2.5",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": null}]}",
         "messages[1]: no string \"content\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Rows x;
        Example made = {0};
        Error e = {0};
        rows_open(&x, cases[i].template, "raw=false");
        json_t *row = json_loads(cases[i].row, 0, NULL);
        assert_non_null(row);
        assert_int_equal(example_read(&x.prompter, row, &made, &e), !cases[i].error);
        if (cases[i].error && !strstr(e.text, cases[i].error)) fail_msg("case %zu says: %s", i, e.text);
        json_decref(row);
        example_free(&made);
        rows_close(&x);
    }
}

// A completion is followed by one end: its own where it has the text of one, else the template's, else the model's
// first.
static void completions_end_once(void **state) {
    enum { TEXT_END = 509, TURN_END = 511 };
    static const struct {
        const char *template, *completion, *kept;
        int end;
    } cases[] = {{"qwen2.5", "Hello", "Hello", TURN_END},
                 {"qwen2.5", "Hello<|im_end|>", "Hello", TURN_END},
                 {"qwen2.5", "Hello<|im_end|>\n", "Hello", TURN_END},
                 {"qwen2.5", "Hello\n", "Hello\n", TURN_END},
                 {"qwen2.5", "Hello<|endoftext|>", "Hello", TEXT_END},
                 {"r1-zero", "Hello<|endoftext|>", "Hello", TEXT_END},
                 {"r1-zero", "Hello", "Hello", TURN_END}}; // the first of models/tiny's generation_config.json
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Rows x;
        Example made = {0};
        Ids wanted = {0};
        Error e = {0};
        rows_open(&x, cases[i].template, "raw=false");
        json_t *row = json_pack("{s:s, s:s}", "prompt", "Hi", "completion", cases[i].completion);
        assert_true(prompter_ids(&x.prompter, "Hi", &wanted, &e));
        size_t first = wanted.n;
        tokenizer_encode(x.engine.tokenizer, cases[i].kept, strlen(cases[i].kept), false, &wanted);
        ids_add(&wanted, cases[i].end);
        assert_true(example_read(&x.prompter, row, &made, &e));
        assert_int_equal(made.ids.n, wanted.n);
        assert_memory_equal(made.ids.id, wanted.id, wanted.n * sizeof *wanted.id);
        for (size_t k = 0; k < made.ids.n; k++) assert_int_equal(made.wanted[k], k >= first);
        json_decref(row);
        ids_free(&wanted);
        example_free(&made);
        rows_close(&x);
    }
}

// ---- checkpoints --------------------------------------------------------------------------------------------------

static char dir[] = "/tmp/grpo-sft-XXXXXX";

static void put(const char *name, const char *text) {
    char *path = xasprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_true(f && fputs(text, f) >= 0 && !fclose(f));
    free(path);
}

static char *get(const char *name) {
    char *path = xasprintf("%s/%s", dir, name);
    size_t n;
    char *text = file_read(path, 1 << 20, &n, NULL);
    free(path);
    return text;
}

// models/tiny as a base model is published: texts end with <|endoftext|> alone.
static int make_base(void **state) {
    if (!mkdtemp(dir)) return -1;
    static const char *const copied[] = {"config.json", "tokenizer.json"};
    for (int i = 0; i < 2; i++) {
        char *from = xasprintf("models/tiny/%s", copied[i]);
        size_t n;
        char *text = file_read(from, 1 << 24, &n, NULL);
        assert_non_null(text);
        put(copied[i], text);
        free(text), free(from);
    }
    char *base = chat_jinja("qwen2.5-base");
    put("chat_template.jinja", base);
    put("tokenizer_config.json", "{\"eos_token\": \"<|endoftext|>\"}");
    put("generation_config.json", "{\"eos_token_id\": 509, \"max_new_tokens\": 2048}");
    put("rows.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
                      "\"content\": \"Hello\"}]}\n");
    free(base);
    return 0;
}

static int remove_base(void **state) { return disk_remove(dir, NULL) ? 0 : -1; }

static ExitCode run_sft(const char *out, const char *more, Error *e) {
    char *all = xasprintf("model=%s init=random dtype=f32 seed=7 device=cpu progress=off max_length=200 "
                          "per_device_train_batch_size=1 gradient_accumulation_steps=1 train_file=%s/rows.jsonl "
                          "output_dir=%s/%s %s",
                          dir, dir, dir, out, more),
         *arg[32];
    int n = 0;
    for (char *word = strtok(all, " "); word; word = strtok(NULL, " ")) arg[n++] = word;
    ExitCode code = command_sft(n, arg, e);
    free(all);
    return code;
}
static void sft(const char *out, const char *more) { // one step
    Error e = {0};
    char *options = xasprintf("max_steps=1 %s", more);
    if (run_sft(out, options, &e) != EXIT_OK) fail_msg("sft: %s", e.text);
    free(options);
}

static bool saved(const char *out, int step) {
    char *path = xasprintf("%s/%s/step_%d", dir, out, step);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}
static void checkpoints_come_when_they_are_due(void **state) {
    Error e = {0};
    if (run_sft("due", "max_steps=5 save_steps=2 save_total_limit=9", &e) != EXIT_OK) fail_msg("sft: %s", e.text);
    for (int step = 1; step <= 5; step++) assert_int_equal(saved("due", step), step == 2 || step >= 4);
}

// Weights that each step makes a hundred times larger: when no loss is finite any more, so many steps in a row end the
// run, without a checkpoint.
static void steps_that_are_not_finite_end_a_run(void **state) {
    Error e = {0};
    assert_int_equal(run_sft("ruined",
                             "max_steps=60 max_bad_steps=3 learning_rate=10 weight_decay=10 "
                             "lr_scheduler_type=constant",
                             &e),
                     EXIT_NUMERIC);
    assert_non_null(strstr(e.text, "3 steps in a row were not finite (the last: "));
    assert_non_null(strstr(e.text, "the gradient of model.")); // the first tensor at fault
    assert_non_null(strstr(e.text, ".weight) and changed nothing; lower learning_rate, or look at the data of step "));
    char *path = xasprintf("%s/ruined/metrics.jsonl", dir), *text;
    size_t n;
    assert_non_null(text = file_read(path, 1 << 20, &n, &e)); // the last of them is logged, too
    int skipped = 0;
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *row = json_loads(line, 0, NULL), *count = json_object_get(row, "skipped");
        skipped += count != NULL;
        if (count) assert_int_equal(json_integer_value(count), skipped);
        json_decref(row);
    }
    assert_int_equal(skipped, 3);
    free(path), free(text);
    for (int step = 1; step <= 60; step++) assert_false(saved("ruined", step));
}

static void checkpoints_say_how_they_were_trained(void **state) {
    int32_t ends[] = {511, 509};
    HfConfig hf;
    Error e = {0};
    // The model's own template: its end of turn is listed, what else the file says stays, the template is the source's.
    sft("own", "");
    char *path = xasprintf("%s/own/step_1", dir), *base = chat_jinja("qwen2.5-base"), *text;
    assert_true(hf_config_read(path, &hf, &e));
    assert_int_equal(hf.n_eos, 2);
    assert_memory_equal(hf.eos, ends, sizeof ends);
    text = get("own/step_1/generation_config.json");
    assert_non_null(strstr(text, "\"max_new_tokens\": 2048"));
    free(text);
    text = get("own/step_1/chat_template.jinja");
    assert_string_equal(text, base);
    free(text), free(path);
    // Another one: both places that programs look in say so.
    sft("other", "chat_template=qwen2.5");
    char *instruct = chat_jinja("qwen2.5");
    text = get("other/step_1/chat_template.jinja");
    assert_string_equal(text, instruct);
    free(text);
    text = get("other/step_1/tokenizer_config.json");
    json_t *j = json_loads(text, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(j, "chat_template")), instruct);
    assert_string_equal(json_string_value(json_object_get(j, "eos_token")), "<|endoftext|>");
    json_decref(j);
    free(text);
    // One without an end of turn: the model's own ends stay.
    sft("plain", "chat_template=r1-zero");
    text = get("plain/step_1/generation_config.json");
    assert_string_equal(text, "{\"eos_token_id\": 509, \"max_new_tokens\": 2048}");
    free(text), free(base), free(instruct);
}

// One number of the run's metrics.
static double metric(const char *out, const char *name) {
    char *path = xasprintf("%s/metrics.jsonl", out), *text = get(path);
    json_t *line = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    double value = json_number_value(json_object_get(line, name));
    json_decref(line);
    free(text), free(path);
    return value;
}

// Several completions of a prompt, as rejection sampling leaves them: its rows stand once a micro-batch, wherever the
// data has them, and what is learned is the same.
static void completions_share_their_prompt(void **state) {
    Str rows = {0};
    for (int i = 0; i < 9; i++)
        str_printf(&rows, "{\"question\": \"Tom has %d pens and gets some more. How many now?\", \"answer\": \"%d\"}\n",
                   i % 3, i * i * i);
    put("several.jsonl", rows.s);
    str_free(&rows);
    static const char *const cuts[] = {"per_device_train_batch_size=9 gradient_accumulation_steps=1",
                                       "per_device_train_batch_size=2 gradient_accumulation_steps=5",
                                       "per_device_train_batch_size=2 gradient_accumulation_steps=5 packing=false"};
    for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
        float *moment[2];
        size_t n[2];
        double seen[2], loss[2];
        for (int shared = 0; shared < 2; shared++) {
            char *more = xasprintf(
                     "train_file=%s/several.jsonl completion_field=answer prompt_field=question shuffle=false "
                     "share_prompts=%s %s",
                     dir, shared ? "true" : "false", cuts[k]),
                 *out = xasprintf("several%zu%d", k, shared),
                 *path = xasprintf("%s/%s/step_1/state/moment1.bin", dir, out);
            sft(out, more);
            assert_int_equal(metric(out, "frac_rows_saved") > 0.2, shared);
            seen[shared] = metric(out, "num_tokens"), loss[shared] = metric(out, "loss");
            moment[shared] = (float *)file_read(path, 1 << 24, &n[shared], NULL); // the gradient, times a constant
            assert_non_null(moment[shared]);
            free(more), free(out), free(path);
        }
        assert_true(seen[0] == seen[1] && fabs(loss[0] - loss[1]) < 1e-6 * loss[0] && n[0] == n[1]);
        double error = distance_of(moment[1], moment[0], (int64_t)n[0] / 4);
        if (!(error < 1e-6)) fail_msg("%s: gradients differ by %g", cuts[k], error);
        free(moment[0]), free(moment[1]);
    }
}

// The examples of few_shot_file are for drawing answers, not for learning them.
static void examples_are_not_shown(void **state) { sft("shown", "few_shot_file=/nowhere.jsonl"); }

// Wherever a micro-batch ends, in a completion, behind it, before or behind the prompt that others share, what is
// learned is the same: its room grows row by row, from that of the longest example to that of all.
static void a_micro_batch_may_end_anywhere(void **state) {
    Str rows = {0};
    for (int i = 0; i < 5; i++)
        str_printf(&rows, "{\"question\": \"Tom has %d pens.\", \"answer\": \"%d\"}\n", i % 2, 7 << 2 * i);
    put("seams.jsonl", rows.s);
    str_free(&rows);
    float *whole = NULL;
    size_t n, all = 0;
    double loss = 0, last = 0, tokens = 0;
    int cut = 0, kinds = 0; // of those in two or more; shares of rows saved
    for (int room = 200; room > 0; room -= room > 100 ? 20 : 1) {
        char *more = xasprintf("train_file=%s/seams.jsonl completion_field=answer prompt_field=question shuffle=false "
                               "raw=true gradient_accumulation_steps=5 max_length=%d",
                               dir, room),
             *path = xasprintf("%s/seams/step_1/state/moment1.bin", dir), *out = xasprintf("%s/seams", dir);
        disk_remove(out, NULL);
        sft("seams", more);
        free(more), free(out);
        float *moment = (float *)file_read(path, 1 << 24, &n, NULL);
        assert_non_null(moment);
        double saved_rows = metric("seams", "frac_rows_saved");
        if (!tokens) tokens = metric("seams", "num_tokens");
        if (metric("seams", "num_tokens") < tokens) room = 0; // the longest example is longer: it was cut
        kinds += saved_rows != last, last = saved_rows;
        if (!room) free(moment);
        else if (!whole) whole = moment, all = n, loss = metric("seams", "loss");
        else {
            assert_int_equal(n, all);
            double error = distance_of(moment, whole, (int64_t)n / 4);
            if (!(error < 1e-6 && fabs(metric("seams", "loss") - loss) < 1e-6 * loss))
                fail_msg("%d rows: gradients differ by %g", room, error);
            cut++;
            free(moment);
        }
        free(path);
    }
    assert_true(cut > 20 && kinds > 3);
    free(whole);
}

// A template that is none of ours is an error where messages are rendered.
static void an_unknown_template_is_asked_about(void **state) {
    put("chat_template.jinja", "{{ messages }}");
    char *args[] = {xasprintf("model=%s", dir), "init=random", "device=cpu", "prompt=Hi", "max_completion_length=1"};
    Error e = {0};
    assert_int_equal(command_sample(5, args, &e), EXIT_INPUT);
    assert_non_null(strstr(e.text, "chat_template.jinja: the chat template is none"));
    free(args[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations_are_learned_as_trl_learns_them),
        cmocka_unit_test(rows_that_are_read_and_refused),
        cmocka_unit_test(completions_end_once),
        cmocka_unit_test(checkpoints_say_how_they_were_trained),
        cmocka_unit_test(checkpoints_come_when_they_are_due),
        cmocka_unit_test(steps_that_are_not_finite_end_a_run),
        cmocka_unit_test(completions_share_their_prompt),
        cmocka_unit_test(examples_are_not_shown),
        cmocka_unit_test(a_micro_batch_may_end_anywhere),
        cmocka_unit_test(an_unknown_template_is_asked_about),
    };
    return cmocka_run_group_tests(tests, make_base, remove_base);
}
