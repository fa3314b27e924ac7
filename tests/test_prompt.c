// Prompts with examples before the question.
#include "engine.h"
#include "scratch.h"

static void put_examples(const char *text) { put_text(at("shots.jsonl"), text); }

static const char two[] = "{\"prompt\": \"1+1?\", \"completion\": \"<think>\\none\\n</think>\\n2\"}\n"
                          "\n"
                          "{\"completion\": \"4\", \"prompt\": \"2+2?\", \"origin\": {}}\n";

// The prompt of a question as text, heap; NULL after filling *e.
static char *prompt_of(const char *question, const char *options, Error *e) {
    char *all = xasprintf("model=models/tiny init=random max_prompt_length=400 few_shot_file=%s %s", at("shots.jsonl"),
                          options),
         *arg[16], *text = NULL;
    int n = 0;
    for (char *word = strtok(all, " "); word; word = strtok(NULL, " ")) arg[n++] = word;
    Config c;
    Engine en = {0};
    Prompter p = {0};
    Ids ids = {0};
    if (config_read(&c, NULL, arg, n, e)) {
        if (engine_prepare(&en, &c, e) && engine_prompter(&en, &p, e) && prompter_ids(&p, question, &ids, e)) {
            Str s = {0};
            tokenizer_decode(en.tokenizer, ids.id, ids.n, false, &s);
            text = s.s;
        }
        ids_free(&ids);
        prompter_close(&p);
        engine_close(&en);
        config_free(&c);
    }
    free(all);
    return text;
}

static void assert_prompt(const char *options, const char *wanted) {
    Error e = {0};
    char *text = prompt_of("3+3?", options, &e);
    if (!text) fail_msg("%s: %s", options, e.text);
    if (strcmp(text, wanted)) fail_msg("%s: \"%s\", not \"%s\"", options, text, wanted);
    free(text);
}

static void examples_are_turns_before_the_question(void **state) {
    put_examples(two);
    assert_prompt("chat_template=qwen2.5 system_prompt=S",
                  "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
                  "<think>\none\n</think>\n2<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
                  "4<|im_end|>\n<|im_start|>user\n3+3?<|im_end|>\n<|im_start|>assistant\n");
    assert_prompt("chat_template=qwen2.5 system_prompt=S few_shot=1",
                  "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
                  "<think>\none\n</think>\n2<|im_end|>\n<|im_start|>user\n3+3?<|im_end|>\n<|im_start|>assistant\n");
    assert_prompt("raw=true", "1+1?\n<think>\none\n</think>\n2\n\n2+2?\n4\n\n3+3?");
    // Where the tokenizer begins texts with a token, so does a raw prompt; a template writes its own.
    json_t *file = json_load_file("models/tiny/tokenizer.json", 0, NULL);
    json_object_set_new(file, "post_processor",
                        json_pack("{s:s, s:[{s:{s:s}}, {s:{s:s}}], s:{s:{s:[i]}}}", "type", "TemplateProcessing",
                                  "single", "SpecialToken", "id", "<|endoftext|>", "Sequence", "id", "A",
                                  "special_tokens", "<|endoftext|>", "ids", 509));
    assert_int_equal(json_dump_file(file, at("tokenizer.json"), 0), 0);
    json_decref(file);
    char *raw = xasprintf("raw=true few_shot=1 tokenizer=%s", at("tokenizer.json"));
    assert_prompt(raw, "<|endoftext|>1+1?\n<think>\none\n</think>\n2\n\n3+3?");
    free(raw);
    assert_prompt("chat_template=r1-zero system_prompt=S few_shot=1",
                  "S\n\nUser: 1+1?\nAssistant:\n<think>\none\n</think>\n2\n\nUser: 3+3?\nAssistant:\n");
}

static void bad_examples_are_one_clear_line(void **state) {
    static const struct {
        const char *file, *options;
        ExitCode code;
        const char *says;
    } cases[] = {
        {two, "few_shot=3", EXIT_INPUT, "has 2 examples, few_shot is 3"},
        {"{\"prompt\": \"a\"}\n", "", EXIT_INPUT, "shots.jsonl:1: no field \"completion\""},
        {"{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": 1, \"completion\": \"b\"}\n", "", EXIT_INPUT,
         "shots.jsonl:2: \"prompt\" is not a string"},
        {"\n", "", EXIT_INPUT, "no example in it"},
        {two, "max_prompt_length=20", EXIT_CONFIG, "max_prompt_length is 20; raise it, or set few_shot lower"},
        {two, "few_shot=1 few_shot_file=", EXIT_CONFIG, "few_shot is 1 but few_shot_file is not set"},
        {two, "few_shot_file=/nowhere.jsonl", EXIT_INPUT, "few_shot_file: /nowhere.jsonl"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error e = {0};
        put_examples(cases[i].file);
        char *text = prompt_of("3+3?", cases[i].options, &e);
        if (text || e.code != cases[i].code || !strstr(e.text, cases[i].says))
            fail_aloud("case %zu: code %d, %s", i, e.code, text ? text : e.text);
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(examples_are_turns_before_the_question, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(bad_examples_are_one_clear_line, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
