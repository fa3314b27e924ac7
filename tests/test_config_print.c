// Configurations that are printed read back as the same; the shipped ones are good; mutated ones do no harm.
#include "chat_parts.h"
#include "config_table.h"
#include "file.h"
#include "phases.h"
#include "config_text.h"
#include "nearest.h"

static void assert_round_trip(const Config *c) {
    char *first = config_yaml(c);
    write_file(first, strlen(first));
    Config again;
    Error e;
    if (!config_read(&again, path, NULL, 0, &e)) fail_msg("%s\n%s", e.text, first);
    char *second = config_yaml(&again);
    assert_string_equal(first, second);
    assert_true(!strcmp(again.system_prompt, c->system_prompt) && again.learning_rate == c->learning_rate);
    assert_list(&again.stop, c->stop.n, c->stop.item);
    free(first);
    free(second);
    config_free(&again);
}

static void passwords_are_not_printed(void **state) {
    static const char text[] = "rewards: [{name: judge, url: 'http://me:secret@host:8000/v1', model: a@b}]\n";
    write_file(text, strlen(text));
    Config c;
    Error e;
    if (!config_read(&c, path, NULL, 0, &e)) fail_msg("%s", e.text);
    char *yaml = config_yaml(&c);
    assert_null(strstr(yaml, "secret"));
    assert_non_null(strstr(yaml, "http://***@host:8000/v1"));
    assert_non_null(strstr(yaml, "model=a@b"));
    free(yaml);
    config_free(&c);
    char *odd =
        xstrdup("rewards=judge:url=http://me:se%2Fcret@host/v1,judge:as=second,url=https://me:se%23c'ret@host/v1");
    if (!config_read(&c, NULL, &odd, 1, &e)) fail_msg("%s", e.text);
    yaml = config_yaml(&c);
    assert_null(strstr(yaml, "cret"));
    assert_null(strstr(yaml, "c'ret"));
    assert_non_null(strstr(yaml, "https://***@host/v1"));
    free(odd);
    free(yaml);
    config_free(&c);
}

// Nor where the argument itself is wrong, whether it is quoted whole or cut.
static void passwords_are_not_in_errors(void **state) {
    static const char *const args[] = {
        "rewards=judge:urll=http://me:secret@host/v1", "rewards=http://me:secret@host/v1",
        "rewards=judge:retries=a number that makes it long,url=http://me:secret@host/v1", "modle=http://me:secret@host",
        // URLs that are none, or whose password ends what a URL's may
        "rewards=judge:url=me:secret@host/v1", "rewards=judge:url=me:se=secr:ret@host/v1",
        "rewards=judge:ulr=me:secret@host/v1", "rewards=judge:url=http:/me:secret@host/v1",
        "rewards=judge:url=//me:secret@host/v1", "rewards=judge:url=ftp://me:secret@host/v1",
        "rewards=judge:url=http://me:x secret@host/v1", "rewards=judge:url=http://me:x,secret@host/v1",
        "rewards=judge:url=http://me:x/secret@host/v1", "rewards=judge:url=http://me:x#'secret@host/v1",
        "rewards=judge:urll=http://me:x/secret@host/v1", "rewards=judge:urll=http://me:x'secret@host/v1",
        "me:secret@host"};
    for (size_t i = 0; i < sizeof args / sizeof *args; i++) {
        char *arg = xstrdup(args[i]);
        Config c;
        Error e = {0};
        assert_false(config_read(&c, NULL, &arg, 1, &e));
        if (strstr(e.text, "secr") || !strstr(e.text, "argument '")) fail_msg("%s", e.text);
        free(arg);
    }
}

static void yaml_reads_back_the_same(void **state) {
    static const char *const texts[] = {"",
                                        " ",
                                        "null",
                                        "true",
                                        "No",
                                        "~",
                                        "1",
                                        "-",
                                        "- a",
                                        "a: b",
                                        "a #b",
                                        "#",
                                        "'",
                                        "\"",
                                        "\\",
                                        "\\n",
                                        "\n\n x\n",
                                        "\t",
                                        "a\r\nb",
                                        "[a, b]",
                                        "{a}",
                                        "*a",
                                        "&a",
                                        "!a",
                                        "%a",
                                        "@a",
                                        "`a`",
                                        "|",
                                        ">",
                                        "?",
                                        "---",
                                        "...",
                                        "a,b",
                                        "\x01\x7f\x1b[0m",
                                        "\u00e9\u6587\U0001f600",
                                        "\xc2\x85\u2028\u2029\ufeff",
                                        "\ufffe\U0010ffff\xc2\x9f",
                                        " a ",
                                        "a ",
                                        "=",
                                        "<<",
                                        ".5",
                                        "1e3"};
    Config c = read_good("", NULL, 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *stop = c.stop.n ? c.stop.item[0] : NULL;
        free(stop);
        free(c.system_prompt);
        c.system_prompt = xstrdup(texts[i]);
        c.stop.n = *texts[i] != 0;
        if (!c.stop.item) c.stop.item = xmalloc(sizeof *c.stop.item);
        c.stop.item[0] = *texts[i] ? xstrdup(texts[i]) : NULL;
        assert_round_trip(&c);
    }
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 300; i++) {
        bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
        c.learning_rate = ldexp((double)(bits >> 11), -50 - (int)(bits % 40));
        assert_round_trip(&c);
    }
    for (double x = 10; x > 0; x /= 1e7) c.learning_rate = x, assert_round_trip(&c);
    config_free(&c);
    c = read_good("",
                  ARGS("learning_rate=5e-6", "beta=0.04", "temperature=10", "max_grad_norm=1e9", "num_train_epochs=0.1",
                       "top_p=0.95", "seed=9007199254740991", "rewards=[{name: int, weight: 0.5}, correctness]"));
    char *yaml = config_yaml(&c);
    static const char *const lines[] = {"\nlearning_rate: 5e-6\n",    "\nbeta: 0.04\n",
                                        "\ntemperature: 10\n",        "\nmax_grad_norm: 1e9\n",
                                        "\nnum_train_epochs: 0.1\n",  "\ntop_p: 0.95\n",
                                        "\nseed: 9007199254740991\n", "\nrewards: [\"int:weight=0.5\", correctness]\n",
                                        "\nloss_type: grpo\n",        "\nstop: []\n",
                                        "\nshuffle: true\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!strstr(yaml, lines[i])) fail_msg("%s is not in %s", lines[i], yaml);
    assert_round_trip(&c);
    free(yaml);
    config_free(&c);
}

#define NAME(g, s, n, ...) #n,
static const char *const names[] = {CONFIG_OPTIONS(NAME, NAME, NAME, NAME, NAME, NAME, NAME)};
#define NAMES ((int)(sizeof names / sizeof *names))

// An option changes numbers unless its row says otherwise.
static void few_options_change_nothing(void **state) {
    static const char *const free_ones[] = {"threads",       "cpu_isa",       "comm_timeout",     "reference_weights",
                                            "output_dir",    "save_steps",    "save_total_limit", "resume",
                                            "logging_steps", "profile_steps", "log_completions",  "report",
                                            "report_to",     "on_save",       "on_eval",          "on_end",
                                            "hook_timeout",  "log_tokens",    "progress"};
    int n = 0;
    for (int i = 0; i < NAMES; i++) {
        bool may = config_may_change(names[i], strlen(names[i]));
        if (may) assert_string_equal(names[i], free_ones[n++]);
        assert_int_equal(config_is_local(names[i], strlen(names[i])), !strcmp(names[i], "threads"));
    }
    assert_int_equal(n, sizeof free_ones / sizeof *free_ones);
    assert_true(config_may_change("threads: 4", 7));
    assert_false(config_may_change("threads: 4", 6) || config_is_local("reward_threads", 14));
}

// What `select` reads decides what it draws, but for these: where and how fast it computes, what it keeps, and options
// of the training that shares a group with them.
static void few_options_leave_what_is_drawn(void **state) {
    static const char *const others[] = {"load",
                                         "grad_dtype",
                                         "optim_dtype",
                                         "recompute",
                                         "gradient_checkpointing",
                                         "device",
                                         "gpus",
                                         "eval_file",
                                         "shuffle",
                                         "rollout_batch",
                                         "reward_threads",
                                         "select_limit",
                                         "select_output",
                                         "select_rules",
                                         "select_drop_code",
                                         "select_max_paragraph",
                                         "select_max_tokens",
                                         "select_drop_easy",
                                         "select_max_overlap",
                                         "select_per_question",
                                         "select_choose"};
    int n = 0;
    for (int i = 0; i < OPTION_COUNT; i++) {
        const Option *o = &config_options[i];
        bool read = config_reads("select", o->name, strlen(o->name));
        if (!strcmp(o->name, "seed")) assert_true(read && o->scope == SCOPE_DRAWS);
        if (read && o->scope == SCOPE_SAME) assert_string_equal(o->name, others[n++]);
        if (!read) assert_int_not_equal(o->scope, SCOPE_DRAWS);
    }
    assert_int_equal(n, sizeof others / sizeof *others);
}

static void help_names_every_option(void **state) {
    char *page = config_help(NULL), *train = config_help("train"), *all = config_help("config"),
         *none = config_help("reward"), *sample = config_help("sample");
    for (int i = 0; i < NAMES; i++) {
        char cell[64], line[64];
        snprintf(cell, sizeof cell, "\n| `%s` | ", names[i]);
        snprintf(line, sizeof line, "\n  %s ", names[i]);
        if (!strstr(page, cell)) fail_msg("the reference page lacks %s", names[i]);
        if (!strstr(all, line)) fail_msg("no command reads %s", names[i]);
    }
    assert_non_null(strstr(train, "\n  num_generations "));
    assert_null(strstr(train, "\n  packing "));
    assert_string_equal(none, "");
    assert_non_null(strstr(train, "\n  long_prompts "));
    assert_null(strstr(sample, "\n  long_prompts ")); // it refuses what is too long, whatever that says
    assert_non_null(
        strstr(page, "`train`, `sft`, `reward_model`. Free to change in a resumed run: `output_dir`, `save_steps`, "));
    // The page's example of a list is one that is read.
    const char *example = strstr(page, "`rewards=");
    assert_non_null(example);
    char *argument = xstrndup(example + 1, strcspn(example + 1, "`"));
    Config c = read_good("", ARGS(argument));
    assert_int_equal(c.rewards.n, 2);
    config_free(&c);
    free(argument);
    for (const char *p = all; *p; p += strcspn(p, "\n"), p += *p == '\n') assert_true(strcspn(p, "\n") <= 100);
    free(page);
    free(train);
    free(all);
    free(none), free(sample);
}

// What help says of an option whose values have a table elsewhere names each of its rows.
static void help_names_every_value(void **state) {
    const char *chat = NULL, *lora = NULL;
    for (int i = 0; i < OPTION_COUNT; i++) {
        if (!strcmp(config_options[i].name, "chat_template")) chat = config_options[i].help;
        if (!strcmp(config_options[i].name, "lora_target")) lora = config_options[i].help;
    }
    for (int i = 0; i < chat_template_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s", i ? ", " : "", chat_templates[i].name);
        if (i ? !strstr(chat, name) : strncmp(chat, name, strlen(name)) != 0)
            fail_msg("help of chat_template lacks %s", name);
    }
    assert_non_null(strstr(lora, "of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or all-linear"));
    char *page = config_help(NULL);
    assert_non_null(strstr(page, "| `dr_grpo` | as grpo | sum / (completions x `max_completion_length`) |"));
    free(page);
}

static void nearest_names(void **state) {
    static const struct {
        const char *word, *name;
    } cases[] = {
        {"beta", "beta"},
        {"bta", "beta"},
        {"ebta", "beta"},
        {"top-k", "top_k"},
        {"TOP_P", "top_p"},
        {"learnin_rate", "learning_rate"},
        {"max_lenght", "max_length"},
        {"xyzzy", NULL},
        {"", NULL},
        {"q", NULL},
        {"a_word_that_is_longer_than_any_name_in_the_table_of_options_by_far_and_more", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *near = nearest_name(cases[i].word, names, NAMES);
        if (cases[i].name ? !near || strcmp(near, cases[i].name) : near != NULL)
            fail_msg("%s -> %s", cases[i].word, near ? near : "nothing");
    }
}

// ---- files that come with the project, and files that nobody would write ------------------------------------------

// A pipeline's file: its phases are checked, whatever they make.
static char *some_product(void *arg, const Phases *ps, int k, const char *which) {
    return xasprintf("made/%s", ps->phase[k].name);
}

static bool is_pipeline(const char *file) {
    size_t n;
    char *text = file_read_text(file, 1 << 20, &n, NULL);
    bool is = text && strstr(text, "\nphases:");
    free(text);
    return is;
}

static void shipped_configs_are_good(void **state) {
    DIR *dir = opendir("configs");
    assert_non_null(dir);
    int found = 0;
    for (struct dirent *f; (f = readdir(dir));) {
        if (!strstr(f->d_name, ".yaml")) continue;
        char *file = xasprintf("configs/%s", f->d_name);
        Config c = {0};
        Phases ps = {0};
        Error e;
        if (!(is_pipeline(file) ? phases_read(&ps, file, NULL, 0, some_product, NULL, &e)
                                : config_args(&c, "train", ARGV(file, "model=m", "train_file=t"), &e)))
            fail_msg("%s", e.text);
        found++;
        config_free(&c);
        phases_free(&ps);
        free(file);
    }
    closedir(dir);
    assert_true(found >= 7);
}

// Mutations of a configuration: whatever comes out is read or refused with a message, and leaks nothing.
static void mutated_files(void **state) {
    Config c = read_good("", ARGS("rewards=[{name: int, weight: 2}, correctness]", "stop=[\"a\\n\", b]"));
    char *yaml = config_yaml(&c), *text = xmalloc(strlen(yaml) + 64);
    config_free(&c);
    static const char alphabet[] = "\0\n\t :-?[]{},#&*!|>'\"%@`~0e.a\xff\xc3\xa9";
    uint64_t r = 1;
    int good = 0;
    for (int i = 0; i < 2000; i++) {
        size_t n = strlen(yaml);
        memcpy(text, yaml, n);
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        for (uint64_t k = 0; k < 1 + r % 4; k++) {
            uint64_t at = (r >> 8) * (k + 1) % n, byte = alphabet[(r >> 40) * (k + 3) % (sizeof alphabet - 1)];
            if ((r >> 5) % 3 == 0) memmove(text + at, text + at + 1, --n - at);
            else text[at] = (char)byte;
        }
        write_file(text, n);
        Error e = {0};
        if (config_read(&c, path, NULL, 0, &e)) good++, config_free(&c);
        else assert_true(e.code == EXIT_CONFIG && *e.text && strlen(e.text) < sizeof e.text - 1);
    }
    assert_true(good >= 1 && good <= 1999);
    free(yaml);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passwords_are_not_printed),       cmocka_unit_test(passwords_are_not_in_errors),
        cmocka_unit_test(yaml_reads_back_the_same),        cmocka_unit_test(few_options_change_nothing),
        cmocka_unit_test(few_options_leave_what_is_drawn), cmocka_unit_test(help_names_every_option),
        cmocka_unit_test(help_names_every_value),          cmocka_unit_test(nearest_names),
        cmocka_unit_test(shipped_configs_are_good),        cmocka_unit_test(mutated_files),
    };
    return cmocka_run_group_tests_name("config_print", tests, make_folder, remove_folder);
}
