// Configurations of TRL's: the list of its fields against the real class's, and files of them read as ours.
#include "json.h"
#include "trl.h"
#include "config.h"
#include "config_table.h"
#include <setjmp.h>
#include <stdarg.h>
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
        for (int k = 0; k < config_option_count; k++) option = option || !strcmp(config_options[k].name, f->ours);
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
    if (!config_read(&c, name, NULL, 0, &e)) fail_msg("%s", e.text);
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
    assert_true(c.long_prompts == LONG_FAIL && c.epsilon_high == -1 && c.delta == 0);
    config_free(&c);
}

static void values_are_turned_into_ours(void **state) {
    Config c =
        config_of("{\"bf16\": false, \"scale_rewards\": false, \"warmup_steps\": 0.1, \"generation_batch_size\": 64,\n"
                  "\"epsilon_high\": 0.28, \"delta\": null, \"save_strategy\": \"no\", \"eval_strategy\": \"no\",\n"
                  "\"lr_scheduler_type\": \"constant_with_warmup\", \"max_prompt_length\": 300, \"use_cpu\": true,\n"
                  "\"reward_funcs\": [\"accuracy_reward\", \"format\"], \"reward_weights\": [1.0, 0.5],\n"
                  "\"shuffle_dataset\": false, \"gradient_checkpointing\": true, \"report_to\": [],\n"
                  "\"model_name_or_path\": \"a/b\", \"use_vllm\": false, \"max_steps\": 20}",
                  "");
    assert_true(c.dtype == DTYPE_F32 && c.scale_rewards == 2 && c.warmup_ratio == 0.1 && c.steps_per_generation == 8);
    assert_true(c.epsilon_high == 0.28 && c.save_steps == 0 && c.eval_steps == 0 && c.max_prompt_length == 300);
    assert_true(c.lr_scheduler_type == SCHEDULE_CONSTANT && c.device == DEVICE_CPU && !c.shuffle && c.recompute);
    assert_string_equal(c.model, "a/b");
    assert_int_equal(c.rewards.n, 2);
    assert_string_equal(c.rewards.item[0], "accuracy:weight=1.0");
    assert_string_equal(c.rewards.item[1], "format:weight=0.5");
    assert_int_equal(c.max_steps, 20);
    config_free(&c);
    c = config_of("optim: adafactor\nfsdp: full_shard\nloss_typ: dapo\nuse_vllm: true\nsave_strategy: epoch\n"
                  "generation_kwargs: {top_p: 0.5}\nlearning_rate: [1, 2]\nreward_funcs: my.custom\nfp16: false\n",
                  "loss_typ, learning_rate, fsdp, generation_kwargs, use_vllm, reward_funcs, save_strategy, optim");
    config_free(&c);
}

static void mistakes_are_named(void **state) {
    Error e;
    const struct {
        const char *text, *says;
    } bad[] = {{"beta: 0.1\nbeta: 0.2\n", ":2: `beta` is given twice; first on line 1"},
               {"- beta\n", "a map of fields"},
               {"beta: much\n", "beta wants a number"},
               {"loss_type: cispo\n", "largest ratio itself"},
               {"beta: {\n", ": "}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *out = from_text(bad[i].text, &e);
        assert_null(out);
        assert_int_equal(e.code, EXIT_CONFIG);
        if (!strstr(e.text, bad[i].says) || strncmp(e.text, path, strlen(path))) fail_msg("%s", e.text);
    }
    assert_null(config_from_trl("/nowhere/trl.yaml", &e));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_is_listed_with_its_default),
        cmocka_unit_test(what_is_not_said_is_as_trl_has_it),
        cmocka_unit_test(values_are_turned_into_ours),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
