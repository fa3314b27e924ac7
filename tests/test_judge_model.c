// Judges on the engine's device: puppets whose replies are known.
#include "judge_fixture.h"
#include "on_device.h"

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

// What a completion spells of special tokens is text to the judge (test_encode_around.c): where its prompt may have as
// many ids as those tokens would make of it, it is too long, and an unmarked text is not.
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

// ---- a pattern that matches nothing ---------------------------------------------------------------------------------

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

// ---- what is refused ------------------------------------------------------------------------------------------------

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
