// Judges on the engine's device in the commands: at any number of ranks, stopped, beside adapters, in pipelines.
#include "judge_fixture.h"
#include "on_device.h"

// A policy that answers one of four letters; one that answers two digits, and reads the second as a judge does.
static const Lead of_letters[] = {{"?", "a", 9},           {"?", "d", 9},           {"?", "j", 9},
                                  {"?", "z", 9},           {"a", "<|im_end|>", 20}, {"d", "<|im_end|>", 20},
                                  {"j", "<|im_end|>", 20}, {"z", "<|im_end|>", 20}};
static const Lead of_digits[] = {{"?", "0", 8}, {"?", "3", 8}, {"?", "9", 8},
                                 {"0", "3", 8}, {"3", "9", 8}, {"9", "0", 8}};
#define ASKED "chat_template=raw,template_file=t.txt,pattern=^([0-9])$,max_prompt=64,parallel=3,max_tokens="

static void put_run(const Lead *policy, int n, const char *rewards) {
    put_puppet("p", NULL, NULL, policy, n);
    put_puppet("j", NULL, NULL, LEADS(judge_leads));
    put_text(at("t.txt"), "Rate:\n{completion}");
    Str questions = {0};
    for (int i = 0; i < 8; i++)
        str_printf(&questions, "{\"question\": \"How many are %d and %d?\", \"answer\": \"#### %d\"}\n", i, i + 1,
                   2 * i + 1);
    put_text(at("q.jsonl"), questions.s);
    char *run = xasprintf("device=%s model=p dtype=f32 raw=true max_prompt_length=40 threads=1 max_completion_length=2 "
                          "seed=7 temperature=1 rollout_batch=8 progress=off report=false rewards=%s",
                          test_on_cuda() ? "cuda" : "cpu", rewards);
    put_text(at("run"), run);
    free(run);
    str_free(&questions);
}

// Line by line, calls each(line as JSON).
static void each_line(const char *path, void (*each)(const json_t *j)) {
    char *all = text_in(path);
    for (char *line = all; *line; line += strcspn(line, "\n") + 1) {
        json_t *j = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
        if (!j) fail_msg("%s: %.80s", path, line);
        each(j);
        json_decref(j);
    }
    free(all);
}

static int samples, judged;
static void check_sample(const json_t *j) {
    const char *text = json_string_value(json_object_get(j, "completion"));
    const json_t *score = json_object_get(json_object_get(j, "scores"), "judge_model");
    if (!text) return; // the first line
    samples++;
    bool known = strlen(text) == 1 && strchr("adj", *text);
    judged += known;
    if (known) assert_near(json_number_value(score), (*text - 'a') / 10.0, 1e-6);
    else assert_true(json_is_null(score));
}

// select writes the same bytes at one rank, at two and at four, whatever was asked before; so it does where it was
// stopped.
static void ranks_judge_alike(void **state) {
    put_run(LEADS(of_letters), "completion_length,judge_model:model=j," ASKED "4");
    const char *select = "select $(cat run) train_file=q.jsonl select_samples=4 select_rules=judge_model:min=0.2 "
                         "select_output=%s %s";
    if (grpo(select, "one", "")) fail_msg("%s", said);
    assert_non_null(strstr(said, "reward judge_model: completions without a proper score: bad_reply "));
    each_line(at("one/samples.jsonl"), check_sample);
    assert_int_equal(samples, 32);
    assert_true(judged > 8 && judged < 32);
    char *one = text_in(at("one/samples.jsonl"));
    for (int ranks = 2; ranks <= 4 && !test_on_cuda(); ranks *= 2) {
        char *option = xasprintf("gpus=%d", ranks);
        if (grpo(select, "some", option)) fail_msg("%s", said);
        char *some = text_in(at("some/samples.jsonl"));
        assert_string_equal(strchr(one, '\n'), strchr(some, '\n'));
        free(some), free(option);
        assert_true(disk_remove(at("some"), NULL));
    }
    free(one);
    // So does train, faults included.
    const char *train =
        "train $(cat run) train_file=q.jsonl num_generations=4 max_steps=1 per_device_train_batch_size=4 "
        "gradient_accumulation_steps=%d gpus=%d output_dir=t%d";
    for (int ranks = 1; ranks <= 4 && !test_on_cuda(); ranks *= 2)
        if (grpo(train, 8 / ranks, ranks, ranks)) fail_msg("%s", said);
    if (!test_on_cuda() &&
        grpo("reward --list && for r in 2 4; do cmp t1/completions.jsonl t$r/completions.jsonl || exit 1; "
             "done; grep -o '[a-z_]*/bad_reply\": [0-9]*' t*/metrics.jsonl | cut -d: -f2- | uniq -c | "
             "grep ' 3 judge_model/bad_reply\": [1-9]'"))
        fail_msg("%s", said);
    // Another template is another judge: select refuses it, train goes on and says so.
    const char *on = "train $(cat run) train_file=q.jsonl num_generations=4 max_steps=%d per_device_train_batch_size=4 "
                     "gradient_accumulation_steps=2 output_dir=on progress=off",
               another[] = "are another judge's";
    for (int steps = 1; steps <= 3; steps++) {
        if (steps == 3) put_text(at("t.txt"), "Rate now:\n{completion}");
        if (grpo(on, steps)) fail_msg("%s", said);
        if ((steps == 3) != (strstr(said, another) != NULL)) fail_msg("%d steps: %s", steps, said);
    }
    assert_int_equal(grpo(select, "one", ""), EXIT_CONFIG);
    assert_non_null(strstr(said, "the rewards"));
}

static int as_base; // where there is a reward `base`, how often it says the same
static void check_own(const json_t *j) {
    const json_t *scores = json_object_get(j, "rewards"), *own = json_object_get(scores, "own");
    if (!own) fail_msg("no reward in completions.jsonl");
    assert_true(json_equal(own, json_object_get(scores, "given")));
    samples++;
    judged += json_is_number(own);
    as_base += json_equal(own, json_object_get(scores, "base"));
}

// Without a directory the judge is the model the run begins with, and stays it while the policy changes: in weights of
// its own, or in those of the reference where that stays too. A stopped run goes on to the same bytes.
static void the_start_model_judges(void **state) {
    static const char *const ways[] = {"beta=0",
                                       "beta=0.04",
                                       "beta=0.04 reference_weights=reload",
                                       "beta=0.04 sync_ref_model=true ref_model_sync_steps=1 ref_model_mixup_alpha=1",
                                       "beta=0 lora_r=4",
                                       "beta=0.04 lora_r=4"};
    put_run(LEADS(of_digits), "judge_model:as=own," ASKED "1,judge_model:as=given,model=p," ASKED "1");
    const char *train = "train $(cat run) train_file=q.jsonl num_generations=4 per_device_train_batch_size=4 "
                        "gradient_accumulation_steps=2 save_steps=1 learning_rate=0.5 lr_scheduler_type=constant "
                        "max_steps=%d output_dir=%s %s";
    for (int i = 0; i < 6; i += test_on_cuda() ? 3 : 1) { // under emulation two of them
        samples = judged = 0;
        if (grpo(train, 3, at("o%d", i), ways[i])) fail_msg("%s", said);
        each_line(at("o%d/completions.jsonl", i), check_own);
        assert_int_equal(samples, 24);
        assert_true(judged > 4);
    }
    if (grpo(train, 1, "cut", ways[3]) || grpo(train, 3, "cut", ways[3])) fail_msg("%s", said);
    if (grpo("reward --list && cmp o3/step_3/model.safetensors cut/step_3/model.safetensors && "
             "cmp o3/completions.jsonl cut/completions.jsonl"))
        fail_msg("%s", said);
    // The policy has changed its mind.
    put_text(at("texts.jsonl"),
             "{\"completion\": \"3\", \"answer\": \"\"}\n{\"completion\": \"0\", \"answer\": \"\"}\n");
    const char *reward = "reward 'judge_model:model=%s," ASKED "1' texts.jsonl dtype=f32 device=%s";
    if (grpo(reward, "p", test_on_cuda() ? "cuda" : "cpu")) fail_msg("%s", said);
    assert_string_equal(said, "{\"reward\": 0.9}\n{\"reward\": 0.3}\n");
    grpo(reward, "o0/step_3", test_on_cuda() ? "cuda" : "cpu");
    assert_null(strstr(said, "{\"reward\": 0.9}\n{\"reward\": 0.3}\n"));
}

// Beside an adapter that is trained on, the judge is the model with the adapter as it was given: the merged one.
static void adapters_judge_as_they_were(void **state) {
    if (test_on_cuda()) skip(); // learning takes the emulation too long
    put_run(NULL, 0, "xmlcount");
    char *tiny = xasprintf("%s/models/tiny", getenv("PWD"));
    assert_int_equal(symlink(tiny, at("tiny")), 0);
    free(tiny);
    Str examples = {0};
    for (int i = 0; i < 8; i++)
        str_printf(&examples, "{\"prompt\": \"How many are %d and %d?\", \"completion\": \"%d\"}\n", i, i + 1,
                   2 * i + 1);
    put_text(at("sft.jsonl"), examples.s);
    str_free(&examples);
    const char *learn =
        "sft dtype=f32 raw=true threads=1 device=cpu progress=off report=false train_file=sft.jsonl max_length=64 "
        "per_device_train_batch_size=4 gradient_accumulation_steps=2 save_steps=0 %s";
    if (grpo(learn, "model=tiny init=random max_steps=30 learning_rate=1e-2 output_dir=base") ||
        grpo(learn, "model=base/step_30 lora_r=4 max_steps=10 learning_rate=5e-2 output_dir=adapter") ||
        grpo("merge model=base/step_30 adapter=adapter/step_10 merge_output=merged dtype=f32"))
        fail_msg("%s", said);
    put_text(at("t.txt"), "{prompt}{completion} and ");
    samples = judged = as_base = 0;
    if (grpo("train $(cat run) model=base/step_30 adapter=adapter/step_10 train_file=q.jsonl num_generations=4 "
             "max_steps=3 "
             "per_device_train_batch_size=8 gradient_accumulation_steps=1 learning_rate=0.1 lr_scheduler_type=constant "
             "temperature=1.5 beta=0 max_completion_length=6 output_dir=out 'rewards=judge_model:as=own," ASKED
             "1,judge_model:as=given,model=merged," ASKED "1,judge_model:as=base,model=base/step_30," ASKED "1'"))
        fail_msg("%s", said);
    each_line(at("out/completions.jsonl"), check_own);
    assert_int_equal(samples, 24);
    assert_true(judged > 0 && as_base < 24);
}

// eval prints the mean; plan counts the memory, also where it is too much; a run ends by max_unmatched.
static void commands_take_judges(void **state) {
    put_run(LEADS(of_letters), "judge_model:model=j," ASKED "4");
    if (grpo("eval $(cat run) eval_file=q.jsonl eval_samples=2")) fail_msg("%s", said);
    assert_non_null(strstr(said, "\"rewards\": {\"judge_model\": 0."));
    for (int ranks = 1; ranks <= (test_on_cuda() ? 1 : 2); ranks++) { // as grader: right above 0.5
        if (grpo("eval $(cat run) rewards=regex:pattern=^j eval_file=q.jsonl eval_samples=4 gpus=%d "
                 "'eval_grader=judge_model:model=j," ASKED "4'",
                 ranks))
            fail_msg("%s", said);
        double questions, ungraded, by_judge, by_rule;
        assert_int_equal(sscanf(strstr(said, "\"questions\""), "\"questions\": %lf", &questions), 1);
        assert_int_equal(sscanf(strstr(said, "\"accuracy\""), "\"accuracy\": %lf", &by_judge), 1);
        assert_int_equal(sscanf(strstr(said, "\"ungraded\""), "\"ungraded\": %lf", &ungraded), 1);
        assert_int_equal(sscanf(strstr(said, "\"regex\""), "\"regex\": %lf", &by_rule), 1);
        assert_true(ungraded > 0 && by_rule > 0 && by_rule < 1); // replies without a score are in no accuracy
        assert_near(by_judge * (1 - ungraded / (4 * questions)), by_rule, 1e-5);
    }
    if (grpo("plan $(cat run) per_device_train_batch_size=8 num_generations=4")) fail_msg("%s", said);
    assert_non_null(strstr(said, "rewards' models: weights"));
    assert_non_null(strstr(said, "judges: KV cache and activations"));
    // The start model is kept once, for the reference and the judge.
    const char *plan = "plan $(cat run) 'rewards=judge_model:" ASKED "4' num_generations=4 device=cpu beta=%s";
    static const char apart[] = "start weights, for a judge", resident[] = "reference weights  ";
    if (grpo(plan, "0")) fail_msg("%s", said);
    assert_true(strstr(said, apart) && !strstr(said, resident));
    if (grpo(plan, "0.04")) fail_msg("%s", said);
    assert_true(!strstr(said, apart) && strstr(said, resident));
    put_puppet("j", json_pack("{s:i}", "max_position_embeddings", 1 << 21), NULL, LEADS(judge_leads));
    put_text(at("c.yaml"), "model: p\nraw: true\ntrain_file: q.jsonl\nrewards:\n"
                           "  - {name: judge_model, model: j, max_prompt: 1000000, parallel: 4096}\n");
    assert_int_equal(grpo("train c.yaml output_dir=big num_generations=4 device=cpu"), EXIT_MEMORY);
    assert_non_null(strstr(said, "judges: KV cache and activations"));
    assert_non_null(strstr(said, "what helps:"));
    assert_non_null(strstr(said, "judge_model's parallel, max_prompt or max_tokens lower"));
    put_text(at("c.yaml"), "model: p\ntrain_file: q.jsonl\nrewards:\n  - int\n"
                           "  - {name: judge_model, model: j, pattern: 'Score'}\n"
                           "  - {name: judge, template_file: nowhere.txt}\n");
    assert_int_equal(grpo("train c.yaml"), EXIT_CONFIG);
    assert_non_null(strstr(said, "c.yaml:3: rewards: judge_model: pattern: `Score` has no (group)"));
    assert_non_null(strstr(said, "c.yaml:3: rewards: judge: template: nowhere.txt"));
    put_text(at("t.txt"), "Rate:\n{completion} z"); // of which no reply comes
    const char *train = "train $(cat run),max_unmatched=4 train_file=q.jsonl num_generations=4 max_steps=1 "
                        "per_device_train_batch_size=8 gradient_accumulation_steps=1 output_dir=%s %s";
    assert_int_equal(grpo(train, "out", ""), EXIT_INPUT);
    assert_non_null(strstr(said, "in the replies to 4 completions in a row (max_unmatched)"));
}

static int row, longest_row;
static void count_row(const json_t *j) {
    const json_t *scores = json_object_get(j, "scores");
    if (!scores) scores = json_object_get(j, "rewards");
    if (!scores) return; // the first line
    bool none = json_is_null(json_object_get(scores, "judge_model"));
    row = none ? row + 1 : 0;
    judged += none;
    longest_row = row > longest_row ? row : longest_row;
}

// The end of a run by replies without a score, and what is noted of them: of all ranks. Runs `fmt` (max_unmatched,
// ranks).
static void ends_alike(const char *fmt, int most, int count) {
    char *counted = xasprintf("without a proper score: bad_reply %d\n", count),
         *says = xasprintf("in the replies to %d completions in a row (max_unmatched); one begins: \"", most);
    for (int ranks = 1; ranks <= (test_on_cuda() ? 1 : 4); ranks *= 2)
        for (int more = 0; more < 2; more++) {
            if (grpo("reward --list && rm -rf out")) fail_msg("%s", said);
            int code = grpo(fmt, most + more, 8 / ranks, ranks);
            if (code != (more ? EXIT_OK : EXIT_INPUT) || !strstr(said, counted) || (strstr(said, says) != NULL) == more)
                fail_msg("%s: %d of %d in a row on %d ranks: exit code %d: %s", fmt, most, most + more, ranks, code,
                         said);
            const char *once = strstr(said, "without a proper score");
            assert_null(strstr(once + 1, "without a proper score"));
        }
    free(counted), free(says);
}

#define OF_RANKS "'rewards=judge_model:model=j," ASKED "4,max_unmatched=%d' gradient_accumulation_steps=%d gpus=%d "

// As long a row ends a run at every number of ranks, also where it goes over their bounds and over those of steps.
static void ranks_end_alike(void **state) {
    static const char train[] =
        "train $(cat run) " OF_RANKS "train_file=q.jsonl num_generations=4 per_device_train_batch_size=4 "
        "output_dir=out max_steps=",
                      sample[] = "select $(cat run) " OF_RANKS
                                 "train_file=q.jsonl select_samples=4 select_output=out select_rules="
                                 "judge_model:min=0";
    put_run(LEADS(of_letters), "judge_model:model=j," ASKED "4");
    // Some have a score.
    judged = row = longest_row = 0;
    if (grpo(sample, 0, 1, 1)) fail_msg("%s", said);
    each_line(at("out/samples.jsonl"), count_row);
    assert_true(longest_row > 1 && judged > longest_row && judged < 32);
    ends_alike(sample, longest_row, judged);
    char *one = xasprintf("%s1", train), *two = xasprintf("%s2", train);
    judged = row = longest_row = 0;
    assert_int_equal(grpo("reward --list && rm -rf out"), 0);
    if (grpo(one, 0, 8, 1)) fail_msg("%s", said);
    each_line(at("out/completions.jsonl"), count_row);
    assert_true(longest_row > 1 && judged > longest_row && judged < 32);
    ends_alike(one, longest_row, judged);
    // None has: the row goes on in the next step, in an evaluation it is all of it.
    put_text(at("t.txt"), "Rate:\n{completion} z");
    ends_alike("eval $(cat run) " OF_RANKS "eval_file=q.jsonl eval_samples=4", 32, 32);
    ends_alike("eval $(cat run) eval_file=q.jsonl rewards=xmlcount eval_samples=4 "
               "'eval_grader=judge_model:model=j," ASKED "4,max_unmatched=%d' reward_threads=%d gpus=%d",
               32, 32);
    ends_alike(one, 32, 32);
    ends_alike(two, 64, 64);
    free(one), free(two);
}

// A pipeline's phase is judged by what an earlier one made; its template is an input; a model that scores is none that
// writes.
static void pipelines_take_judges(void **state) {
    put_run(LEADS(of_letters), "judge_model:model=j," ASKED "4");
    put_text(at("sft.jsonl"), "{\"prompt\": \"How many?\", \"completion\": \"j\"}\n");
    put_text(at("pairs.jsonl"), "{\"prompt\": \"How many?\", \"chosen\": \"j\", \"rejected\": \"a\"}\n");
    const char *file =
        "model: p\ndtype: f32\nraw: true\nmax_prompt_length: 40\nmax_completion_length: 2\noutput_dir: out\n"
        "device: %s\nthreads: 1\nreport: false\nphases:\n"
        "  - {name: made, command: %s, train_file: %s.jsonl, max_steps: 1, max_length: 64,\n"
        "     per_device_train_batch_size: 1, gradient_accumulation_steps: 1, raw: %s}\n"
        "  - name: graded\n    command: eval\n    eval_file: q.jsonl\n    rewards:\n"
        "      - {name: judge_model, model: '${made}', chat_template: raw, template_file: t.txt,\n"
        "         pattern: '^([0-9])$', max_prompt: 64, max_tokens: 2}\n";
    const char *device = test_on_cuda() ? "cuda" : "cpu";
    char *right = xasprintf(file, device, "sft", "sft", "true"),
         *wrong = xasprintf(file, device, "reward_model", "pairs", "false");
    put_text(at("r.yaml"), right);
    put_text(at("w.yaml"), wrong);
    free(right), free(wrong);
    if (grpo("run w.yaml output_dir=out_w") != EXIT_CONFIG) fail_msg("%s", said);
    assert_non_null(
        strstr(said, "reward judge_model asks a model that writes, and phase made makes one that scores texts"));
    if (grpo("run r.yaml")) fail_msg("%s", said);
    char *made = text_in(at("out/pipeline.json"));
    assert_non_null(strstr(made, "\"rewards.judge_model.template\""));
    free(made);
    put_text(at("t.txt"), "Rate now:\n{completion}");
    assert_int_not_equal(grpo("run r.yaml"), EXIT_OK);
    assert_non_null(strstr(said, "rewards.judge_model.template"));
}

#define IN_SCRATCH(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(ranks_judge_alike),    IN_SCRATCH(the_start_model_judges), IN_SCRATCH(adapters_judge_as_they_were),
        IN_SCRATCH(commands_take_judges), IN_SCRATCH(ranks_end_alike),        IN_SCRATCH(pipelines_take_judges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
