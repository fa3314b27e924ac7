// Judges on the engine's device: puppets whose replies are known, alone and in the commands.
#include "chat.h"
#include "on_device.h"
#include "puppet.h"
#include "reward_models.h"
#include "scratch_run.h"
#include "near.h"
#include "tokenizer_edit.h"

// A judge that reads a letter and replies with its number, then ends; behind the chat template's last line it replies with 7.
// Other letters get no number.
static const Lead judge_leads[] = {
    {"a", "0", 20},          {"b", "1", 20},          {"c", "2", 20},          {"d", "3", 20},
    {"e", "4", 20},          {"f", "5", 20},          {"g", "6", 20},          {"h", "7", 20},
    {"i", "8", 20},          {"j", "9", 20},          {"\u010a", "7", 20},     {"0", "<|im_end|>", 20},
    {"1", "<|im_end|>", 20}, {"2", "<|im_end|>", 20}, {"3", "<|im_end|>", 20}, {"4", "<|im_end|>", 20},
    {"5", "<|im_end|>", 20}, {"6", "<|im_end|>", 20}, {"7", "<|im_end|>", 20}, {"8", "<|im_end|>", 20},
    {"9", "<|im_end|>", 20},
};
#define LEADS(table) table, (int)(sizeof(table) / sizeof *(table))
#define READS_LAST                                                                                                     \
    "chat_template=raw,template=Rate:\n{completion},pattern=^(\\d)$,max_tokens=4,max_prompt=64,parallel=3"

typedef struct {
    Rewards rw;
    Device *d;
    RewardModels *m;
} Opened;

static bool open_judge(Opened *o, Error *e, const char *fmt, ...) {
    char *spec, *rest;
    va_list ap;
    va_start(ap, fmt);
    assert_true(vasprintf(&rest, fmt, ap) > 0);
    va_end(ap);
    spec = xasprintf("judge_model:%s", rest);
    *o = (Opened){.rw.n = 1, .d = test_device(2)};
    bool ok = reward_parse(spec, &o->rw.reward[0], e) && reward_open(&o->rw.reward[0], e) &&
              (o->m = reward_models_open(&o->rw, F32, o->d, LOAD_STRICT, e));
    free(spec), free(rest);
    return ok;
}
static void close_judge(Opened *o) {
    reward_models_free(o->m);
    rewards_close(&o->rw);
    device_close(o->d);
}
#define OPENED(o, ...)                                                                                                 \
    Opened o;                                                                                                          \
    opened(open_judge(&o, &why, __VA_ARGS__))
static Error why;
static void opened(bool ok) {
    if (!ok) fail_msg("%s", why.text);
}

static void ask(Opened *o, const char *const *text, int n, float *score) {
    Sample *s = xcalloc((size_t)n, sizeof *s);
    Error e = {0};
    for (int i = 0; i < n; i++)
        s[i] = (Sample){.prompt = "why?", .completion = text[i], .completion_len = strlen(text[i]), .answer = "gold"};
    if (!reward_models_samples(o->m, o->d, s, n, score, &e)) fail_msg("%s", e.text);
    free(s);
}
static float ask_one(Opened *o, const char *text) {
    float score;
    ask(o, &text, 1, &score);
    return score;
}
static int64_t faults(const Opened *o, RewardFault f) { return reward_faults(&o->rw.reward[0], f); }

// Replies are scored; what has no score abstains and is counted, once for each completion.
static void replies_are_scored(void **state) {
    static const char *const text[] = {"a", "z", "j", "d", "z", "d", "f", "x", "b", "c", "g"};
    static const float want[] = {0, NAN, 0.9f, 0.3f, NAN, 0.3f, 0.5f, NAN, 0.1f, 0.2f, 0.6f};
    enum { N = sizeof want / sizeof *want };
    float got[N];
    put_puppet("j", NULL, NULL, LEADS(judge_leads));
    OPENED(o, "model=%s,%s", at("j"), READS_LAST);
    ask(&o, text, N, got);
    for (int i = 0; i < N; i++)
        if (isnan(want[i]) ? !isnan(got[i]) : !(fabsf(got[i] - want[i]) < 1e-6f))
            fail_msg("%s: %g", text[i], (double)got[i]);
    assert_int_equal(faults(&o, REWARD_BAD_REPLY), 3);
    assert_int_equal(faults(&o, REWARD_TOO_LONG), 0);
    close_judge(&o);
}

// The template's fields, and a reply that ends with the token that ends the chat template's turns.
static void conversations_are_answered(void **state) {
    put_puppet("j", NULL, NULL, LEADS(judge_leads));
    OPENED(o, "model=%s,chat_template=qwen2.5,template={completion},pattern=^(\\d)$,max_tokens=8,max_prompt=96",
           at("j"));
    assert_near(ask_one(&o, "anything"), 0.7, 1e-6);
    close_judge(&o);
    put_puppet("other", json_pack("{s:i}", "eos_token_id", 0), NULL,
               LEADS(judge_leads)); // that config.json does not know
    OPENED(q, "model=%s,chat_template=qwen2.5,template={completion},pattern=^(\\d)$,max_tokens=8,max_prompt=96",
           at("other"));
    assert_near(ask_one(&q, "anything"), 0.7, 1e-6);
    close_judge(&q);
    static const struct {
        const char *field;
        float score;
    } fields[] = {{"{prompt}{completion}c", 0.2f},
                  {"{summary}", 0.4f},
                  {"{completion}{answer} d", NAN},
                  {"{completion}\n{answer}", 0.3f}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        OPENED(p, "model=%s,chat_template=raw,template=%s,pattern=^(\\d)$,max_tokens=4,max_prompt=64", at("j"),
               fields[i].field);
        Sample s = {.prompt = "q\n", .completion = "<think>b</think>\ne", .completion_len = 18, .answer = "d"};
        float score;
        if (i == 0) s.completion = "\n", s.completion_len = 1;
        assert_true(reward_models_samples(p.m, p.d, &s, 1, &score, &why));
        if (isnan(fields[i].score) ? !isnan(score) : !(fabsf(score - fields[i].score) < 1e-6f))
            fail_msg("%s: %g", fields[i].field, (double)score);
        close_judge(&p);
    }
}

// Drawn replies are a function of prompt and seed: not of what is asked beside them, nor of what was asked before.
static void replies_depend_on_the_prompt_alone(void **state) {
    static const Lead lots[] = {{"a", "1", 9},           {"a", "3", 9},           {"a", "5", 9},
                                {"a", "7", 9},           {"a", "9", 9},           {"1", "<|im_end|>", 20},
                                {"3", "<|im_end|>", 20}, {"5", "<|im_end|>", 20}, {"7", "<|im_end|>", 20},
                                {"9", "<|im_end|>", 20}};
    enum { N = 8 };
    char room[N][16];
    const char *text[N];
    float all[N], one[N], other[N], greedy[N];
    for (int i = 0; i < N; i++) {
        snprintf(room[i], sizeof *room, "%d\na", i);
        text[i] = room[i];
    }
    put_puppet("j", NULL, NULL, LEADS(lots));
    for (int way = 0; way < 3; way++) {
        OPENED(o, "model=%s,%s,%s", at("j"), READS_LAST, way == 2 ? "seed=1" : way ? "temperature=1" : "temperature=0");
        ask(&o, text, N, way == 2 ? greedy : way ? all : other);
        close_judge(&o);
    }
    assert_memory_equal(other, greedy, sizeof greedy); // the seed of greedy replies says nothing
    int kinds = 0;
    for (int i = 1; i < N; i++) kinds += all[i] != all[0], assert_true(greedy[i] == greedy[0]);
    assert_true(kinds > 2);
    OPENED(o, "model=%s,%s,temperature=1", at("j"), READS_LAST);
    for (int i = N - 1; i >= 0; i--) one[i] = ask_one(&o, text[i]);
    assert_memory_equal(all, one, sizeof all);
    ask(&o, text, N, one); // as remembered
    assert_memory_equal(all, one, sizeof all);
    close_judge(&o);
    OPENED(p, "model=%s,%s,temperature=1,seed=5", at("j"), READS_LAST);
    ask(&p, text, N, other);
    assert_true(memcmp(all, other, sizeof all));
    close_judge(&p);
}

// A prompt that has its score is not asked again: the weights are gone, and it still has it.
static void equal_prompts_are_asked_once(void **state) {
    put_puppet("j", NULL, NULL, LEADS(judge_leads));
    OPENED(o, "model=%s,%s", at("j"), READS_LAST);
    assert_near(ask_one(&o, "d"), 0.3, 1e-6);
    assert_true(isnan(ask_one(&o, "z")));
    const char *dir;
    Tensor weights = reward_models_model(o.m, 0, &dir)->slab;
    assert_string_equal(dir, at("j"));
    char *zero = xcalloc(1, tensor_bytes(weights));
    o.d->copy(o.d, weights.data, zero, tensor_bytes(weights));
    free(zero);
    assert_near(ask_one(&o, "d"), 0.3, 1e-6);
    assert_true(isnan(ask_one(&o, "e")));
    assert_int_equal(faults(&o, REWARD_BAD_REPLY), 2);
    close_judge(&o);
}

static char noted[4096];
static void keep_note(const char *text) { snprintf(noted + strlen(noted), sizeof noted - strlen(noted), "%s\n", text); }

static void long_and_empty_prompts_abstain(void **state) {
    put_puppet("j", NULL, NULL, LEADS(judge_leads));
    OPENED(o, "model=%s,chat_template=raw,template={completion},pattern=^(\\d)$,max_tokens=4,max_prompt=8", at("j"));
    static const char *const text[] = {"1 2 3 4 5 6 7 8 9\nd", "d", "", "1 2 3\nd"};
    float got[4];
    note_tell(keep_note);
    noted[0] = 0;
    ask(&o, text, 4, got);
    assert_string_equal(noted, "");
    assert_true(isnan(got[0]) && isnan(got[2]));
    assert_near(got[1], 0.3, 1e-6);
    assert_near(got[3], 0.3, 1e-6);
    assert_int_equal(faults(&o, REWARD_TOO_LONG), 1);
    assert_int_equal(faults(&o, REWARD_BAD_REPLY), 1);
    close_judge(&o);
    OPENED(p, "model=%s,chat_template=raw,template={completion},max_prompt=8,max_tokens=4", at("j"));
    for (int i = 0; i < 2; i++) assert_true(isnan(ask_one(&p, text[0]))); // it says so once
    assert_string_equal(noted,
                        "reward judge_model: the first texts (1) are all too long for it and have no score; raise "
                        "max_prompt, which is 8 tokens\n");
    note_tell(NULL);
    close_judge(&p);
}

// What a completion spells of special tokens is text to the judge (test_encode_around.c): where its prompt may have as many ids
// as those tokens would make of it, it is too long, and an unmarked text is not.
static void spelled_tokens_are_not_tokens(void **state) {
    static const char spelled[] = "<|im_end|><|im_start|>";
    Str prompt = {0};
    Ids ids = {0};
    Tokenizer *t = tokenizer_load("models/tiny", &why);
    opened(t && chat_prompt("qwen2.5", NULL, NULL, 0, spelled, &prompt, &why));
    tokenizer_encode(t, prompt.s, prompt.n, true, &ids);
    put_puppet("j", NULL, NULL, LEADS(judge_leads));
    OPENED(o, "model=%s,chat_template=qwen2.5,template={completion},pattern=^(\\d)$,max_tokens=8,max_prompt=%d",
           at("j"), (int)ids.n);
    assert_near(ask_one(&o, "no"), 0.7, 1e-6);
    assert_true(isnan(ask_one(&o, spelled)));
    assert_int_equal(faults(&o, REWARD_TOO_LONG), 1);
    close_judge(&o);
    tokenizer_free(t);
    ids_free(&ids), str_free(&prompt);
}

// A judge of another family, with a vocabulary of its own.
static void other_families_judge(void **state) {
    static const Lead leads[] = {{"d", "3", 20}, {"3", "!", 20}};
    json_t *file = pairs_file("aqxyz");
    assert_int_equal(json_dump_file(file, at("own.json"), 0), 0);
    json_decref(file);
    json_t *patch[] = {json_pack("{s:s, s:[s], s:i, s:i, s:i}", "model_type", "qwen3", "architectures",
                                 "Qwen3ForCausalLM", "eos_token_id", 0, "bos_token_id", 0, "head_dim", 40),
                       json_pack("{s:s, s:[s], s:i, s:i}", "model_type", "llama", "architectures", "LlamaForCausalLM",
                                 "eos_token_id", 0, "bos_token_id", 0)};
    for (int i = 0; i < 2; i++) {
        put_puppet("other", patch[i], at("own.json"), LEADS(leads));
        OPENED(o, "model=%s,chat_template=raw,template=Rate:\n{completion},pattern=^(\\d)!$,max_tokens=4,max_prompt=64",
               at("other"));
        assert_near(ask_one(&o, "d"), 0.3, 1e-6);
        close_judge(&o);
    }
}

// ---- a pattern that matches nothing ----------------------------------------------------------------------------------

static void silent_judges_are_told_of(void **state) {
    static const char *const bad[] = {"z", "y", "z", "x"}, *const mixed[] = {"z", "d", "y"};
    float got[4];
    note_tell(keep_note);
    put_puppet("j", NULL, NULL, LEADS(judge_leads));
    for (int way = 0; way < 3; way++) {
        OPENED(o, "model=%s,%s,max_unmatched=%d", at("j"), READS_LAST, way == 2 ? 3 : 0);
        noted[0] = 0;
        ask(&o, way == 1 ? mixed : bad, way == 1 ? 3 : 4, got);
        if (way == 0) { // after the first batch, once
            assert_non_null(strstr(noted,
                                   "reward judge_model: `^(\\d)$` finds no score from 0 to 10 in any of the first "
                                   "replies; one begins: \"!!!!\"\n"));
            noted[0] = 0;
            ask(&o, bad, 4, got);
        }
        assert_null(strstr(noted, "finds no score"));
        if (way == 2) { // three different prompts
            assert_false(reward_goes_on(&o.rw.reward[0], &why));
            assert_int_equal(why.code, EXIT_INPUT);
            SAYS(&why, "reward judge_model", "`^(\\d)$` finds no score", "in the replies to 3 completions in a row",
                 "\"!!!!\"");
        } else assert_true(reward_goes_on(&o.rw.reward[0], &why));
        close_judge(&o);
    }
    note_tell(NULL);
}

// A reply with a score ends a row of others.
static void only_replies_in_a_row_end_a_run(void **state) {
    put_puppet("j", NULL, NULL, LEADS(judge_leads));
    OPENED(o, "model=%s,%s,max_unmatched=3", at("j"), READS_LAST);
    static const char *const text[] = {"z", "y", "d", "x", "w"};
    float got[5];
    ask(&o, text, 5, got);
    assert_true(reward_goes_on(&o.rw.reward[0], &why));
    assert_true(isnan(ask_one(&o, "v")));
    assert_false(reward_goes_on(&o.rw.reward[0], &why));
    close_judge(&o);
}

// ---- what is refused -------------------------------------------------------------------------------------------------

static void refused(const char *expected, const char *spec) {
    Opened o;
    Error e = {0};
    if (open_judge(&o, &e, "%s", spec)) fail_msg("%s is taken", spec);
    if (!strstr(e.text, expected) || strchr(e.text, '\n')) fail_msg("'%s' is not in: %s", expected, e.text);
    close_judge(&o);
}
#define REFUSED(expected, ...)                                                                                         \
    do {                                                                                                               \
        char *spec_ = xasprintf(__VA_ARGS__);                                                                          \
        refused(expected, spec_);                                                                                      \
        free(spec_);                                                                                                   \
    } while (0)

static void other_judges_are_refused(void **state) {
    put_puppet("j", NULL, NULL, LEADS(judge_leads));
    REFUSED("model is not set", "parallel=1");
    REFUSED("there is no such directory", "model=%s", at("nowhere"));
    REFUSED("max_prompt 2048 + max_tokens 1024 is more than the context of 1024", "model=%s", at("j"));
    REFUSED("nothing to judge", "model=%s,template=rate this", at("j"));
    REFUSED("template and template_file are both set", "model=%s,template={completion},template_file=%s", at("j"),
            at("t.txt"));
    REFUSED("cannot be opened", "model=%s,template_file=%s", at("j"), at("t.txt"));
    put_text(at("t.txt"), "{completion} {gold}");
    REFUSED("t.txt: `{gold}` at byte 13 is no field", "model=%s,template_file=%s", at("j"), at("t.txt"));
    mkdir(at("a"), 0777);
    put_text(at("a/adapter_config.json"), "{}");
    REFUSED("is an adapter; `grpo merge`", "model=%s", at("a"));
    REFUSED("no (group)", "model=%s,pattern=x", at("j"));
    REFUSED("there is no chat template", "model=%s,max_prompt=64,max_tokens=64,chat_template=gemma", at("j"));
    json_t *config = json_load_file(at("j/config.json"), 0, NULL);
    json_object_set_new(config, "architectures", json_pack("[s]", "Qwen2ForSequenceClassification"));
    json_object_set_new(config, "id2label", json_pack("{s:s}", "0", "good"));
    assert_int_equal(json_dump_file(config, at("j/config.json"), 0), 0);
    json_decref(config);
    REFUSED("is a reward model, which writes no text", "model=%s", at("j"));
    put_puppet("j", json_pack("{s:i, s:i, s:i}", "vocab_size", 500, "eos_token_id", 0, "bos_token_id", 0), NULL, NULL,
               0);
    REFUSED("a vocabulary of 500 rows", "model=%s,max_prompt=64,max_tokens=64", at("j"));
}

// ---- in the commands -------------------------------------------------------------------------------------------------

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

// select writes the same bytes at one rank, at two and at four, whatever was asked before; so it does where it was stopped.
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

// Without a directory the judge is the model the run begins with, and stays it while the policy changes: in weights of its own,
// or in those of the reference where that stays too. A stopped run goes on to the same bytes.
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
    char by_judge[16], by_rule[16];
    for (int ranks = 1; ranks <= (test_on_cuda() ? 1 : 2); ranks++) { // as grader: right above 0.5
        if (grpo("eval $(cat run) rewards=regex:pattern=^j eval_file=q.jsonl eval_samples=4 gpus=%d "
                 "'eval_grader=judge_model:model=j," ASKED "4'",
                 ranks))
            fail_msg("%s", said);
        assert_int_equal(sscanf(strstr(said, "\"accuracy\""), "\"accuracy\": %15[0-9.]", by_judge), 1);
        assert_int_equal(sscanf(strstr(said, "\"regex\""), "\"regex\": %15[0-9.]", by_rule), 1);
        assert_string_equal(by_judge, by_rule);
        assert_true(atof(by_rule) > 0 && atof(by_rule) < 1);
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

// The end of a run by replies without a score, and what is noted of them: of all ranks. Runs `fmt` (max_unmatched, ranks).
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

// A pipeline's phase is judged by what an earlier one made; its template is an input; a model that scores is none that writes.
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
        IN_SCRATCH(replies_are_scored),
        IN_SCRATCH(conversations_are_answered),
        IN_SCRATCH(replies_depend_on_the_prompt_alone),
        IN_SCRATCH(equal_prompts_are_asked_once),
        IN_SCRATCH(long_and_empty_prompts_abstain),
        IN_SCRATCH(spelled_tokens_are_not_tokens),
        IN_SCRATCH(other_families_judge),
        IN_SCRATCH(silent_judges_are_told_of),
        IN_SCRATCH(only_replies_in_a_row_end_a_run),
        IN_SCRATCH(other_judges_are_refused),
        IN_SCRATCH(ranks_judge_alike),
        IN_SCRATCH(the_start_model_judges),
        IN_SCRATCH(adapters_judge_as_they_were),
        IN_SCRATCH(commands_take_judges),
        IN_SCRATCH(ranks_end_alike),
        IN_SCRATCH(pipelines_take_judges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
