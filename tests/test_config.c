// Configurations: what is read, and what is refused and where. What is printed: test_config_print.c.
#include "config_text.h"
#include "str.h"

static void defaults_are_the_tables(void **state) {
    Config c, d = read_good("", NULL, 0);
    Error e;
    assert_true(config_read(&c, NULL, NULL, 0, &e));
    assert_string_equal(c.model, "");
    assert_int_equal(c.dtype, DTYPE_BF16);
    assert_int_equal(c.num_generations, 8);
    assert_true(c.beta == 0.04 && c.learning_rate == 5e-6 && c.shuffle && !c.raw);
    assert_int_equal(c.rewards.n, 5);
    assert_string_equal(c.rewards.item[4], "xmlcount");
    assert_int_equal(c.stop.n, 0);
    char *a = config_yaml(&c), *b = config_yaml(&d);
    assert_string_equal(a, b);
    free(a);
    free(b);
    config_free(&c);
    config_free(&d);
}

static void values_of_every_kind(void **state) {
    Config c = read_good("model: models/tiny # a comment\n"
                         "\n"
                         "beta: 0\n"
                         "learning_rate: 1e-6\n"
                         "num_generations: 16\n"
                         "shuffle: false\n"
                         "loss_type: dr_grpo\n"
                         "dtype: 'f32'\n"
                         "answer_marker: '####'\n"
                         "question_field: true\n"
                         "system_prompt: |\n"
                         "  one\n"
                         "  two: 2\n"
                         "prompt: null\n"
                         "eval_output:\n"
                         "stop: [\"a, b\", c]\n"
                         "rewards:\n"
                         "  - correctness\n"
                         "  - {name: int, weight: 0.5}\n",
                         NULL, 0);
    assert_string_equal(c.model, "models/tiny");
    assert_true(c.beta == 0 && c.learning_rate == 1e-6);
    assert_int_equal(c.num_generations, 16);
    assert_false(c.shuffle);
    assert_int_equal(c.loss_type, 2);
    assert_int_equal(c.dtype, DTYPE_F32);
    assert_string_equal(c.answer_marker, "####");
    assert_string_equal(c.question_field, "true");
    assert_string_equal(c.system_prompt, "one\ntwo: 2\n");
    assert_string_equal(c.prompt, "");
    assert_string_equal(c.eval_output, "");
    assert_int_equal(c.stop.n, 2);
    assert_string_equal(c.stop.item[0], "a, b");
    assert_int_equal(c.rewards.n, 2);
    assert_string_equal(c.rewards.item[1], "int:weight=0.5");
    config_free(&c);
    c = read_good("\ufeffbeta: 0.5\r\nmodel: \"a\\tb\"\r\nrewards: [\r\n  correctness\r\n]\r\n", NULL, 0);
    assert_true(c.beta == 0.5);
    assert_string_equal(c.model, "a\tb");
    assert_int_equal(c.rewards.n, 1);
    config_free(&c);
    c = read_good("seed: 9007199254740991\nentropy_coef: -.5e0\ntop_p: 1.\nepsilon_high: -1\nadam_epsilon: +0.0\n",
                  NULL, 0);
    assert_true(c.seed == 9007199254740991 && c.entropy_coef == -0.5 && c.top_p == 1 && c.epsilon_high == -1);
    config_free(&c);
}

static void mistakes_name_their_line(void **state) {
    BAD("beta: 1\nbetta: 2\n", "run.yaml:2", "no option `betta`; did you mean `beta`?");
    BAD("num_generation: 2\n", "run.yaml:1", "did you mean `num_generations`?");
    BAD("learning-rate: 1\n", "run.yaml:1", "did you mean `learning_rate`?");
    BAD("Temperature: 1\n", "run.yaml:1", "did you mean `temperature`?");
    BAD("qqqqqqqq: 1\n", "run.yaml:1", "`grpo config` lists all");
    BAD("reward_funcs: [a]\n", "run.yaml:1", "write rewards; the name is TRL's");
    BAD("vllm_importance_sampling_correction: true\n", "run.yaml:1", "one number");
    BAD("phases:\n  - {name: a, command: sft}\n", "run.yaml:1", "`grpo run FILE`");
    BAD("vllm_gpu_memory_utilization: 0.3\n", "run.yaml:1", "no second engine samples");
    BAD("eval_strategy: steps\n", "run.yaml:1", "no option `eval_strategy`: write eval_file");
    BAD("use_cache: true\n", "run.yaml:1", "no option `use_cache`: leave it out");
    BAD("lora_target_modules: [q_proj]\n", "run.yaml:1", "write lora_target");
    BAD("lora_r: 8\nlora_target: [q_poj]\n", "run.yaml:2", "did you mean `q_proj`?");
    BAD("lora_r: 8\nlora_target: [all-linear, q_proj]\n", "run.yaml:2",
        "all-linear is every projection; write it alone");
    BAD("lora_r: 8\nlora_target: []\n", "run.yaml:2", "lora_target is empty");
    BAD("lora_r: 8\nlora_dropout: 0.05\n", "run.yaml:2", "only 0 is there");
    BAD("lora_alpha: 8\n", "run.yaml:1", "lora_alpha is set, but lora_r is 0");
    BAD("lora_r: 8\nadapter: DIR\n", "run.yaml:2", "keep one of them");
    BAD("lora_r: 8\nsync_ref_model: true\nbeta: 0.1\n", "run.yaml:2", "do not move");
    BAD("adapter: DIR\nsync_ref_model: true\nbeta: 0.1\n", "run.yaml:2", "do not move");
    BAD("lora_r: 8\nreference_weights: reload\nbeta: 0.1\n", "run.yaml:2", "they are the policy's own");
    BAD("lora_r: 8\noptim_dtype: f32_split\n", "run.yaml:2", "an adapter is f32");
    BAD("grad_dtype: bf16\nlora_r: 8\n", "run.yaml:1", "whose gradients are f32");
    BAD("lr: 8\n", "run.yaml:1", "write learning_rate");
    BAD("beta: 1\n\nbeta: 2\n", "run.yaml:3", "given twice; first on line 1");
    BAD("shuffle: yes\n", "run.yaml:1", "shuffle wants true or false, not `yes`");
    BAD("shuffle: True\n", "run.yaml:1", "wants true or false");
    BAD("shuffle: \"true\"\n", "run.yaml:1", "without quotes");
    BAD("seed: 1e6\n", "run.yaml:1", "digits only");
    BAD("seed: 1.0\n", "run.yaml:1", "digits only");
    BAD("seed: 010\n", "run.yaml:1", "leading zero");
    BAD("seed: 0x10\n", "run.yaml:1", "whole number");
    BAD("seed: 1_000\n", "run.yaml:1", "whole number");
    BAD("seed: +5\n", "run.yaml:1", "whole number");
    BAD("seed: '5'\n", "run.yaml:1", "without quotes");
    BAD("seed: -1\n", "run.yaml:1", "outside its range 0 to 9007199254740991");
    BAD("seed: 99999999999999999999\n", "run.yaml:1", "outside its range");
    BAD("seed: 9007199254740992\n", "run.yaml:1", "outside its range");
    BAD("beta: .inf\n", "run.yaml:1", "wants a number");
    BAD("beta: nan\n", "run.yaml:1", "wants a number");
    BAD("beta: 0x1p3\n", "run.yaml:1", "wants a number");
    BAD("beta: 1e\n", "run.yaml:1", "wants a number");
    BAD("beta: .\n", "run.yaml:1", "wants a number");
    BAD("beta: 1e999\n", "run.yaml:1", "outside its range 0 to 100");
    BAD("top_p: 1.01\n", "run.yaml:1", "outside its range 0 to 1");
    BAD("beta:\n", "run.yaml:1", "beta has no value");
    BAD("delta: null\n", "run.yaml:1", "leave the line out for the default");
    BAD("rewards:\n# - int\n", "run.yaml:1", "write [] for an empty list");
    BAD("dtype: bf17\n", "run.yaml:1", "one of f32|bf16, not `bf17`; did you mean `bf16`?");
    BAD("loss_type: grop\n", "run.yaml:1", "did you mean `grpo`?");
    BAD("model: [a]\n", "run.yaml:1", "model wants one value, not a list");
    BAD("model: {a: 1}\nbetta: 1\n", "run.yaml:2", "no option");
    BAD("model: \"a\\0b\"\n", "run.yaml:1", "NUL character");
    BAD("\"be\\0ta\": 1\n", "run.yaml:1", "no option");
    BAD("- beta\n", "run.yaml:1", "lines of `option: value`, not a list");
    BAD("beta=1\n", "run.yaml:1", "lines of `option: value`");
    BAD("beta: 1\n 2: 3\n", "run.yaml:2", "not valid YAML");
    BAD("beta: 1\n---\nbeta: 2\n", "run.yaml:2", "second document");
    BAD("beta: 1\nbeta\n", "run.yaml:3", "not valid YAML");
    BAD("beta: 1\nmodel: \0\n", "run.yaml:2", "NUL byte");
    BAD("\x7f"
        "ELF\x02\x01\x01\0\0\0\0",
        "run.yaml:1", "not a text file");
    BAD("beta: &a 1\n", "run.yaml:1", "anchors");
    BAD("rewards: [{name: int, <<: *a}]\n", "run.yaml:1", "aliases");
}

static void files_that_cannot_be_read(void **state) {
    Config c;
    Error e = {0};
    assert_false(config_read(&c, "/nonexistent/a.yaml", NULL, 0, &e));
    assert_int_equal(e.code, EXIT_CONFIG);
    assert_string_equal(
        e.text,
        "/nonexistent/a.yaml: cannot be opened: No such file or directory; check the path, which counts from the "
        "directory you are in");
    assert_false(config_read(&c, folder, NULL, 0, &e));
    assert_int_equal(e.code, EXIT_CONFIG);
    Str big = {0};
    while (big.n <= 1 << 20) str_puts(&big, "# comment\n");
    write_file(big.s, big.n);
    assert_false(config_read(&c, path, NULL, 0, &e));
    assert_non_null(strstr(e.text, "larger than"));
    str_free(&big);
}

static void every_mistake_at_once(void **state) {
    Config c;
    Error e;
    static const char text[] = "bta: 1\nseed: x\nshuffle: 1\nstop: {a: b}\nbeta: 0.1\n";
    write_file(text, sizeof text - 1);
    assert_false(config_read(&c, path, ARGS("top_k=-1", "=1", "num_generations=1"), &e));
    char expected[8][96] = {
        "7 problems:",  "run.yaml:1: ",          "run.yaml:2: ",    "run.yaml:3: ",
        "run.yaml:4: ", "argument 'top_k=-1': ", "argument '=1': ", "argument 'num_generations=1': "};
    char *line = strtok(e.text, "\n");
    for (int i = 0; i < 8; i++, line = strtok(NULL, "\n")) {
        assert_non_null(line);
        if (!strstr(line, expected[i])) fail_msg("%s is not in %s", expected[i], line);
    }
    assert_null(line);
    // More than can be shown.
    Str many = {0};
    for (int i = 0; i < 300; i++)
        str_printf(&many, "unknown_option_number_%d_%s: 1\n", i, i % 2 ? "x" : "with_a_long_name_____");
    write_file(many.s, many.n);
    assert_false(config_read(&c, path, NULL, 0, &e));
    assert_non_null(strstr(e.text, "more than 20 problems:"));
    assert_non_null(strstr(e.text, "number_0_"));
    assert_non_null(strstr(e.text, "\n... and more"));
    assert_true(strlen(e.text) < sizeof e.text - 1);
    str_clear(&many);
    for (int i = 0; i < 30; i++) str_printf(&many, "x%d: 1\n", i);
    write_file(many.s, many.n);
    assert_false(config_read(&c, path, NULL, 0, &e));
    assert_non_null(strstr(e.text, "`x19`"));
    assert_null(strstr(e.text, "`x20`"));
    str_free(&many);
}

static void overrides(void **state) {
    Config c = read_good("beta: 1\nseed: 1\nmodel: a\n", ARGS("seed=2", "seed=3", "model=b c", "beta=0.5"));
    assert_true(c.seed == 3 && c.beta == 0.5);
    assert_string_equal(c.model, "b c");
    config_free(&c);
    // Text is taken as it stands: no YAML in it, but for quotes around the whole.
    c = read_good("", ARGS("prompt=Q: what is # 2+2? {a} [b] - *x", "model=[x]", "tokenizer=\"a\\nb\"", "eval_file='c'",
                           "answer_marker=", "train_file=\"a\" and b", "output_dir=a=b", "eval_output='"));
    assert_string_equal(c.prompt, "Q: what is # 2+2? {a} [b] - *x");
    assert_string_equal(c.model, "[x]");
    assert_string_equal(c.tokenizer, "a\nb");
    assert_string_equal(c.eval_file, "c");
    assert_string_equal(c.answer_marker, "");
    assert_string_equal(c.train_file.item[0].path, "\"a\" and b");
    assert_string_equal(c.output_dir, "a=b");
    assert_string_equal(c.eval_output, "'");
    config_free(&c);
    BAD_ARG("beta", "not of the form key=value");
    BAD_ARG("--beta=1", "without dashes: beta=VALUE");
    BAD_ARG("-x", "without dashes; `grpo COMMAND --help`");
    BAD_ARG("lr=1", "write learning_rate");
    BAD_ARG("bta=1", "did you mean `beta`?");
    BAD_ARG("beta=x", "beta wants a number, not `x`");
    BAD_ARG("beta=", "beta has no value");
    BAD_ARG("beta='1'", "without quotes");
    BAD_ARG("model='a' b'", "not valid YAML");
    assert_bad("", 0, ARGS("model=\xff"), "argument 'model=\\xff'", "not valid UTF-8");
    BAD_ARG("rewards=[int", "not valid YAML");
    BAD_ARG("rewards=[int] x", "not valid YAML");
}

static void lists(void **state) {
    static const struct {
        const char *arg;
        int n;
        char *items[4];
    } cases[] = {
        {"stop=", 0, {NULL}},
        {"stop=[]", 0, {NULL}},
        {"stop=a", 1, {"a"}},
        {"stop=a,b", 2, {"a", "b"}},
        {"stop= a , b c ,d", 3, {"a", "b c", "d"}},
        {"stop='a, b'", 1, {"a, b"}},
        {"stop=[a, 'b, c', \"\\n\"]", 3, {"a", "b, c", "\n"}},
        {"stop=a:x=1,y=2", 1, {"a:x=1,y=2"}},
        {"stop=a:x=1, y=2, b, c:z=3", 3, {"a:x=1, y=2", "b", "c:z=3"}},
        {"stop=a:x=1\\,2,b\\,c", 3, {"a:x=1\\,2", "b\\", "c"}},
        {"stop=[{name: a, weight: 2, x: 1}, b]", 2, {"a:weight=2,x=1", "b"}},
        {"stop={name: a, x: 1}", 1, {"a:x=1"}},
        {"stop=[{x: 1, name: a}]", 1, {"a:x=1"}},
        {"stop=[{name: a}]", 1, {"a"}},
        {"stop=[{name: a, x: 'b, c=\\d', y: e}]", 1, {"a:x=b\\, c=\\d,y=e"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *arg = xstrdup(cases[i].arg);
        Config c = read_good("stop: [x, y]\n", &arg, 1);
        assert_list(&c.stop, cases[i].n, (char **)cases[i].items);
        config_free(&c);
        free(arg);
    }
    BAD("stop:\n  - a\n  - [b]\n", "run.yaml:3", "a list within a list");
    BAD("stop:\n  - a\n  -\n", "run.yaml:3", "an empty entry");
    BAD("stop: ''\n", "run.yaml:1", "an empty entry");
    BAD("stop: a,,b\n", "run.yaml:1", "an empty entry");
    BAD("stop: [a, '']\n", "run.yaml:1", "an empty entry");
    BAD_ARG("stop=,a", "an empty entry");
    BAD("stop:\n  - {weight: 2}\n", "run.yaml:2", "wants a `name`");
    BAD("stop:\n  - {name: a, name: b}\n", "run.yaml:2", "given twice in one entry");
    BAD("stop:\n  - name: a\n    x: [1]\n", "run.yaml:3", "wants one value");
    BAD("stop:\n  - name: a,b\n", "run.yaml:2", "cannot be `a,b`");
    BAD("stop:\n  - name: a\n    x: b\\\n", "run.yaml:3", "cannot be `b\\`");
    BAD("stop:\n  - name: a\n    x:\n", "run.yaml:3", "cannot be ``");
    BAD("stop:\n  - name: a:b\n", "run.yaml:2", "cannot be `a:b`");
    BAD("stop:\n  - {name: a, 'b=': 1}\n", "run.yaml:2", "`b=` is no key");
    BAD("stop:\n  - {a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1, j: 1, k: 1, l: 1, m: 1, n: 1, o: 1, p: 1}\n",
        "run.yaml:2", "too many keys");
}

// ---- contradictions ----------------------------------------------------------------------------------------------

static void contradictions(void **state) {
    BAD("system_prompt: a\nsystem_prompt_file: b\n", "run.yaml:2", "both set");
    BAD("system_prompt_file: a\nsystem_prompt: b\n", "run.yaml:2", "both set");
    BAD("prompt: a\nprompt_file: b\n", "run.yaml:2", "both set");
    BAD("epsilon_high: -0.5\n", "run.yaml:1", "write -1");
    BAD("warmup_steps: 10\nmax_steps: 9\n", "run.yaml:2", "more than max_steps (9)");
    BAD("num_generations: 7\n", "run.yaml:1",
        "(8) x gradient_accumulation_steps (4) = 32 completions is not a multiple");
    BAD("num_generations: 8\nsteps_per_generation: 3\nper_device_train_batch_size: 4\n", "run.yaml:3",
        "12 completions");
    BAD("steps_per_generation: 6\n", "run.yaml:1", "not a multiple of gradient_accumulation_steps (4)");
    BAD("steps_per_generation: 2\n", "run.yaml:1", "not a multiple of gradient_accumulation_steps (4)");
    BAD("num_iterations: 2\nper_device_train_batch_size: 65536\n\ngradient_accumulation_steps: 65536\n", "run.yaml:4",
        "a generation would be 4294967296 completions");
    BAD("scale_rewards: none\nmulti_objective_aggregation: normalize_then_sum\n", "run.yaml:2", "no meaning with");
    BAD("chat_template: qwen\n", "run.yaml:1", "qwen2.5");
    BAD("num_generations: 1\n", "run.yaml:1", "use 2 or more");
    BAD("beta: 0\nsync_ref_model: true\n", "run.yaml:2", "no reference model");
    BAD("sync_ref_model: true\nreference_weights: reload\n", "run.yaml:2", "leave one of them out");
    BAD("sync_ref_model: true\nbeta: 0\n", "run.yaml:2", "no reference model");
    BAD("top_entropy_quantile: 0\n", "run.yaml:1", "no token");
    BAD("loss_type: cispo\n", "run.yaml:1", "largest ratio itself");
    BAD("use_adaptive_entropy: true\nentropy_coef_min: 2\n", "run.yaml:2", "above entropy_coef_max (1)");
    BAD("delta: -0.5\n", "run.yaml:1", "delta is -0.5; write -1 for none");
    BAD("off_policy_mask_threshold: -2\n", "run.yaml:1", "outside its range -1 to 1000");
    BAD("off_policy_mask_threshold: -0.1\n", "run.yaml:1", "write -1 for none, or a number from 0 upward");
    BAD("num_iterations: 2\ntemperature: 0\n", "run.yaml:2", "every completion of a group would be the same");
    BAD("num_iterations: 2\neval_steps: 10\n", "run.yaml:2", "eval_file is not set");
    BAD("device: cpu\nmatmul: cublas\n", "run.yaml:2", "no meaning with device=cpu");
    BAD("matmul: cublas\ndevice: cpu\n", "run.yaml:2", "no meaning with device=cpu");
    BAD("dtype: f32\noptim_dtype: f32_split\n", "run.yaml:2", "write optim_dtype=f32");
    BAD("rewards: [corectness]\n", "run.yaml:1", "correctness");
    BAD("rewards: [int:weigth=2]\n", "run.yaml:1", "weight");
    BAD("rewards: [int, 'int:weight=2']\n", "run.yaml:1", "listed twice");
    BAD("rewards: [int, 'xmlcount:as=int']\n", "run.yaml:1", "int is listed twice");
    Config two =
        read_good("rewards: [{name: regex, pattern: a, as: one}, {name: regex, pattern: b, as: two}]\n", NULL, 0);
    config_free(&two);
    static char *good[] = {"loss_type=cispo", "epsilon_high=5", "top_entropy_quantile=0.2", "steps_per_generation=8",
                           "num_generations=16"};
    Config c = read_good("", good, 5);
    config_free(&c);
    // For commands that sample no groups, their sizes are of no account.
    c = read_good("per_device_train_batch_size: 3\ntemperature: 0\n", NULL, 0);
    config_free(&c);
}

static void assert_args(const char *command, char **args, int n, const char *why) {
    Config c;
    Error e = {0};
    bool good = config_args(&c, command, n, args, &e);
    if (good != !why || (why && !strstr(e.text, why))) fail_msg("%s: %s, not %s", command, e.text, why ? why : "good");
    if (good) config_free(&c);
}

static void commands_have_needs(void **state) {
    write_file("model: m\n", 9);
    assert_args("train", ARGS(path), "train_file is not set");
    assert_args("train", ARGS(path, "train_file=t"), NULL);
    assert_args("train", ARGS("train_file=t"), "command line: model is not set; add model=DIRECTORY");
    assert_args("train", ARGS(path, path, "train_file=t"), "the YAML file comes first");
    assert_args("train", ARGS(path, "train_file=t", "per_device_train_batch_size=3"), "not a multiple");
    assert_args("train", ARGS(path, "train_file=t", "temperature=0"), "temperature is 0");
    assert_args("train", ARGS(path, "train_file=t", "rewards=[]"), "rewards is empty");
    assert_args("train", ARGS(path, "train_file=t", "num_train_epochs=0"), "nothing to train");
    assert_args("train", ARGS(path, "train_file=t", "num_train_epochs=0", "max_steps=1"), NULL);
    assert_args("sft", ARGS(path, "train_file=t", "per_device_train_batch_size=3", "num_generations=5"), NULL);
    assert_args("sft", ARGS(path), "train_file is not set");
    assert_args("eval", ARGS(path), "eval_file is not set");
    assert_args("eval", ARGS(path, "eval_file=t", "eval_samples=4", "temperature=0"), "would be the same");
    assert_args("eval", ARGS(path, "eval_file=t", "temperature=0"), NULL);
    assert_args("sample", ARGS(path, "temperature=0"), NULL);
    assert_args("reward_model", ARGS(path, "train_file=t", "lora_r=4"), NULL);
    assert_args("reward_model", ARGS(path, "train_file=t", "lora_r=4", "adapter=a"), "keep one of them");
    assert_args("reward_model", ARGS(path, "train_file=t", "lora_alpha=4"), "lora_r is 0");
    assert_args("merge", ARGS(path, "adapter=a"), "merge_output is not set");
    assert_args("merge", ARGS(path, "merge_output=m"), "adapter is not set");
    assert_args("config", NULL, 0, NULL);
    assert_args("config", ARGS("num_generations=7"), "not a multiple");
}

static void files_have_weights_and_rewards(void **state) {
    Config c = read_good("train_file:\n  - {file: a b.jsonl, weight: 3}\n  - b.jsonl\n  - file: c.jsonl\n"
                         "    rewards: [accuracy, {name: format, weight: 2}]\n",
                         NULL, 0);
    assert_int_equal(c.train_file.n, 3);
    const DataFile *f = c.train_file.item;
    assert_string_equal(f[0].path, "a b.jsonl");
    assert_true(f[0].weight == 3 && f[1].weight == 1 && f[2].weight == 1);
    assert_string_equal(f[1].path, "b.jsonl");
    assert_list(&f[2].rewards, 2, (char *[]){"accuracy", "format:weight=2"});
    assert_non_null(strstr(f[2].place, "run.yaml:4"));
    // What is printed is read as the same.
    char *yaml = config_yaml(&c);
    assert_non_null(
        strstr(yaml, "\ntrain_file: [{file: \"a b.jsonl\", weight: 3}, {file: b.jsonl, weight: 1}, {file: c.jsonl, "
                     "weight: 1, rewards: [accuracy, \"format:weight=2\"]}]\n"));
    Config again = read_good(yaml, NULL, 0);
    char *twice = config_yaml(&again);
    assert_string_equal(twice, yaml);
    free(yaml), free(twice);
    config_free(&again), config_free(&c);
    c = read_good("", ARGS("train_file=[{file: x.jsonl, rewards: format}]"));
    assert_list(&c.train_file.item[0].rewards, 1, (char *[]){"format"});
    assert_string_equal(c.train_file.item[0].place, "argument 'train_file=[{file: x.jsonl, rewards: format}]'");
    config_free(&c);
    c = read_good("train_file: plain.jsonl\n", NULL, 0);
    yaml = config_yaml(&c);
    assert_non_null(strstr(yaml, "\ntrain_file: plain.jsonl\n"));
    free(yaml), config_free(&c);
}

static void mistakes_in_files_have_their_line(void **state) {
    BAD("train_file: [{file: a, weight: 0}, {file: b, weight: 0}]\n", "run.yaml:1", "every weight is 0");
    BAD("beta: 1\ntrain_file:\n- {file: a, weight: -1}\n", "run.yaml:3",
        "`weight` wants a number from 0 to 1e9, not `-1`");
    BAD("train_file:\n- {file: a, weight: many}\n", "run.yaml:2", "not `many`");
    BAD("train_file:\n- {weight: 1}\n", "run.yaml:2", "wants a `file`");
    BAD("train_file:\n- {file: a, wieght: 1}\n", "run.yaml:2",
        "an entry has `file`, `weight` and `rewards`, not `wieght`");
    BAD("train_file:\n- {file: a, file: b}\n", "run.yaml:2", "`file` is given twice");
    BAD("train_file:\n- {file: [a]}\n", "run.yaml:2", "`file` wants a path");
    BAD("train_file: []\n", "run.yaml:1", "an empty list");
    BAD("train_file:\n- [a]\n", "run.yaml:2", "a list within a list");
    BAD("train_file:\n- a\n- ''\n", "run.yaml:3", "an empty entry");
    BAD("train_file:\n- a\n- {file: a, weight: 2}\n", "run.yaml:3", "a is there twice");
    BAD("train_file:\n- a\n- {file: b, rewards: [acuracy]}\n", "run.yaml:3", "did you mean accuracy?");
    BAD("train_file:\n- a\n- {file: b, rewards: []}\n", "run.yaml:3", "leave it out for the run's own");
    BAD("rewards: [format]\ntrain_file:\n- a\n- {file: b, rewards: [\"format:form=old\"]}\n", "run.yaml:4",
        "format has other parameters or another weight than at");
    BAD("train_file:\n- {file: b, rewards: [format, format]}\n", "run.yaml:2", "format is listed twice");
    // Of the run's own rewards nothing is said where nobody is scored by them.
    Config c = read_good("rewards: [format]\ntrain_file:\n- {file: b, rewards: [\"format:form=old\"]}\n", NULL, 0);
    config_free(&c);
    assert_args("sft", ARGS("model=m", "train_file=[{file: a, rewards: format}]"),
                "sft reads no rewards of a file's own");
    assert_args("select", ARGS("model=m", "train_file=[a, {file: b, weight: 2}]"), "so a weight has no meaning");
    // A rule names one of the run's rewards: one that only a file has is none of them.
    assert_args("select", ARGS("model=m", "train_file=[{file: a, rewards: tag_count}]", "select_rules=tag_count:min=1"),
                "`tag_count` is none of the `rewards` of this run");
}

static void values_that_make_the_same_are_alike(void **state) {
    static const struct {
        const char *option, *a, *b;
        bool alike;
    } cases[] = {
        {"seed", "7", "7", true},
        {"seed", "7", "8", false},
        {"rewards", "[xmlcount, int]", "[int, xmlcount]", false}, // the order is that of sums
        {"rewards", "[xmlcount]", "[xmlcount, int]", false},
        {"rewards", "[int, \"judge:url=http://a/v1\"]", "[int, \"judge:retries=0,max_unmatched=9,url=http://a/v1\"]",
         true},
        {"rewards", "[\"judge:url=http://a/v1\"]", "[\"judge:url=http://b/v1\"]", false},
        {"rewards", "[\"judge:workers=2,parallel=4\"]", "[\"judge:timeout=9,weight=2\"]", false},
        {"rewards", "[\"external:command=a b,batch=1\"]",
         "[\"external:start_timeout=3,workers=2,batch=1,command=a b\"]", true},
        {"rewards", "[\"external:command=a b,batch=2\"]", "[\"external:command=a b,batch=1\"]", false}, // may compare
        {"rewards", "[\"external:command=a b\"]", "[\"external:command=a c\"]", false},
        {"rewards", "[\"code:timeout=5\"]", "[\"code:timeout=6\"]", false}, // which a program may need
        {"eval_grader", "\"judge:retries=1\"", "\"judge:retries=2\"", true},
        {"eval_grader", "\"judge:seed=1\"", "\"judge:seed=2\"", false},
        {"train_file", "[{file: a, rewards: [\"judge:retries=1\"]}, {file: b}]",
         "[{file: a, weight: 1, rewards: [\"judge:parallel=3\"]}, {file: b}]", true},
        {"train_file", "[{file: a, rewards: [int]}, {file: b}]", "[{file: a, rewards: [xmlcount]}, {file: b}]", false},
        {"train_file", "[{file: a}, {file: b}]", "[{file: a}, {file: c}]", false},
        {"train_file", "[{file: a}, {file: b}]", "[{file: a, weight: 2}, {file: b}]", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (config_alike(cases[i].option, cases[i].a, cases[i].b) != cases[i].alike)
            fail_msg("%s: %s and %s", cases[i].option, cases[i].a, cases[i].b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_that_make_the_same_are_alike),
        cmocka_unit_test(defaults_are_the_tables),
        cmocka_unit_test(values_of_every_kind),
        cmocka_unit_test(mistakes_name_their_line),
        cmocka_unit_test(files_that_cannot_be_read),
        cmocka_unit_test(every_mistake_at_once),
        cmocka_unit_test(overrides),
        cmocka_unit_test(lists),
        cmocka_unit_test(contradictions),
        cmocka_unit_test(commands_have_needs),
        cmocka_unit_test(files_have_weights_and_rewards),
        cmocka_unit_test(mistakes_in_files_have_their_line),
    };
    return cmocka_run_group_tests_name("config", tests, make_folder, remove_folder);
}
