// Thoughts and summary between markers of one's own: what rewards, select and prompts make of them.
#include "chat.h"
#include "prompt.h"
#include "reward_set.h"
#include "select.h"
#include "shell.h"
#include "think.h"
#include "train_fixture.h"

static const ThinkMarkers special = {"|special_token|", "|special_token|"}, brackets = {"<<", ">>"};

static void assert_text(Text t, const char *want) {
    if (!text_is(t, want)) fail_msg("\"%.*s\", not \"%s\"", (int)t.n, t.s, want);
}

static void thoughts_and_summary_are_found(void **state) {
    static const struct {
        const ThinkMarkers *m;
        const char *text, *thoughts, *summary;
        bool whole;
    } cases[] = {
        {&think_tags, "<think>a</think> b ", "a", "b", true},
        {&think_tags, "<think>a</think>b</think>c", "a</think>b", "c", false},
        {&think_tags, "x<think>a</think>b", "a", "b", false},
        {&think_tags, "<think>a", "a", "<think>a", false},
        {&think_tags, "a</think>b", "a", "b", false},
        {&think_tags, "<think> </think>b", " ", "b", false},
        {&think_tags, "<think>a</think>\n", "a", "", false},
        {&think_tags, "plain", "plain", "plain", false},
        {&special, "|special_token|a|special_token|b", "a", "b", true},
        {&special, "|special_token|a", "a", "|special_token|a", false},
        {&special, "|special_token|a|special_token|b|special_token|c", "a|special_token|b", "c", false},
        {&special, "<think>a</think>b", "<think>a</think>b", "<think>a</think>b", false},
        {&brackets, "<<a>>b", "a", "b", true},
        {&brackets, "<<a>>b <<c>>", "a>>b <<c", "", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Text t = text_of(cases[i].text);
        assert_text(thoughts_of(cases[i].m, t), cases[i].thoughts);
        assert_text(summary_of(cases[i].m, t), cases[i].summary);
        assert_int_equal(think_is_whole(cases[i].m, t), cases[i].whole);
    }
}

// A reward as a run has it whose options are given.
static float score(const char *reward, const char *markers, const char *text) {
    char *rewards = xasprintf("rewards=%s", reward), *think = xasprintf("think_markers=%s", markers);
    Config c;
    Rewards rw;
    Error e = {0};
    char *arg[] = {rewards, think};
    if (!config_read(&c, NULL, arg, 2, &e) || !rewards_select(&c, &rw, &e) || !rewards_open(&rw, &e))
        fail_msg("%s", e.text);
    const Sample s = {.prompt = "", .completion = text, .completion_len = strlen(text), .answer = "4"};
    float x;
    rw.reward[0].info->fn(&rw.reward[0], &s, 1, &x);
    rewards_close(&rw);
    config_free(&c);
    free(rewards), free(think);
    return x;
}

// Every reward that looks for the tags looks for the markers: a text with one in the other's place has the same score.
static void rewards_go_by_the_markers(void **state) {
    static const char *const rewards[] = {"format",
                                          "format:form=old",
                                          "format:form=summary",
                                          "think_format",
                                          "tag_count",
                                          "code_format",
                                          "xmlcount",
                                          "soft_format",
                                          "strict_format",
                                          "language_consistency",
                                          "language_consistency:part=all",
                                          "reasoning_accuracy"};
    static const char *const texts[] = {
        "<think>\nTwo and two.\n</think>\n<answer>\n4\n</answer>\n",
        "<think>2+2</think><answer>4</answer>",
        "<think>\nfirst we add\n</think>\n<answer>\n```python\nprint(4)\n```\n</answer>",
        "<think>two and two make</think> The sum is 4",
        "<think>\xe4\xbd\xa0\xe5\xa5\xbd and</think> \\boxed{4}",
        "4",
        "<think>4"};
    static const struct {
        const char *option;
        ThinkMarkers m;
    } own[] = {{"<<,>>", {"<<", ">>"}}, {"BEGIN,END", {"BEGIN", "END"}}, {"|t|,|t|", {"|t|", "|t|"}}};
    int high = 0;
    for (size_t r = 0; r < sizeof rewards / sizeof *rewards; r++)
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            for (size_t k = 0; k < sizeof own / sizeof *own; k++) {
                // These count each tag, and there two are one text; xmlcount also counts characters.
                if (k == 2 && (!strcmp(rewards[r], "tag_count") || !strcmp(rewards[r], "xmlcount"))) continue;
                if (i > 0 && !strcmp(rewards[r], "xmlcount")) continue;
                char *text = think_replace(&own[k].m, texts[i]);
                float want = score(rewards[r], "<think>,</think>", texts[i]),
                      got = score(rewards[r], own[k].option, text);
                if (memcmp(&want, &got, sizeof got))
                    fail_msg("%s of %s: %g, with tags %g", rewards[r], text, (double)got, (double)want);
                high += want > 0;
                free(text);
            }
    assert_true(high > 60);
    assert_true(score("format:form=summary", "|t|,|t|", "|t|thoughts|t|summary") == 1);
    assert_true(score("format:form=summary", "|t|,|t|", "<think>thoughts</think>summary") == 0);
    assert_true(score("think_format", "<think>,</think>", "<think>a<think>b</think>") == 0);
}

static void select_reads_thoughts_by_the_markers(void **state) {
    static const char *const texts[] = {"|t|```2```|t|4", "|t|two|t|```4```", "<think>```2```</think>|t|x|t|y"};
    Config c;
    Rewards rw;
    Error e = {0};
    char *arg[] = {"rewards=completion_length", "select_rules=completion_length:min=0", "select_drop_code=true",
                   "select_per_question=0", "think_markers=|t|,|t|"};
    assert_true(config_read(&c, NULL, arg, 5, &e) && rewards_select(&c, &rw, &e));
    SelectRules *rules = select_rules_open(&c, &rw, &e);
    Drawn drawn[3];
    Drop drop[3];
    SelectCount count = {0};
    for (int i = 0; i < 3; i++) drawn[i] = (Drawn){texts[i], 5, false, 1, {1}};
    select_question(rules, 1, "?", drawn, 3, drop, &count);
    assert_int_equal(drop[0], DROP_CODE);
    assert_int_equal(drop[1], DROP_NONE);
    assert_int_equal(drop[2], DROP_NONE);
    select_rules_close(rules);
    rewards_close(&rw);
    config_free(&c);
}

// What asks for thoughts asks for them between the markers: the shipped message, and a template's own words.
static void prompts_name_the_markers(void **state) {
    static const struct {
        char *template, *markers;
        const char *has, *lacks;
    } cases[] = {{"chat_template=qwen2.5", "think_markers=<think>,</think>", "<think> </think>", "<<"},
                 {"chat_template=qwen2.5", "think_markers=<<,>>", "<<\nyour reasoning\n>>\n<answer>", "think>"},
                 {"chat_template=r1-zero", "think_markers=<<,>>", "<<\nthe reasoning\n>>\n<answer>", "think>"},
                 {"chat_template=r1-zero", "think_markers=<think>,</think>", NULL, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c;
        Prompter p;
        Error e = {0};
        char *arg[] = {cases[i].template, cases[i].markers};
        HfConfig hf = {0};
        assert_true(config_read(&c, NULL, arg, 2, &e));
        if (!prompter_open(&p, &c, &hf, NULL, strchr(cases[i].template, '=') + 1, &e)) fail_msg("%s", e.text);
        assert_int_equal(!p.system, !cases[i].has); // where it is NULL the template's own words stand
        if (cases[i].has && (!strstr(p.system, cases[i].has) || strstr(p.system, cases[i].lacks)))
            fail_msg("%s", p.system);
        prompter_close(&p);
        config_free(&c);
    }
}

static void mistakes_are_said(void **state) {
    static const struct {
        char *arg;
        const char *says;
    } cases[] = {
        {"think_markers=a", "wants two texts"},
        {"think_markers=a,b,c", "wants two texts"},
        {"think_markers=[a, '  ']", "is blank"},
        {"think_markers=[' a', b]", "white space at an end"},
        {"think_markers=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,b", "63 are the most"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c;
        Error e = {0};
        char *arg[] = {cases[i].arg};
        assert_false(config_read(&c, NULL, arg, 1, &e));
        if (!strstr(e.text, cases[i].says)) fail_msg("%s: %s", cases[i].arg, e.text);
    }
    char said[4096];
    char *command =
        xasprintf("printf '{\"completion\": \"<<a>>b\"}\\n' | %s reward format:form=summary think_markers='<<,>>'",
                  getenv("GRPO") ? getenv("GRPO") : "build/grpo");
    assert_int_equal(shell_run(command, said, sizeof said), 0);
    assert_string_equal(said, "{\"reward\": 1}\n");
    free(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thoughts_and_summary_are_found),
        cmocka_unit_test(rewards_go_by_the_markers),
        cmocka_unit_test(select_reads_thoughts_by_the_markers),
        cmocka_unit_test(prompts_name_the_markers),
        cmocka_unit_test(mistakes_are_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
