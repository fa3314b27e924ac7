// Configurations of TRL's: the list of its fields against the real class's, and files of them read as ours.
#include "json.h"
#include "trl.h"
#include "config.h"
#include "config_table.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

// tests/golden/trl_fields.json: written by tools/check_trl.py --golden from dataclasses.fields(GRPOConfig).
static void every_field_is_listed_with_its_default(void **state) {
    Error e;
    json_t *golden = json_read("tests/golden/trl_fields.json", &e), *value;
    if (!golden) fail_msg("%s", e.text);
    const json_t *fields = json_object_get(golden, "fields");
    const char *name;
    assert_true(json_object_size(fields) > 150);
    json_object_foreach((json_t *)(uintptr_t)fields, name, value) {
        const TrlField *found = NULL;
        for (int i = 0; i < trl_field_count; i++)
            if (!strcmp(trl_fields[i].name, name)) found = &trl_fields[i];
        if (!found || found->source != TRL_CONFIG) fail_msg("%s is not listed", name);
        assert_string_equal(found->value, json_string_value(value));
    }
    for (int i = 0; i < trl_field_count; i++) {
        const TrlField *f = &trl_fields[i];
        if (f->source == TRL_CONFIG && !json_object_get(fields, f->name)) fail_msg("%s is no field", f->name);
        bool option = !*f->ours, carried = f->how == TRL_SAME || f->how == TRL_NAMED;
        for (int k = 0; k < OPTION_COUNT; k++) option = option || !strcmp(config_options[k].name, f->ours);
        if (!option) fail_msg("%s: there is no option %s", f->name, f->ours);
        if (!carried && !*f->words) fail_msg("%s: no words", f->name);
        if (carried && !*f->ours) fail_msg("%s: no option", f->name);
    }
    json_decref(golden);
}

static char path[64];

static char *from_text(const char *text, Error *e) {
    strcpy(path, "/tmp/grpo-trl-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
    *e = (Error){0};
    note_quiet(true);
    char *out = config_from_trl(path, e);
    note_quiet(false);
    unlink(path);
    return out;
}

// The configuration that a file of TRL's makes, read back from what is printed.
static Config config_of(const char *text, const char *lost) {
    Error e;
    char *yaml = from_text(text, &e);
    if (!yaml) fail_msg("%s", e.text);
    const char *line = strstr(yaml, "# Not carried over (the notes say why): ");
    if (!*lost) assert_null(line);
    else if (!line || strncmp(line + 40, lost, strlen(lost)) || line[40 + strlen(lost)] != '\n')
        fail_msg("not `%s`:\n%s", lost, yaml);
    char name[] = "/tmp/grpo-trl-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0 && write(fd, yaml, strlen(yaml)) == (ssize_t)strlen(yaml) && !close(fd));
    Config c;
    note_quiet(true);
    bool good = config_read(&c, name, NULL, 0, &e);
    note_quiet(false);
    if (!good) fail_msg("%s", e.text);
    unlink(name);
    free(yaml);
    return c;
}

static void what_is_not_said_is_as_trl_has_it(void **state) {
    Config c = config_of("num_generations: 4\n", "");
    assert_true(c.loss_type == LOSS_DAPO && c.beta == 0 && c.temperature == 1 && c.learning_rate == 1e-6);
    assert_true(c.max_completion_length == 512 && c.gradient_accumulation_steps == 1 && c.num_train_epochs == 3);
    assert_true(c.use_bias_correction_kl && c.lr_scheduler_type == SCHEDULE_LINEAR && c.logging_steps == 10);
    assert_true(c.num_generations == 4 && c.dtype == DTYPE_BF16 && c.save_steps == 500 && c.max_steps == 0);
    assert_true(c.long_prompts == LONG_FAIL && c.epsilon_high == -1 && c.delta == -1);
    assert_true(c.off_policy_mask_threshold == -1 && c.eval_steps == 0);
    assert_string_equal(c.output_dir, "trainer_output");
    config_free(&c);
}

static void values_are_turned_into_ours(void **state) {
    Config c = config_of(
        "{\"bf16\": false, \"scale_rewards\": false, \"warmup_steps\": 0.1, \"generation_batch_size\": 64,\n"
        "\"epsilon_high\": 0.28, \"delta\": null, \"save_strategy\": \"no\", \"eval_strategy\": \"no\",\n"
        "\"lr_scheduler_type\": \"constant_with_warmup\", \"max_prompt_length\": 300, \"use_cpu\": true,\n"
        "\"reward_funcs\": [\"accuracy_reward\", \"format\"], \"reward_weights\": [1.0, 0.5],\n"
        "\"shuffle_dataset\": false, \"gradient_checkpointing\": true, \"report_to\": [\"tensorboard\", \"wandb\"],\n"
        "\"model_name_or_path\": \"a/b\", \"use_vllm\": false, \"max_steps\": 20}",
        "report_to");
    assert_true(c.dtype == DTYPE_F32 && c.scale_rewards == 2 && c.warmup_ratio == 0.1 && c.steps_per_generation == 8);
    assert_true(c.epsilon_high == 0.28 && c.save_steps == 0 && c.eval_steps == 0 && c.max_prompt_length == 300);
    assert_true(c.lr_scheduler_type == SCHEDULE_CONSTANT && c.device == DEVICE_CPU && !c.shuffle &&
                c.gradient_checkpointing);
    assert_string_equal(c.model, "a/b");
    assert_int_equal(c.report_to.n, 1);
    assert_string_equal(c.report_to.item[0], "tensorboard");
    assert_int_equal(c.rewards.n, 2);
    assert_string_equal(c.rewards.item[0], "accuracy:weight=1.0");
    assert_string_equal(c.rewards.item[1], "format:weight=0.5");
    assert_int_equal(c.max_steps, 20);
    config_free(&c);
    c = config_of("optim: adafactor\nfsdp: full_shard\nloss_typ: dapo\nuse_vllm: true\nsave_strategy: epoch\n"
                  "generation_kwargs: {top_p: 0.5}\nreward_funcs: my.custom\nfp16: false\n",
                  "loss_typ, fsdp, generation_kwargs, use_vllm, reward_funcs, optim, save_strategy");
    config_free(&c);
}

// Where use_peft says so, and only there. TRL's dropout of 0.05 is not there, and that is said also where nobody wrote
// it.
static void adapters_are_turned_into_ours(void **state) {
    Config c = config_of("lora_r: 8\nuse_peft: false\nlora_target_modules: [q_proj]\n", "");
    assert_true(c.lora_r == 0 && c.lora_target.n == 1);
    assert_string_equal(c.lora_target.item[0], "all-linear");
    config_free(&c);
    c = config_of("use_peft: true\n", "lora_dropout");
    assert_true(c.lora_r == 16 && c.lora_alpha == 32 && !c.use_rslora && c.lora_target.n == 2);
    assert_string_equal(c.lora_target.item[1], "v_proj");
    config_free(&c);
    c = config_of("use_peft: true\nlora_r: 4\nlora_alpha: 6\nuse_rslora: true\nlora_dropout: 0.0\n"
                  "lora_target_modules: [gate_proj, up_proj, down_proj]\nlora_modules_to_save: [lm_head]\n",
                  "lora_modules_to_save");
    assert_true(c.lora_r == 4 && c.lora_alpha == 6 && c.use_rslora && c.lora_target.n == 3);
    config_free(&c);
    c = config_of("use_peft: true\nlora_dropout: 0\nlora_target_modules: all-linear\n", "");
    assert_string_equal(c.lora_target.item[0], "all-linear");
    config_free(&c);
    Error e;
    assert_null(from_text("use_peft: true\nlora_target_modules: [q_poj]\n", &e));
    assert_non_null(strstr(e.text, ":2: "));
    assert_non_null(strstr(e.text, "did you mean `q_proj`?"));
}

// What is off, none or unset in TRL, and what only looks so.
static void none_is_what_trl_makes_of_it(void **state) {
    Config c = config_of("delta: 0\noff_policy_mask_threshold: 0\nepsilon_high: 0\nbf16: null\nshuffle_dataset: ~\n"
                         "use_bias_correction_kl:\nmin_p: None\nsave_total_limit: null\noutput_dir: null\n"
                         "generation_batch_size: null\nreward_weights: null\nmax_prompt_length: null\n",
                         "");
    assert_true(c.delta == 0 && c.off_policy_mask_threshold == 0 && c.epsilon_high == 0 && c.dtype == DTYPE_BF16);
    assert_true(!c.shuffle && !c.use_bias_correction_kl && c.min_p == 0 && c.save_total_limit == 1000000);
    assert_true(c.steps_per_generation == 0 && c.max_prompt_length == 2048);
    assert_string_equal(c.output_dir, "trainer_output");
    config_free(&c);
    c = config_of("delta: null\noff_policy_mask_threshold: 'none'\nepsilon_high: ~\nscale_rewards: 'none'\n"
                  "loss_type: cispo\nepsilon: 0.3\n",
                  "");
    assert_true(c.delta == -1 && c.off_policy_mask_threshold == -1 && c.epsilon_high == 0.3 && c.scale_rewards == 2);
    config_free(&c);
}

// Files that TRL takes must make configurations that run.
static void what_trl_takes_runs(void **state) {
    Config c = config_of("eval_strategy: steps\neval_steps: 20\nlogging_steps: 5\n", "eval_strategy");
    assert_true(c.eval_steps == 0 && c.logging_steps == 5);
    config_free(&c);
    c = config_of("eval_strategy: epoch\nsave_steps: 0\nlogging_strategy: epoch\n", "logging_strategy, eval_strategy");
    assert_true(c.save_steps == 0);
    config_free(&c);
    c = config_of("top_k: -1\nseed: 1.0\nmax_steps: 1e3\nwarmup_steps: 10.5\nbeta: \"0.5\"\ndelta: 1.1\nbf16: 0\n", "");
    assert_true(c.top_k == 0 && c.seed == 1 && c.max_steps == 1000 && c.warmup_steps == 10 && c.beta == 0.5);
    assert_true(c.delta == 1.1 && c.dtype == DTYPE_F32);
    config_free(&c);
    static const char *const losses[] = {"cispo", "sapo", "vespo"};
    for (int i = 0; i < 3; i++) {
        char text[80];
        snprintf(text, sizeof text, "delta: 0.5\nloss_type: %s\n", losses[i]);
        c = config_of(text, "");
        assert_true(c.delta == 0.5 && c.epsilon_high == (i ? -1 : 0.2));
        config_free(&c);
    }
    // constant has no warm-up in transformers, whatever is asked for.
    c = config_of("lr_scheduler_type: constant\nwarmup_steps: 10\nwarmup_ratio: 0.1\n", "warmup_steps, warmup_ratio");
    assert_true(c.warmup_steps == 0 && c.warmup_ratio == 0);
    config_free(&c);
    c = config_of("multi_objective_aggregation: normalize_then_sum\nscale_rewards: none\n", "scale_rewards");
    assert_true(c.scale_rewards == 0);
    config_free(&c);
    // A reward model comes first in TRL's list, and has the first weight.
    c = config_of("reward_model_name_or_path: a/b\nreward_funcs: [format]\nreward_weights: [2, 3]\n",
                  "reward_model_name_or_path");
    assert_string_equal(c.rewards.item[0], "format:weight=3");
    config_free(&c);
    c = config_of("reward_weights: [2, 3]\n", "reward_weights"); // of functions that Python code names
    config_free(&c);
    // Names that are no names stay within their line of what is printed.
    c = config_of("\"\": 3\n\"a\\nbeta: 5\": 1\n", "\"\", \"a\\nbeta: 5\"");
    assert_true(c.beta == 0);
    config_free(&c);
}

// Every field that is carried over, with values of a wrong type: an error that names its line and the type.
static void wrong_types_are_errors(void **state) {
    static const char *const wrong[] = {"{a: 1}", "[[1]]", "", "perhaps"};
    Error e;
    int tried = 0;
    for (int i = 0; i < trl_field_count; i++) {
        const TrlField *f = &trl_fields[i];
        if (f->how != TRL_SAME && f->how != TRL_NAMED && f->how != TRL_TURNED) continue;
        bool text = f->how == TRL_NAMED && !strcmp(f->ours, "model"), null = !strcmp(f->value, "null");
        bool flag = !strcmp(f->value, "true") || !strcmp(f->value, "false");
        for (int k = 0; k < 4; k++) {
            bool named = text || !strcmp(f->name, "reward_funcs") || !strcmp(f->name, "optim") ||
                         !strcmp(f->name, "report_to") || !strcmp(f->name, "lora_target_modules");
            if ((k == 2 && (null || flag)) || (k == 3 && (named || !strcmp(f->name, "output_dir")))) continue;
            char line[120], where[120];
            snprintf(line, sizeof line, "# a comment\n%s: %s\n", f->name, wrong[k]);
            char *out = from_text(line, &e);
            snprintf(where, sizeof where, "%s:2: %s", path, f->name);
            bool typed = !out && (strstr(e.text, "wants") || strstr(e.text, "no schedule `perhaps`"));
            if (!typed || strncmp(e.text, where, strlen(where))) fail_msg("%s%s", line, out ? out : e.text);
            tried++;
        }
    }
    assert_true(tried > 180);
}

static void mistakes_are_named(void **state) {
    Error e;
    const struct {
        const char *text, *says;
    } bad[] = {{"beta: 0.1\nbeta: 0.2\n", ":2: `beta` is given twice; first on line 1"},
               {"- beta\n", "a map of fields"},
               {"beta: much\n", "beta wants a number"},
               {"learning_rate: [1, 2]\n", ":1: learning_rate wants a number, not a list"},
               {"\nmax_steps: abc\nbf16: perhaps\n", ":2: max_steps wants a whole number, not `abc`"},
               {"\nmax_steps: abc\nbf16: perhaps\n", ":3: bf16 wants true or false, not `perhaps`"},
               {"generation_batch_size: 64.5\n", ":1: generation_batch_size wants a whole number, not `64.5`"},
               {"generation_batch_size: 20\n", ":1: generation_batch_size (20) is not a multiple"},
               {"generation_batch_size: 64\n\nsteps_per_generation: 8\n", ":3: generation_batch_size and steps_"},
               {"steps_per_generation: 0\n", ":1: steps_per_generation is 0"},
               {"reward_funcs: {a: b}\n", ":1: reward_funcs wants a list of names, not a map"},
               {"reward_funcs: [a, {b: c}]\n", ":1: reward_funcs wants a list of names"},
               {"reward_funcs: [int, format]\n\nreward_weights: [1]\n", ":3: reward_weights: 1 for 2 rewards"},
               {"reward_weights: [1, x]\n", ":1: reward_weights wants a list of numbers"},
               {"reward_weights: 1.0\n", ":1: reward_weights wants a list of numbers, not `1.0`"},
               {"scale_rewards: null\n", ":1: scale_rewards wants a word, not null"},
               {"scale_rewards: [batch]\n", ":1: scale_rewards wants a word, not a list"},
               {"scale_rewards: bach\n", ":1: scale_rewards wants true, false, group"},
               {"num_generations: null\n", ":1: num_generations wants a whole number, not null; leave the line out"},
               {"beta: \"\"\n", ":1: beta wants a number, not ``"},
               {"beta: .inf\n", ":1: beta wants a number, not `.inf`"},
               {"output_dir: ''\n", ":1: output_dir wants a word, not ``"},
               {"delta: -1\n", ":1: delta is -1; 0 is the least here"},
               {"epsilon_high: -1\n", ":1: epsilon_high is -1; 0 is the least here"},
               {"fp16: true\nbf16: true\n", ":2: fp16 and bf16 are both true"},
               {"logging_steps: 0\n", ":1: logging_steps is 0; TRL wants more"},
               {"logging_steps: 1.5\n", ":1: logging_steps is 1.5; TRL wants a whole number above 1"},
               {"eval_strategy: null\n", ":1: eval_strategy wants a word, not null"},
               {"save_strategy: monthly\n", ":1: save_strategy wants one of no, steps, epoch and best"},
               {"lr_scheduler_type: cosin\n", ":1: lr_scheduler_type: transformers has no schedule `cosin`"},
               {"warmup_steps: -1\n", ":1: warmup_steps is -1"},
               {"top_k: -2\n", ":1: top_k is -2, outside its range"},
               {"\nloss_type: dapoo\n", ":2: loss_type wants one of"},
               {"beta: 0\nsync_ref_model: true\n", ":2: sync_ref_model is true but beta is 0"},
               {"model_name_or_path: \"a\\0b\"\n", ":1: model_name_or_path contains a NUL"},
               {"beta: {\n", ": "}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *out = from_text(bad[i].text, &e);
        assert_null(out);
        assert_int_equal(e.code, EXIT_CONFIG);
        if (!strstr(e.text, bad[i].says) || !strstr(e.text, path)) fail_msg("%s", e.text);
    }
    assert_null(config_from_trl("/nowhere/trl.yaml", &e));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_is_listed_with_its_default),
        cmocka_unit_test(what_is_not_said_is_as_trl_has_it),
        cmocka_unit_test(values_are_turned_into_ours),
        cmocka_unit_test(adapters_are_turned_into_ours),
        cmocka_unit_test(none_is_what_trl_makes_of_it),
        cmocka_unit_test(what_trl_takes_runs),
        cmocka_unit_test(wrong_types_are_errors),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
