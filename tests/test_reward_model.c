// Reward models: the scores of transformers' classifiers (tools/golden.py reward), whatever stands beside a text; what
// is refused.
#include "on_device.h"
#include "reward_models.h"
#include "reward_case.h"
#include "scratch_run.h"

enum { TEXTS = 8 };

// The texts of the golden as samples; neighbours with the same question are a group.
static void samples_of(Sample *s) {
    const json_t *texts = json_object_get(golden, "texts");
    assert_int_equal(json_array_size(texts), TEXTS);
    for (int i = 0; i < TEXTS; i++) {
        const json_t *pair = json_array_get(texts, (size_t)i), *text = json_array_get(pair, 1);
        s[i] = (Sample){.prompt = json_string_value(json_array_get(pair, 0)),
                        .completion = json_string_value(text),
                        .completion_len = json_string_length(text),
                        .answer = "",
                        .group = i};
        if (i && !strcmp(s[i].prompt, s[i - 1].prompt)) s[i].group = s[i - 1].group;
    }
}

typedef struct {
    Rewards rw;
    Device *d;
    RewardModels *m;
} Opened;

static bool model_open(Opened *o, const char *spec, DType dtype, Error *e) {
    *o = (Opened){.rw.n = 1, .d = test_device(2)};
    return reward_parse(spec, &o->rw.reward[0], e) && reward_open(&o->rw.reward[0], e) &&
           (o->m = reward_models_open(&o->rw, dtype, o->d, LOAD_STRICT, e));
}
static void model_close(Opened *o) {
    reward_models_free(o->m);
    rewards_close(&o->rw);
    device_close(o->d);
}

// The scores of the first n texts, so many at a time.
static void score(const char *options, const char *dir, DType dtype, int at_once, float *out) {
    Sample s[TEXTS];
    Opened o;
    Error e = {0};
    char *spec = xasprintf("reward_model:model=%s,%s", dir, options);
    samples_of(s);
    if (!model_open(&o, spec, dtype, &e)) fail_msg("%s", e.text);
    for (int i = 0; i < TEXTS; i += at_once) {
        int n = TEXTS - i < at_once ? TEXTS - i : at_once;
        if (!reward_models_samples(o.m, o.d, s + i, n, out + i, &e)) fail_msg("%s", e.text);
    }
    model_close(&o);
    free(spec);
}

static void scores_are_transformers(void **state) {
    static const struct {
        const char *options, *column;
        float scale;
    } ways[] = {{"part=completion", "completion", 1},
                {"part=summary", "summary", 1},
                {"part=completion,chat_template=raw,scale=-2", "raw", -2}};
    const json_t *one;
    size_t k;
    json_array_foreach(json_object_get(golden, "cases"), k, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        put_reward_model(name, one);
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            float got[TEXTS];
            double worst = 0, spread = 0;
            const json_t *want = json_object_get(one, ways[w].column);
            assert_int_equal(json_array_size(want), TEXTS);
            score(ways[w].options, at("%s", name), F32, TEXTS, got);
            for (int i = 0; i < TEXTS; i++) {
                double x = json_number_value(json_array_get(want, (size_t)i));
                worst = worse(worst, off_by(got[i] / ways[w].scale, x));
                spread = fmax(spread, fabs(x - json_number_value(json_array_get(want, 0))));
            }
            assert_true(spread > 0.3); // the texts differ
            if (!(worst <= 1e-5)) fail_msg("%s, %s: scores are off by %g", name, ways[w].options, worst);
        }
    }
}

// An adapter's directory stands for the model that its config names, with it.
static void an_adapters_scores_are_pefts(void **state) {
    const json_t *one = case_with_adapter(), *adapter = json_object_get(one, "adapter"),
                 *want = json_object_get(adapter, "completion");
    float got[TEXTS];
    double worst = 0, apart = 0;
    put_reward_model("rm", one);
    put_adapter("peft", adapter, at("rm"));
    score("part=completion", at("peft"), F32, TEXTS, got);
    for (int i = 0; i < TEXTS; i++) {
        double x = json_number_value(json_array_get(want, (size_t)i)),
               bare = json_number_value(json_array_get(json_object_get(one, "completion"), (size_t)i));
        worst = worse(worst, off_by(got[i], x)), apart = fmax(apart, fabs(x - bare));
    }
    assert_true(apart > 0.3); // the adapter matters
    if (!(worst <= 1e-5)) fail_msg("scores are off by %g", worst);
}

// A text's score is the same to the bit alone and among others, whose first tokens it shares or not.
static void scores_do_not_depend_on_the_batch(void **state) {
    put_reward_model("m", json_array_get(json_object_get(golden, "cases"), 0));
    put_reward_model("rm", case_with_adapter());
    put_adapter("peft", json_object_get(case_with_adapter(), "adapter"), at("rm"));
    for (int kind = 0; kind < 4; kind++) {
        float all[TEXTS], some[TEXTS];
        DType dtype = kind % 2 ? BF16 : F32;
        const char *name = kind / 2 ? "peft" : "m";
        score("part=completion", at("%s", name), dtype, TEXTS, all);
        for (int n = 1; n < TEXTS; n += 2) {
            score("part=completion", at("%s", name), dtype, n, some);
            assert_memory_equal(all, some, sizeof all);
        }
        score("part=completion,batch_tokens=256", at("%s", name), dtype, TEXTS, some); // several passes
        assert_memory_equal(all, some, sizeof all);
    }
}

// What is too long for a pass abstains and is counted; the others have their scores.
static void long_texts_abstain(void **state) {
    Sample s[TEXTS];
    Opened o;
    Error e = {0};
    float all[TEXTS], got[TEXTS];
    put_reward_model("m", json_array_get(json_object_get(golden, "cases"), 0));
    score("part=completion", at("m"), F32, TEXTS, all);
    samples_of(s);
    char *spec = xasprintf("reward_model:model=%s,part=completion,batch_tokens=96", at("m"));
    if (!model_open(&o, spec, F32, &e)) fail_msg("%s", e.text);
    assert_true(reward_models_samples(o.m, o.d, s, TEXTS, got, &e));
    int long_ones = 0;
    for (int i = 0; i < TEXTS; i++) {
        long_ones += isnan(got[i]);
        if (!isnan(got[i])) assert_memory_equal(&got[i], &all[i], sizeof *got);
    }
    assert_true(long_ones > 0 && long_ones < TEXTS && isnan(got[TEXTS - 1]));
    assert_int_equal(reward_faults(&o.rw.reward[0], REWARD_TOO_LONG), long_ones);
    model_close(&o);
    free(spec);
}

// ---- what is refused ------------------------------------------------------------------------------------------------

static void refused(const char *what, const char *expected) {
    Opened o;
    Error e = {0};
    char *spec = xasprintf("reward_model:model=%s", what);
    if (model_open(&o, spec, F32, &e)) fail_msg("%s is taken", what);
    if (!strstr(e.text, expected) || strchr(e.text, '\n')) fail_msg("'%s' is not in: %s", expected, e.text);
    model_close(&o);
    free(spec);
}

// The model of the golden with keys of its config.json changed.
static void put_changed(json_t *patch) {
    json_t *one = json_deep_copy(json_array_get(json_object_get(golden, "cases"), 0));
    put_reward_model("m", one);
    json_t *config = json_object_get(one, "config");
    json_object_update(config, patch);
    json_decref(patch);
    assert_int_equal(json_dump_file(config, at("m/config.json"), 0), 0);
    json_decref(one);
}

static void other_models_are_refused(void **state) {
    refused(at("nowhere"), "there is no such directory");
    refused("models/tiny", "is a causal language model (Qwen2ForCausalLM)");
    put_changed(json_pack("{s:{s:s, s:s}}", "id2label", "0", "bad", "1", "good"));
    refused(at("m"), "a model of 2 labels");
    put_changed(json_pack("{s:n}", "id2label")); // transformers takes 2 then
    refused(at("m"), "a model of 2 labels");
    put_changed(json_pack("{s:[s]}", "architectures", "Qwen2ForTokenClassification"));
    refused(at("m"), "holds \"Qwen2ForTokenClassification\"");
    put_changed(json_pack("{s:s}", "model_type", "gemma2"));
    refused(at("m"), "a family that is not known here");
    put_changed(
        json_pack("{s:i, s:i, s:i, s:i}", "vocab_size", 300, "eos_token_id", 0, "bos_token_id", 0, "pad_token_id", 0));
    refused(at("m"), "a vocabulary of 300 rows");
    put_changed(json_object());
    HfConfig hf;
    assert_true(hf_config_read(at("m"), &hf, NULL));
    Model m = model_make(hf.dims, F32, 1);
    Str all = {0};
    Param *kept = xcalloc((size_t)m.n_params, sizeof *kept);
    int n = 0;
    for (int i = 0; i < m.n_params; i++)
        if (strcmp(m.params[i].name, "score.weight")) kept[n++] = m.params[i];
    assert_int_equal(n, m.n_params - 1);
    safetensors_header(&all, kept, n, NULL, NULL);
    for (int i = 0; i < n; i++) str_add(&all, (const char *)kept[i].t.data, tensor_bytes(kept[i].t));
    put_bytes(at("m/model.safetensors"), all.s, all.n);
    refused(at("m"), "1 missing: score.weight");
    free(kept);
    str_free(&all);
    model_drop(&m);
    refused("", "model is not set");
}

// A head of several labels, one of another width, and one that its file does not have.
static void other_heads_are_refused(void **state) {
    static const struct {
        int64_t labels, width;
        const char *said;
    } cases[] = {{3, 40, "is of 3 labels"}, {1, 48, "score.weight is [1,48]"}, {0, 0, "without a score head"}};
    const json_t *one = case_with_adapter();
    HfConfig hf;
    AdapterSpec spec;
    Error e = {0};
    put_reward_model("rm", one);
    put_adapter("peft", json_object_get(one, "adapter"), at("rm"));
    assert_true(hf_config_read(at("rm"), &hf, &e) && adapter_describe(at("peft"), &spec, &e) && hf.dims.D == 40);
    Arena measure = arena_measure();
    Adapter *a = adapter_carve(&measure, hf.dims, &spec);
    for (int p = 0; p < a->n_params; p++) { // as files have them
        Tensor *t = &a->params[p].t;
        if (strstr(a->params[p].name, "lora_B")) *t = tensor2(NULL, F32, t->dim[1], t->dim[0]);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Param *head = &a->params[a->n_params - 1];
        Str all = {0};
        int n = a->n_params - !cases[i].labels;
        assert_string_equal(head->name, "base_model.model.score.weight");
        head->t = tensor2(NULL, F32, cases[i].labels, cases[i].width);
        safetensors_header(&all, a->params, n, NULL, NULL);
        for (int p = 0; p < n; p++)
            for (size_t k = 0; k < tensor_bytes(a->params[p].t); k++) str_add(&all, "", 1);
        put_bytes(at("peft/adapter_model.safetensors"), all.s, all.n);
        refused(at("peft"), cases[i].said);
        str_free(&all);
    }
    adapter_free(a);
}

// ---- in the commands ------------------------------------------------------------------------------------------------

// What every command that samples is told here: models/tiny as `tiny`, questions, the reward model beside a rule.
static void put_run(void) {
    put_reward_model("rm", json_array_get(json_object_get(golden, "cases"), 1));
    char *tiny = xasprintf("%s/models/tiny", getenv("PWD"));
    assert_int_equal(symlink(tiny, at("tiny")), 0);
    Str questions = {0};
    for (int i = 0; i < 6; i++)
        str_printf(&questions, "{\"question\": \"How many are %d and %d?\", \"answer\": \"#### %d\"}\n", i, i + 1,
                   2 * i + 1);
    put_text(at("q.jsonl"), questions.s);
    char *run = xasprintf("device=%s model=tiny init=random dtype=f32 raw=true max_prompt_length=40 threads=1 "
                          "max_completion_length=12 seed=7 rollout_batch=8 progress=off report=false "
                          "rewards=completion_length,reward_model:model=rm,part=completion,scale=2",
                          test_on_cuda() ? "cuda" : "cpu");
    put_text(at("run"), run);
    free(tiny), free(run);
    str_free(&questions);
}

// select writes the same bytes at one rank and at two, and its scores are those that `grpo reward` gives the same
// texts.
static void ranks_score_alike(void **state) {
    put_run();
    const char *select = "select $(cat run | tr -d '\\n') train_file=q.jsonl select_samples=3 "
                         "select_rules=reward_model:min=-100 select_output=%s %s";
    if (grpo(select, "one", "")) fail_msg("%s", said);
    char *one = text_in(at("one/samples.jsonl")), *line = strchr(one, '\n') + 1;
    if (!test_on_cuda()) {
        if (grpo(select, "two", "gpus=2")) fail_msg("%s", said);
        char *two = text_in(at("two/samples.jsonl"));
        assert_string_equal(strchr(two, '\n') + 1, line);
        free(two);
    }
    Str lines = {0};
    float want[18];
    int n = 0;
    for (; *line; line += strcspn(line, "\n") + 1) {
        json_t *j = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL), *sent = json_object();
        want[n++] = (float)json_number_value(json_object_get(json_object_get(j, "scores"), "reward_model"));
        json_object_set(sent, "prompt", json_object_get(j, "question"));
        json_object_set(sent, "completion", json_object_get(j, "completion"));
        char *text = json_dumps(sent, 0);
        str_printf(&lines, "%s\n", text);
        json_decref(j), json_decref(sent), free(text);
    }
    assert_int_equal(n, 18);
    put_text(at("texts.jsonl"), lines.s);
    if (grpo("reward reward_model:model=rm,part=completion,scale=2 texts.jsonl dtype=f32 device=%s",
             test_on_cuda() ? "cuda" : "cpu"))
        fail_msg("%s", said);
    const char *out = said;
    for (int i = 0; i < n; i++, out = strchr(out, '\n') + 1) {
        float got;
        assert_int_equal(sscanf(out, "{\"reward\": %f}", &got), 1);
        assert_memory_equal(&got, &want[i], sizeof got);
        assert_true(i < 3 || want[i] != want[i - 3]);
    }
    str_free(&lines);
    free(one);
}

// train logs its mean, and eval prints it; `plan` counts its memory; a stopped run goes on to the same bytes.
static void commands_score_by_it(void **state) {
    put_run();
    if (grpo("eval $(cat run) eval_file=q.jsonl")) fail_msg("%s", said);
    assert_non_null(strstr(said, "\"reward_model\": "));
    const char *train = "train $(cat run) train_file=q.jsonl num_generations=4 per_device_train_batch_size=4 "
                        "gradient_accumulation_steps=2 save_steps=1 max_steps=%d output_dir=%s eval_file=q.jsonl "
                        "eval_steps=2 learning_rate=1e-3 lr_scheduler_type=constant";
    if (grpo(train, 2, "straight") || grpo(train, 1, "cut") || grpo(train, 2, "cut")) fail_msg("%s", said);
    char *log = text_in(at("straight/metrics.jsonl"));
    assert_non_null(strstr(log, "\"rewards/reward_model/mean\": "));
    free(log);
    if (grpo("reward --list && cmp straight/step_2/model.safetensors cut/step_2/model.safetensors && "
             "cmp straight/completions.jsonl cut/completions.jsonl"))
        fail_msg("%s", said);
    if (grpo("plan $(cat run) per_device_train_batch_size=8 num_generations=4")) fail_msg("%s", said);
    assert_non_null(strstr(said, "rewards' models: weights"));
    assert_int_equal(grpo("eval $(cat run) eval_file=q.jsonl eval_grader=reward_model:model=rm"), EXIT_CONFIG);
    assert_non_null(strstr(said, "eval_grader: reward_model gives scores of any size"));
    assert_int_equal(grpo("eval $(cat run) eval_file=q.jsonl model=rm"), EXIT_CONFIG);
    assert_non_null(strstr(said, "model: rm is a reward model, which writes no text"));
    assert_int_equal(grpo("reward xmlcount texts.jsonl dtype=f32"), EXIT_CONFIG);
    assert_non_null(strstr(said, "is given by no model, and reads no option like dtype=f32"));
}

// An adapter that scores beside the policy: ranks, a stopped run, and word of another model that it stands beside.
static void commands_score_by_an_adapter(void **state) {
    put_run();
    put_adapter("peft", json_object_get(case_with_adapter(), "adapter"), "rm");
    const char *train = "train $(sed s/model=rm/model=peft/ run) train_file=q.jsonl num_generations=4 "
                        "per_device_train_batch_size=4 gradient_accumulation_steps=%d save_steps=1 max_steps=%d "
                        "output_dir=%s learning_rate=1e-3 lr_scheduler_type=constant progress=plain gpus=%d";
    if (grpo(train, 2, 2, "straight", 1) || grpo(train, 2, 1, "cut", 1) || grpo(train, 2, 2, "cut", 1))
        fail_msg("%s", said);
    assert_null(strstr(said, "are another judge's"));
    if (!test_on_cuda() &&
        (grpo(train, 1, 1, "two", 2) || grpo("reward --list && head -n 8 straight/completions.jsonl | "
                                             "cmp - two/completions.jsonl")))
        fail_msg("%s", said);
    if (grpo("reward --list && cmp straight/step_2/model.safetensors cut/step_2/model.safetensors && "
             "cmp straight/completions.jsonl cut/completions.jsonl && "
             "grep -q rewards/reward_model/mean straight/metrics.jsonl && echo >> rm/config.json") ||
        grpo(train, 2, 3, "cut", 1))
        fail_msg("%s", said);
    assert_non_null(strstr(said, "are another judge's"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(scores_are_transformers, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(an_adapters_scores_are_pefts, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(scores_do_not_depend_on_the_batch, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(long_texts_abstain, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(other_models_are_refused, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(other_heads_are_refused, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(ranks_score_alike, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(commands_score_by_it, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(commands_score_by_an_adapter, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, read_golden, drop_golden);
}
