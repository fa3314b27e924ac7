// grpo reward_model: loss and gradients of TRL's RewardTrainer (tools/golden.py reward), resuming, ranks, what it
// saves.
#include "adapter_case.h"
#include "on_device.h"
#include "reward_case.h"
#include "scratch_run.h"
#include "train.h"

static const char *device(void) { return test_on_cuda() ? "cuda" : "cpu"; }

static double metric(const char *path, const char *name) {
    json_t *line = json_load_file(path, JSON_DISABLE_EOF_CHECK, NULL);
    double value = json_number_value(json_object_get(line, name));
    if (!json_object_get(line, name)) fail_msg("%s: no %s", path, name);
    json_decref(line);
    return value;
}

// ---- TRL ------------------------------------------------------------------------------------------------------------

// A run on the golden's pairs, from its weights.
static void run_on_pairs(const json_t *run, const char *options) {
    Str rows = {0};
    const json_t *pair;
    size_t k;
    json_array_foreach(json_object_get(golden, "pairs"), k, pair) {
        json_t *row = json_pack("{s:O, s:O, s:O}", "prompt", json_array_get(pair, 0), "chosen", json_array_get(pair, 1),
                                "rejected", json_array_get(pair, 2));
        if (json_is_true(json_object_get(run, "margin"))) json_object_set(row, "margin", json_array_get(pair, 3));
        char *text = json_dumps(row, 0);
        str_printf(&rows, "%s\n", text);
        free(text), json_decref(row);
    }
    put_text(at("pairs.jsonl"), rows.s);
    str_free(&rows);
    if (shell("rm -rf run; grpo reward_model model=rm device=%s dtype=f32 raw=true max_length=256 "
              "train_file=pairs.jsonl output_dir=run "
              "max_grad_norm=0 progress=off report=false center_rewards_coefficient=%.3g %s",
              device(), json_number_value(json_object_get(run, "center")), options))
        fail_msg("%s", said);
}

// The first step's first moments, which are the gradients, times 1 - beta1; heap.
static float *first_moments(size_t bytes) {
    size_t n;
    float *moment = (float *)file_read(at("run/step_1/state/moment1.bin"), 1 << 26, &n, NULL);
    assert_int_equal(n, bytes);
    return moment;
}

static void step_is_trl(const json_t *one, const json_t *run, const char *options) {
    char *alone = xasprintf("max_steps=1 %s", options);
    run_on_pairs(run, alone);
    free(alone);
    double loss = json_number_value(json_object_get(run, "loss"));
    if (!(off_by(metric(at("run/metrics.jsonl"), "loss"), loss) <= 1e-5))
        fail_msg("loss %.9g, not %.9g", metric(at("run/metrics.jsonl"), "loss"), loss);
    HfConfig hf;
    assert_true(hf_config_read(at("rm"), &hf, NULL));
    Model m = model_make(hf.dims, F32, 0);
    float *moment = first_moments(tensor_bytes(m.slab));
    for (int i = 0; i < m.n_params; i++) {
        const json_t *want = json_object_get(json_object_get(run, "gradients"), m.params[i].name),
                     *index = json_object_get(want, "index");
        double error = 0, norm = 0, all = 0;
        for (int64_t j = 0; j < tensor_numel(m.params[i].t); j++)
            all += pow(10 * (double)moment[m.params[i].offset + j], 2);
        for (size_t k = 0; k < json_array_size(index); k++) {
            double x = json_number_value(json_array_get(json_object_get(want, "value"), k));
            error += pow(10 * (double)moment[m.params[i].offset + json_integer_value(json_array_get(index, k))] - x, 2);
            norm += x * x;
        }
        double whole = json_number_value(json_object_get(want, "norm"));
        if (!(norm > 0 && sqrt(error / norm) <= 1e-5 && fabs(sqrt(all) - whole) <= 1e-5 * whole))
            fail_msg("%s: gradient off by %g, its norm is %.9g, not %.9g", m.params[i].name, sqrt(error / norm),
                     sqrt(all), whole);
    }
    free(moment);
    model_drop(&m);
}

static void loss_and_gradients_are_trls(void **state) {
    const json_t *one, *run;
    size_t i, k;
    int runs = 0;
    json_array_foreach(json_object_get(golden, "cases"), i, one) {
        put_reward_model("rm", one);
        json_array_foreach(json_object_get(one, "training"), k, run) {
            step_is_trl(one, run, "per_device_train_batch_size=4 gradient_accumulation_steps=1");
            step_is_trl(one, run, "per_device_train_batch_size=2 gradient_accumulation_steps=2 share_prompts=false");
            if (!test_on_cuda())
                step_is_trl(one, run, "per_device_train_batch_size=1 gradient_accumulation_steps=2 gpus=2");
            runs++;
        }
    }
    assert_int_equal(runs, 3);
}

// From PEFT's adapter with its score head: every loss, the first gradients, and what the steps make of it.
static void adapter_is_trls(const json_t *golden_run, const char *options) {
    const json_t *adam = json_object_get(golden_run, "adam"), *losses = json_object_get(golden_run, "losses"), *loss;
    int steps = (int)json_array_size(losses);
    char *all = xasprintf("adapter=peft max_steps=%d save_steps=1 save_total_limit=%d lr_scheduler_type=constant "
                          "learning_rate=%g adam_epsilon=%g weight_decay=%g %s",
                          steps, steps, json_number_value(json_object_get(adam, "lr")),
                          json_number_value(json_object_get(adam, "eps")),
                          json_number_value(json_object_get(adam, "weight_decay")), options);
    run_on_pairs(golden_run, all);
    free(all);
    FILE *log = fopen(at("run/metrics.jsonl"), "r");
    assert_non_null(log);
    size_t k;
    json_array_foreach(losses, k, loss) {
        json_t *line = json_loadf(log, JSON_DISABLE_EOF_CHECK, NULL);
        double got = json_number_value(json_object_get(line, "loss")), want = json_number_value(loss);
        if (!(off_by(got, want) <= 1e-5)) fail_msg("loss %.9g of step %zu, PEFT's is %.9g", got, k + 1, want);
        json_decref(line);
    }
    fclose(log);
    HfConfig hf;
    AdapterSpec spec;
    Error e = {0};
    Device *d = device_open(DEVICE_CPU, 0, 1, CPU_ISA_AUTO, &e);
    assert_true(hf_config_read(at("rm"), &hf, &e) && adapter_describe(at("run/step_%d", steps), &spec, &e));
    assert_true(spec.scores);
    Adapter *a = adapter_make(hf.dims, &spec);
    float *moment = first_moments(tensor_bytes(a->slab));
    for (int64_t i = 0; i < a->slab.dim[0]; i++) f32(a->slab)[i] = 10 * moment[i];
    double error = samples_error(a, json_object_get(golden_run, "gradients"));
    if (!(error < 1e-4)) fail_msg("%s: gradients are off by %g", options, error);
    if (!adapter_read(at("run/step_%d", steps), d, a, &e)) fail_msg("%s", e.text);
    error = samples_error(a, json_object_get(golden_run, "after"));
    if (!(error < 1e-5)) fail_msg("%s: after %d steps off by %g", options, steps, error);
    free(moment), adapter_drop(a);
    device_close(d);
}

static void an_adapter_learns_as_pefts(void **state) {
    const json_t *one = case_with_adapter(), *adapter = json_object_get(one, "adapter");
    put_reward_model("rm", one);
    put_adapter("peft", adapter, "rm");
    adapter_is_trls(adapter, "per_device_train_batch_size=4 gradient_accumulation_steps=1");
    if (test_on_cuda()) return; // ten steps take their time under emulation
    adapter_is_trls(adapter, "per_device_train_batch_size=2 gradient_accumulation_steps=2 share_prompts=false");
    adapter_is_trls(adapter, "per_device_train_batch_size=1 gradient_accumulation_steps=2 gpus=2");
}

// ---- a run ----------------------------------------------------------------------------------------------------------

// Polite answers are preferred, as texts or as messages.
static void put_pairs(const char *name, int from, int n) {
    Str rows = {0};
    for (int i = from; i < from + n; i++)
        str_printf(
            &rows,
            i % 2
                ? "{\"prompt\": [{\"role\": \"user\", \"content\": \"Ask %d?\"}], \"chosen\": [{\"role\": "
                  "\"assistant\", \"content\": "
                  "\"Of course: %d, please.\"}], \"rejected\": [{\"role\": \"assistant\", \"content\": \"No, %d.\"}]}\n"
                : "{\"prompt\": \"Ask %d?\", \"chosen\": \"Of course: %d, please.\", \"rejected\": \"No, %d.\"}\n",
            i, i * 7 % 50, i * 3 % 40);
    put_text(at("%s", name), rows.s);
    str_free(&rows);
}

static const char run[] =
    "grpo reward_model model=tiny init=%s dtype=f32 device=%s train_file=pairs.jsonl eval_file=held.jsonl "
    "learning_rate=1e-3 max_length=96 per_device_train_batch_size=4 gradient_accumulation_steps=2 "
    "progress=off report=false save_steps=5 threads=1 ";

static void put_run(void) {
    char *tiny = xasprintf("%s/models/tiny", getenv("PWD"));
    assert_int_equal(symlink(tiny, at("tiny")), 0);
    free(tiny);
    put_pairs("pairs.jsonl", 0, 64);
    put_pairs("held.jsonl", 100, 20);
}

// The scores of a polite and of a rude answer.
static void answers_scored(const char *model, float score[2]) {
    put_text(at("texts.jsonl"), "{\"prompt\": \"Ask 3?\", \"completion\": \"Of course: 8, please.\"}\n"
                                "{\"prompt\": \"Ask 3?\", \"completion\": \"No, 8.\"}\n");
    if (shell("grpo reward reward_model:model=%s texts.jsonl dtype=f32 device=%s", model, device()))
        fail_msg("%s", said);
    if (sscanf(said, "{\"reward\": %f} {\"reward\": %f}", &score[0], &score[1]) != 2) fail_msg("%s", said);
}

// From a causal model: it learns, is stopped and goes on to the same bytes, and is a reward model then.
static void a_run_learns_and_resumes(void **state) {
    put_run();
    char *start = xasprintf(run, "random", device());
    if (shell("%s max_steps=20 eval_steps=5 output_dir=straight", start)) fail_msg("%s", said);
    if (shell("grep eval/accuracy straight/metrics.jsonl | tail -1 | grep '\"eval/accuracy\": 1[,}]'"))
        fail_msg("%s", said);
    if (shell("%s max_steps=20 eval_steps=5 lr_scheduler_type=constant output_dir=a && "
              "%s max_steps=10 eval_steps=5 lr_scheduler_type=constant output_dir=b && "
              "%s max_steps=20 eval_steps=5 lr_scheduler_type=constant output_dir=b && "
              "cmp a/step_20/model.safetensors b/step_20/model.safetensors && "
              "cmp a/step_20/state/moment2.bin b/step_20/state/moment2.bin",
              start, start, start))
        fail_msg("%s", said);
    // Two ranks share the held-out pairs, and the first tells of them.
    if (shell("%s max_steps=1 gradient_accumulation_steps=1 output_dir=two gpus=2 && "
              "%s max_steps=1 output_dir=one && tail -n 1 two/metrics.jsonl && tail -n 1 one/metrics.jsonl",
              start, start))
        fail_msg("%s", said);
    double loss[2];
    assert_int_equal(
        sscanf(said, "{\"step\": 1, \"eval/loss\": %lf%*[^\n] {\"step\": 1, \"eval/loss\": %lf", loss, loss + 1), 2);
    assert_true(off_by(loss[0], loss[1]) <= 1e-5);
    free(start);
    HfConfig hf;
    Error e = {0};
    if (!hf_config_read(at("straight/step_20"), &hf, &e)) fail_msg("%s", e.text);
    assert_true(hf.dims.scores && hf.dims.padded && hf.dims.pad == 509);
    float scored[2];
    answers_scored("straight/step_20", scored);
    assert_true(scored[0] > scored[1] + 1);
    // Its own directory can be trained on, and the head is the one that was there.
    if (shell("grpo reward_model model=straight/step_20 dtype=f32 device=%s train_file=pairs.jsonl max_length=96 "
              "max_steps=1 "
              "learning_rate=0 output_dir=on progress=off report=false && "
              "cmp on/step_1/model.safetensors straight/step_20/model.safetensors",
              device()))
        fail_msg("%s", said);
}

// Beside a causal model whose weights are files: `base`.
static void put_base(void) {
    put_run();
    put_text(at("rows.jsonl"), "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
    if (shell("grpo sft model=tiny init=random dtype=f32 device=%s train_file=rows.jsonl max_steps=1 learning_rate=0 "
              "per_device_train_batch_size=1 raw=true output_dir=made progress=off report=false && "
              "mv made/step_1 base && rm -r base/state base/manifest.json",
              device()))
        fail_msg("%s", said);
}

static const char adapter_run[] =
    "grpo reward_model model=base dtype=%s device=%s train_file=pairs.jsonl eval_file=held.jsonl learning_rate=0.01 "
    "max_length=96 per_device_train_batch_size=4 gradient_accumulation_steps=2 lr_scheduler_type=constant "
    "progress=off report=false save_steps=5 threads=1 ";

// A new adapter and a new head learn beside a frozen model, are stopped and go on to the same bytes, score as they
// stand and merged, and are gone on with.
static void an_adapters_run_learns_and_resumes(void **state) {
    put_base();
    for (int half = 0; half < (test_on_cuda() ? 1 : 2); half++) {
        char *start = xasprintf(adapter_run, half ? "bf16" : "f32", device());
        if (shell("rm -rf a b; %s lora_r=4 lora_alpha=9 max_steps=10 output_dir=a && "
                  "%s lora_r=4 lora_alpha=9 max_steps=5 output_dir=b && "
                  "%s lora_r=4 lora_alpha=9 max_steps=10 output_dir=b && "
                  "cmp a/step_10/adapter_model.safetensors b/step_10/adapter_model.safetensors && "
                  "cmp a/step_10/state/moment1.bin b/step_10/state/moment1.bin && "
                  "cmp a/step_10/state/moment2.bin b/step_10/state/moment2.bin",
                  start, start, start))
            fail_msg("%s", said);
        if (shell("grep eval/accuracy a/metrics.jsonl | tail -1 | grep '\"eval/accuracy\": 1[,}]'"))
            fail_msg("%s", said);
        assert_true(!exists(at("a/step_10/model.safetensors")) && !exists(at("a/step_10/state/master.bin")));
        free(start);
    }
    char *start = xasprintf(adapter_run, "f32", device()), *lora = xasprintf("%slora_r=4 lora_alpha=9", start);
    if (shell("rm -rf a; %s max_steps=10 output_dir=a && grpo merge model=base adapter=a/step_10 merge_output=merged "
              "dtype=f32 device=%s",
              lora, device()))
        fail_msg("%s", said);
    float beside[2], merged[2];
    answers_scored("a/step_10", beside);
    answers_scored("merged", merged);
    assert_true(beside[0] > beside[1] + 1);
    for (int k = 0; k < 2; k++) assert_true(off_by(merged[k], beside[k]) <= 1e-5);
    // An adapter that is given goes on, beside the model that it was trained beside alone.
    if (shell("%s adapter=a/step_10 max_steps=1 learning_rate=0 output_dir=on && "
              "cmp a/step_10/adapter_model.safetensors on/step_1/adapter_model.safetensors",
              start))
        fail_msg("%s", said);
    assert_int_equal(shell("%s adapter=a/step_10 model=merged max_steps=1 output_dir=off", start), EXIT_INPUT);
    assert_non_null(strstr(said, "an adapter of another base"));
    // A classifier's own head is where training begins; beside it the adapter of the causal model is as before.
    if (shell("%s model=merged lora_r=2 max_steps=1 learning_rate=0 output_dir=own", start)) fail_msg("%s", said);
    answers_scored("own/step_1", beside);
    for (int k = 0; k < 2; k++) assert_true(off_by(merged[k], beside[k]) <= 1e-5);
    free(start), free(lora);
}

// Of gradients, moments and masters there are those of the adapter and the head alone.
static void an_adapters_memory_is_its_own(void **state) {
    put_base();
    char *start = xasprintf(adapter_run, "bf16", device());
    if (shell("%s lora_r=4 max_steps=1 output_dir=a && wc -c < a/step_1/state/moment1.bin", start))
        fail_msg("%s", said);
    HfConfig hf;
    AdapterSpec spec;
    Error e = {0};
    assert_true(hf_config_read(at("base"), &hf, &e) && adapter_describe(at("a/step_1"), &spec, &e));
    Arena measure = arena_measure();
    Adapter *a = adapter_carve(&measure, hf.dims, &spec);
    int64_t head = hf.dims.D, low = 0;
    for (int i = 0; i + 1 < a->n_params; i++) low += tensor_numel(a->params[i].t);
    assert_int_equal(a->slab.dim[0], low + head);
    assert_int_equal(strtoll(said, NULL, 10), (low + head) * 4);
    adapter_free(a);
    free(start);
}

// What stands where the other kind belongs is refused, by one line.
static void adapters_of_the_other_kind_are_refused(void **state) {
    static const struct {
        const char *command, *said;
    } cases[] = {
        {"grpo sft adapter=rm train_file=rows.jsonl max_steps=1 output_dir=out raw=true",
         "adapter: rm is a reward model's (it has a score head)"},
        {"grpo train adapter=rm train_file=q.jsonl rewards=correctness num_generations=2 max_steps=1 output_dir=out "
         "raw=true",
         "adapter: rm is a reward model's (it has a score head)"},
        {"grpo sample adapter=rm prompt=a", "`grpo merge` makes a reward model of it and base"},
        {"grpo eval adapter=rm eval_file=q.jsonl rewards=correctness", "adapter: rm is a reward model's"},
        {"grpo reward_model adapter=sft train_file=pairs.jsonl max_length=96 max_steps=1 output_dir=out",
         "adapter: sft has no score head"},
        {"grpo reward_model lora_r=2 train_file=pairs.jsonl max_length=96 max_steps=2 output_dir=b progress=off",
         "with another head"},
        {"grpo eval eval_file=q.jsonl rewards=reward_model:model=sft", "sft: is an adapter without a score head"},
        {"grpo eval eval_file=q.jsonl rewards=judge_model:model=rm", "rm: is an adapter; `grpo merge`"},
        {"grpo eval eval_file=q.jsonl rewards=reward_model:model=lost", "\"base_model_name_or_path\", nowhere"},
    };
    put_base();
    put_text(at("q.jsonl"), "{\"question\": \"Ask 1?\", \"answer\": \"#### 1\"}\n");
    char *start = xasprintf(adapter_run, "f32", device());
    if (shell("%s lora_r=2 max_steps=1 output_dir=a && mv a/step_1 rm && cp -r rm lost && "
              "sed -i 's/: \"base\"/: \"nowhere\"/' lost/adapter_config.json && "
              "grpo sft model=base dtype=f32 device=%s train_file=rows.jsonl max_steps=1 lora_r=2 raw=true "
              "per_device_train_batch_size=1 output_dir=b progress=off report=false && cp -r b/step_1 sft",
              start, device()))
        fail_msg("%s", said);
    free(start);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = shell("%s model=base dtype=f32 device=%s", cases[i].command, device());
        if (!code || !strstr(said, cases[i].said) || strchr(said, '\n') != strrchr(said, '\n'))
            fail_msg("%s: exit code %d, %s", cases[i].command, code, said);
    }
}

// A pipeline trains one and scores by it.
static void put_pipeline(const char *phases) {
    put_text(at("q.jsonl"), "{\"question\": \"Ask 1?\", \"answer\": \"#### 1\"}\n");
    char *text = xasprintf(
        "output_dir: out\ndevice: %s\ndtype: f32\nprogress: \"off\"\nreport: false\nmax_length: 96\nmax_steps: 2\n"
        "per_device_train_batch_size: 4\ngradient_accumulation_steps: 1\nphases:\n%s",
        device(), phases);
    put_text(at("p.yaml"), text);
    free(text);
}

static const char look[] = "  - {name: look, command: eval, model: %s, init: %s, eval_file: q.jsonl, "
                           "max_completion_length: 8, rewards: [{name: reward_model, model: \"${rm}\"}]}\n";

static void a_pipeline_trains_one(void **state) {
    put_run();
    char *last = xasprintf(look, "tiny", "random"),
         *phases = xasprintf(
             "  - {name: rm, command: reward_model, model: tiny, init: random, train_file: pairs.jsonl}\n%s", last);
    put_pipeline(phases);
    free(last), free(phases);
    if (shell("grpo run p.yaml && grpo run p.yaml && cat out/look.json out/pipeline.json")) fail_msg("%s", said);
    assert_non_null(strstr(said, "\"reward_model\": "));
    assert_non_null(strstr(said, "\"rewards.reward_model\": {"));
    if (shell("echo >> out/rm/step_2/config.json; grpo run p.yaml") == 0) fail_msg("a changed reward model is taken");
}

// An adapter of it goes on in two phases, and scores in another; one of a model that writes is refused before anything
// runs.
static void a_pipeline_trains_an_adapter(void **state) {
    put_base();
    char *last = xasprintf(look, "base", "load"),
         *phases = xasprintf(
             "  - {name: first, command: reward_model, model: base, train_file: pairs.jsonl, lora_r: 2}\n"
             "  - {name: second, command: reward_model, model: base, adapter: \"${first}\", train_file: pairs.jsonl}\n"
             "  - {name: rm, command: reward_model, model: base, adapter: \"${second}\", train_file: pairs.jsonl}\n%s",
             last);
    put_pipeline(phases);
    if (shell("grpo run p.yaml && grpo run p.yaml && cat out/look.json")) fail_msg("%s", said);
    assert_non_null(strstr(said, "\"reward_model\": "));
    assert_true(exists(at("out/rm/step_2/adapter_model.safetensors")));
    free(phases);
    phases = xasprintf(
        "  - {name: first, command: sft, model: base, train_file: rows.jsonl, raw: true, lora_r: 2}\n"
        "  - {name: rm, command: reward_model, model: base, adapter: \"${first}\", train_file: pairs.jsonl}\n%s",
        last);
    put_pipeline(phases);
    assert_int_equal(shell("rm -r out; grpo run p.yaml"), EXIT_CONFIG);
    assert_non_null(
        strstr(said, "phase first makes an adapter of a model that writes, and phase rm runs one that scores"));
    assert_true(!exists(at("out/first")));
    free(last), free(phases);
}

static void mistakes_are_said(void **state) {
    static const struct {
        const char *row, *options, *said;
        int code;
    } cases[] = {
        {"{\"prompt\": \"a\", \"chosen\": \"b\"}", "",
         "pairs.jsonl:1: \"rejected\" is neither a text nor a list of messages", EXIT_INPUT},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": [1]}", "", "pairs.jsonl:1", EXIT_INPUT},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\", \"margin\": 1e300}", "",
         "\"margin\" is 1e+300, more than", EXIT_INPUT},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\", \"margin\": \"1\"}", "",
         "\"margin\" is no number", EXIT_INPUT},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": [{\"role\": \"assistant\", \"content\": \"c\"}]}",
         "raw=true", "\"rejected\" is no text; with raw=true all are", EXIT_INPUT},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": 18446744073709551616}", "",
         "\"rejected\" is neither a text nor a list of messages", EXIT_INPUT},
        {"{\"prompt\": \"a\", \"chosen\": 18446744073709551616, \"rejected\": \"c\"}", "raw=true",
         "\"chosen\" is no text; with raw=true all are", EXIT_INPUT},
        {"{\"prompt\": 1e999, \"chosen\": \"b\", \"rejected\": \"c\"}", "raw=true",
         "\"prompt\" is no text; with raw=true all are", EXIT_INPUT},
        {"{\"prompt\": \"a\\u0000b\", \"chosen\": \"b\", \"rejected\": \"c\"}", "raw=true",
         "\"prompt\" holds a NUL character", EXIT_INPUT},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "max_length=8", "max_length is 8", EXIT_INPUT},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "eval_steps=1", "eval_file is not set",
         EXIT_CONFIG},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "max_length=4096",
         "more than the model's context", EXIT_CONFIG},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "chosen_field=good", "\"good\" is neither",
         EXIT_INPUT},
    };
    put_run();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *row = xasprintf("%s\n", cases[i].row);
        put_text(at("pairs.jsonl"), row);
        free(row);
        int code = shell("grpo reward_model model=tiny init=random dtype=f32 device=%s train_file=pairs.jsonl "
                         "max_length=96 max_steps=1 "
                         "output_dir=out progress=off report=false %s",
                         device(), cases[i].options);
        if (code != cases[i].code || !strstr(said, cases[i].said))
            fail_msg("case %zu: exit code %d, %s", i, code, said);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(loss_and_gradients_are_trls, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(an_adapter_learns_as_pefts, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_run_learns_and_resumes, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(an_adapters_run_learns_and_resumes, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(an_adapters_memory_is_its_own, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(adapters_of_the_other_kind_are_refused, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_pipeline_trains_one, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_pipeline_trains_an_adapter, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(mistakes_are_said, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, read_golden, drop_golden);
}
