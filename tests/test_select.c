// Rejection sampling: what the rules keep, and the command that draws, stops, goes on and keeps.
#include "example.h"
#include "file.h"
#include "select.h"
#include "shell.h"
#include "train_fixture.h"
#include <errno.h>
#include <sys/stat.h>

static const char *const texts[] = {
    "<think>\nTom has two pens and gets three.\n</think>\n5",  // 0
    "<think>\ntom  has TWO pens and gets three.\n</think>\n5", // 1: the same but for case and white space
    "<think>\nTom has two pens and gets three more.\n</think>\n5",
    "<think>\n```python\n2+3\n```\n</think>\n5",                                       // 3: code in the thoughts
    "<think>\nfive\n</think>\n```\n5\n```",                                            // 4: code in the answer
    "<think>\nOne line.\n \nA second, longer paragraph\nof two lines.\n</think>\n5\n", // 5
    "6",
};
enum { TEXTS = sizeof texts / sizeof *texts };

// Reads options, opens rules over two rewards and asks them of the first n texts; score[0] is 1 for all but `wrong`,
// score[1] and tokens are the index.
typedef struct {
    Config cfg;
    Rewards rw;
    SelectRules *rules;
    Drawn drawn[TEXTS];
    Drop drop[TEXTS];
    SelectCount count;
} Asked;

static void asked_open(Asked *a, const char *options, int wrong) {
    char *all = xasprintf("rewards=correctness,completion_length %s", options), *arg[16];
    int n = 0;
    for (char *word = strtok(all, " "); word; word = strtok(NULL, " ")) arg[n++] = word;
    Error e = {0};
    *a = (Asked){0};
    if (!config_read(&a->cfg, NULL, arg, n, &e) || !rewards_select(&a->cfg, &a->rw, &e) ||
        !(a->rules = select_rules_open(&a->cfg, &a->rw, &e)))
        fail_msg("%s", e.text);
    for (int i = 0; i < TEXTS; i++)
        a->drawn[i] = (Drawn){texts[i], 10 + i, false, (float)i, {i == wrong ? 0 : 1, (float)i}};
    free(all);
}

static void asked_close(Asked *a) {
    select_rules_close(a->rules);
    rewards_close(&a->rw);
    config_free(&a->cfg);
}

// What becomes of the first n texts: a letter each.
static void assert_drops(const char *options, int wrong, const char *fates) {
    static const char letter[] = "KTSCPNEDOX";
    char got[TEXTS + 1] = "";
    Asked a;
    int n = (int)strlen(fates);
    asked_open(&a, options, wrong);
    select_question(a.rules, 1, "How many?", a.drawn, n, a.drop, &a.count);
    for (int i = 0; i < n; i++) got[i] = letter[a.drop[i]];
    if (strcmp(got, fates)) fail_msg("%s: %s, not %s", options, got, fates);
    asked_close(&a);
}

static void rules_drop_what_they_name(void **state) {
    assert_drops("select_per_question=0 select_rules=correctness:min=1", 6, "KDKKKKS");
    assert_drops("select_per_question=0 select_rules=correctness:max=0.5", 6, "SSSSSSK");
    assert_drops("select_per_question=0 select_rules=completion_length:min=2,max=4", -1, "SSKKKSS");
    assert_drops("select_per_question=0 select_rules=reward:min=5", -1, "SSSSSKK");
    assert_drops("select_per_question=0 select_rules=correctness:min=1 select_drop_code=true", -1, "KDKCKKK");
    assert_drops("select_per_question=0 select_rules=correctness:min=1 select_max_tokens=13", -1, "KDKKNNN");
    // Texts 0 and 2 share 5 of the 8 + 9 - 5 runs of three words in either: .417.
    assert_drops("select_per_question=0 select_rules=correctness:min=1 select_max_overlap=0.41", -1, "KDOKKKK");
    assert_drops("select_per_question=0 select_rules=correctness:min=1 select_max_overlap=0.42", -1, "KDKKKKK");
    // The longest paragraphs of texts 0 and 5 have 51 characters, that of text 1 has one more.
    assert_drops("select_per_question=0 select_rules=correctness:min=1 select_max_paragraph=51", -1, "KPPKKKK");
    assert_drops("select_per_question=0 select_rules=correctness:min=1 select_max_paragraph=50", -1, "PPPKKPK");
    assert_drops("select_per_question=0 select_rules=correctness:min=1 select_drop_easy=true", -1, "EEEEEEE");
    assert_drops("select_per_question=0 select_rules=correctness:min=1 select_drop_easy=true", 6, "KDKKKKS");
}

static void the_best_are_kept(void **state) {
    assert_drops("select_per_question=2 select_rules=correctness:min=1", 0, "SKKXXXX");
    assert_drops("select_per_question=2 select_rules=correctness:min=1 select_choose=highest", 6, "XXXXKKS");
    Asked a, b;
    int kept[TEXTS] = {0};
    for (int line = 0; line < 200; line++) { // by lot: each is taken now and then, the same by the same seed
        asked_open(&a, "select_rules=correctness:min=1 select_choose=seed", 6);
        asked_open(&b, "select_rules=correctness:min=1 select_choose=seed", 6);
        select_question(a.rules, line, "How many?", a.drawn, TEXTS, a.drop, &a.count);
        select_question(b.rules, line, "How many?", b.drawn, TEXTS, b.drop, &b.count);
        assert_memory_equal(a.drop, b.drop, sizeof a.drop);
        for (int i = 0; i < TEXTS; i++) kept[i] += a.drop[i] == DROP_NONE;
        asked_close(&a), asked_close(&b);
    }
    for (int i = 0; i < 6; i++) assert_true(kept[i] >= 15 && kept[i] <= 60); // 33 expected
    assert_int_equal(kept[6], 0);
}

static void truncated_and_unscored_answers_are_dropped(void **state) {
    Asked a;
    asked_open(&a, "select_per_question=0 select_rules=correctness:min=1", 6);
    a.drawn[0].truncated = true;
    a.drawn[2].score[0] = NAN; // an abstention
    select_question(a.rules, 1, "How many?", a.drawn, 4, a.drop, &a.count);
    assert_int_equal(a.drop[0], DROP_TRUNCATED);
    assert_int_equal(a.drop[1], DROP_NONE);
    assert_int_equal(a.drop[2], DROP_SCORE);
    assert_int_equal(a.count.by_rule[0], 1);
    assert_int_equal(a.count.completions, 4);
    assert_int_equal(a.count.kept, 2);
    asked_close(&a);
}

// The same answer to the same question, however it is written, stands in the file once; to another question it may.
static void an_answer_is_kept_once_a_question(void **state) {
    Asked a;
    asked_open(&a, "select_rules=correctness:min=1", -1);
    select_question(a.rules, 1, "How many pens?", &a.drawn[6], 1, a.drop, &a.count);
    select_question(a.rules, 2, "HOW many  pens?", &a.drawn[6], 1, &a.drop[1], &a.count);
    select_question(a.rules, 3, "How many cups?", &a.drawn[6], 1, &a.drop[2], &a.count);
    assert_int_equal(a.drop[0], DROP_NONE);
    assert_int_equal(a.drop[1], DROP_DUPLICATE);
    assert_int_equal(a.drop[2], DROP_NONE);
    char question[32];
    for (int i = 0; i < 5000; i++) { // the table grows
        snprintf(question, sizeof question, "Question %d", i % 2500);
        select_question(a.rules, i, question, &a.drawn[6], 1, a.drop, &a.count);
        assert_int_equal(a.drop[0], i < 2500 ? DROP_NONE : DROP_DUPLICATE);
    }
    assert_int_equal(a.count.dropped[DROP_DUPLICATE], 2501);
    asked_close(&a);
}

// A question that comes again is the same one: what is kept of it counts, however near two answers may be.
static void a_question_may_come_again(void **state) {
    Asked a;
    asked_open(&a, "select_rules=correctness:min=1 select_per_question=2 select_max_overlap=0.4", -1);
    select_question(a.rules, 1, "How many?", &a.drawn[0], 1, &a.drop[0], &a.count);
    select_question(a.rules, 2, "Which?", &a.drawn[2], 1, &a.drop[1], &a.count);
    select_question(a.rules, 3, "how  many?", &a.drawn[2], 2, &a.drop[2], &a.count); // much like the first; another
    select_question(a.rules, 4, "How many?", &a.drawn[5], 1, &a.drop[4], &a.count);  // two are kept
    select_question(a.rules, 5, "How many?", &a.drawn[1], 1, &a.drop[5], &a.count);  // the first itself
    const Drop want[] = {DROP_NONE, DROP_NONE, DROP_OVERLAP, DROP_NONE, DROP_ENOUGH, DROP_DUPLICATE};
    for (int i = 0; i < 6; i++) assert_int_equal(a.drop[i], want[i]);
    asked_close(&a);
}

// ---- the command ----------------------------------------------------------------------------------------------------

static Fixture f;
static char said[8192];

static int run(const char *more) {
    const char *program = getenv("GRPO") ? getenv("GRPO") : "build/grpo", *on = getenv("GRPO_TEST_DEVICE");
    char *command = xasprintf(
        "%s select device=%s model=models/tiny init=random dtype=f32 raw=true max_prompt_length=40 threads=1 "
        "max_completion_length=16 temperature=1 seed=7 rewards=completion_length,xmlcount stop=e select_samples=3 "
        "rollout_batch=8 select_rules=completion_length:max=16 train_file=%s/train.jsonl select_output=%s/out %s 2>&1",
        program, on ? on : "cpu", f.dir, f.dir, more);
    int code = shell_run(command, said, sizeof said);
    free(command);
    return code;
}

static char *output(const char *name) {
    char *path = xasprintf("%s/%s", f.dir, name);
    size_t n;
    Error e = {0};
    char *text = file_read(path, 1 << 24, &n, &e);
    if (!text) fail_msg("%s", e.text);
    free(path);
    return text;
}

// A program that gives each completion its length, and the shortest none; while `none` is there it abstains, while
// `down` is there it dies, while `half` is there at every other request.
static void put_scorer(void) {
    char *path = xasprintf("%s/scorer", f.dir);
    FILE *program = fopen(path, "w");
    assert_non_null(program);
    fprintf(program,
            "#!/bin/sh\n"
            "while IFS= read -r line; do\n"
            "id=${line#*: }; id=${id%%%%,*}\n"
            "[ $id = 0 ] && { echo '{\"id\": 0, \"scores\": []}'; continue; }\n"
            "[ -e %s/down ] && exit 1\n"
            "[ -e %s/half ] && [ $((id %% 2)) = 0 ] && { echo no; continue; }\n"
            "text=${line#*\\\"completion\\\": \\\"}; text=${text%%%%\\\"*}; score=${#text}\n"
            "[ $score -lt 3 -o -e %s/none ] && score=null\n"
            "echo \"{\\\"id\\\": $id, \\\"scores\\\": [$score]}\"\n"
            "done\n",
            f.dir, f.dir, f.dir);
    fclose(program);
    assert_int_equal(chmod(path, 0755), 0);
    free(path);
}

static int command_setup(void **state) { return fixture_dir(&f), 0; }
static int command_teardown(void **state) { return fixture_remove(&f), 0; }

// Cut anywhere, the samples are completed to the bytes of a straight run; so with two ranks; and other rules draw
// nothing.
static void a_stopped_run_ends_in_the_same_bytes(void **state) {
    if (run("")) fail_msg("%s", said);
    assert_non_null(strstr(said, "of 40 questions"));
    char *samples = output("out/samples.jsonl"), *kept = output("out/kept.jsonl"), *table = output("out/select.json");
    char *path = xasprintf("%s/out/samples.jsonl", f.dir);
    size_t whole = strlen(samples), first = strcspn(samples, "\n") + 1;
    const size_t cuts[] = {0, 1, first / 2, first - 1, first, first + 1, first + (whole - first) / 2, whole - 2};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        assert_int_equal(truncate(path, (off_t)cuts[i]), 0);
        if (run("")) fail_msg("%s", said);
        char *again = output("out/samples.jsonl"), *kept_again = output("out/kept.jsonl");
        assert_string_equal(again, samples);
        assert_string_equal(kept_again, kept);
        free(again), free(kept_again);
    }
    FILE *damaged = fopen(path, "r+"); // in the middle
    assert_non_null(damaged);
    fseek(damaged, (long)(first + (whole - first) / 2), SEEK_SET);
    fputs("\n\n{", damaged);
    fclose(damaged);
    if (run("")) fail_msg("%s", said);
    assert_non_null(strstr(said, ": this line is damaged; from its question on, samples are drawn again"));
    char *mended = output("out/samples.jsonl");
    assert_string_equal(mended, samples);
    free(mended);
    if (run("")) fail_msg("%s", said);
    assert_null(strstr(said, "damaged"));
    // A question of which no line is left; lines without tokens, or without scores.
    static const char *const edits[] = {"/\"line\": 7,/d", "9s/\"tokens\": [0-9]*, //", "9s/\"scores\"/\"other\"/"};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char *edit = xasprintf("sed -i '%s' %s", edits[i], path);
        assert_int_equal(system(edit), 0);
        char *edited = output("out/samples.jsonl");
        assert_string_not_equal(edited, samples);
        if (run("")) fail_msg("%s", said);
        assert_non_null(strstr(said, ": this line is damaged; from its question on, samples are drawn again"));
        mended = output("out/samples.jsonl");
        assert_string_equal(mended, samples);
        free(mended), free(edit), free(edited);
    }
    if (run("select_rules=completion_length:max=6 threads=2 rollout_batch=4")) fail_msg("%s", said);
    char *again = output("out/samples.jsonl"), *fewer = output("out/select.json");
    assert_string_equal(again, samples);
    assert_string_not_equal(fewer, table);
    assert_null(strstr(said, "step ")); // nothing was drawn
    free(again), free(fewer);
    const char *on = getenv("GRPO_TEST_DEVICE");
    static const char *const ranks[] = {"gpus=2", "gpus=4"};
    for (int k = 0; k < 2 && (!on || !strcmp(on, "cpu")); k++) {
        assert_int_equal(unlink(path), 0);
        if (run(ranks[k])) fail_msg("%s", said);
        char *of_ranks = output("out/samples.jsonl"), *kept_of_ranks = output("out/kept.jsonl");
        assert_string_equal(of_ranks, samples);
        assert_string_equal(kept_of_ranks, kept);
        free(of_ranks), free(kept_of_ranks);
    }
    free(samples), free(kept), free(table), free(path);
}

static void set(const char *name, bool there) {
    char *path = xasprintf("%s/%s", f.dir, name);
    FILE *file = there ? fopen(path, "w") : NULL;
    if (file) fclose(file);
    else assert_true(!there && (!unlink(path) || errno == ENOENT));
    free(path);
}

// A score that did not come, since a program or a judge was away, is asked for by the next run, which draws nothing and
// ends in the bytes of one where nothing was away. What lacks a score is not counted as a low one.
static void scores_that_did_not_come_are_asked_for(void **state) {
    put_scorer();
    char *straight = xasprintf("'rewards=completion_length,external:command=%s/scorer,batch=1' "
                               "select_rules=external:min=3 select_output=%s/straight",
                               f.dir, f.dir);
    if (run(straight)) fail_msg("%s", said);
    char *samples = output("straight/samples.jsonl"), *kept = output("straight/kept.jsonl"),
         *table = output("straight/select.json");
    assert_non_null(strstr(samples, "\"external\": null")); // the shortest
    const char *on = getenv("GRPO_TEST_DEVICE");
    for (int ranks = 1; ranks <= (on && strcmp(on, "cpu") ? 1 : 2); ranks++) {
        char *more = xasprintf("'rewards=completion_length,external:command=%s/scorer,batch=1' "
                               "select_rules=external:min=3 gpus=%d",
                               f.dir, ranks);
        set("down", true);
        int code = run(more);
        if (code != 3) fail_msg("exit %d: %s", code, said);
        assert_non_null(strstr(said, "no score of external: 120 completions; the same command asks for them again"));
        assert_non_null(strstr(said, "the same command asks for the scores that they lack again"));
        assert_null(strstr(said, "outside select_rules"));
        assert_null(strstr(said, "looser rules"));
        char *counts = output("out/select.json");
        int outside, unscored;
        assert_int_equal(sscanf(strstr(counts, "\"external:min=3\""),
                                "\"external:min=3\", \"completions\": %d, \"without_score\": %d}", &outside, &unscored),
                         2);
        assert_int_equal(outside, unscored);
        assert_non_null(strstr(counts, "\"without_score\": {\"completion_length\": 0, \"external\": 120}}"));
        free(counts);
        char *path = xasprintf("%s/out/samples.jsonl", f.dir);
        assert_int_equal(truncate(path, (off_t)(strlen(samples) / 3)), 0); // and it was stopped
        set("down", false), set("half", true);
        if (run(more)) fail_msg("%s", said);
        assert_non_null(strstr(said, "completions there lack a score: their rewards are asked again"));
        char *some = output("out/samples.jsonl");
        assert_string_not_equal(some, samples);
        set("half", false);
        // Asked in another way, which changes no score; another program may.
        char *way =
                 xasprintf("'rewards=[completion_length, \"external:timeout=29,batch=1,command=%s/scorer,workers=2\"]' "
                           "select_rules=external:min=3 gpus=%d",
                           f.dir, ranks),
             *other = xasprintf("'rewards=completion_length,external:command=%s/scorer 2,batch=1' "
                                "select_rules=external:min=3 gpus=%d",
                                f.dir, ranks);
        assert_int_equal(run(other), 2);
        assert_non_null(strstr(said, "was drawn with other options: rewards (was "));
        assert_non_null(strstr(said, "/scorer 2,batch=1\"]); choose another select_output"));
        if (run(way)) fail_msg("%s", said);
        free(way), free(other);
        assert_null(strstr(said, "step ")); // nothing was drawn
        char *again = output("out/samples.jsonl"), *kept_again = output("out/kept.jsonl"),
             *table_again = output("out/select.json");
        assert_string_equal(again, samples);
        assert_string_equal(kept_again, kept);
        assert_string_equal(table_again, table);
        assert_int_equal(unlink(path), 0);
        free(again), free(kept_again), free(table_again), free(some), free(path), free(more);
    }
    free(samples), free(kept), free(table), free(straight);
}

// A reward that abstained from every completion is named at the end, once, with how many there were; one that scored
// some is not, nor one whose faults say it already.
static void silent_rewards_are_named(void **state) {
    put_scorer();
    const char *on = getenv("GRPO_TEST_DEVICE"), note[] = "note: reward external: none of the 120 completions of this "
                                                          "run has a score: it abstained from each";
    for (int i = 0; i < (on && strcmp(on, "cpu") ? 3 : 4); i++) { // none; some; all failed; none, of two ranks
        char *more = xasprintf("'rewards=completion_length,external:command=%s/scorer,batch=1' gpus=%d "
                               "select_output=%s/silent%d",
                               f.dir, 1 + i / 3, f.dir, i);
        set("none", i % 3 == 0), set("down", i == 2);
        if (run(more)) fail_msg("%s", said);
        const char *once = strstr(said, note);
        if (!once != (i % 3 > 0) || (once && strstr(once + 1, "note: reward"))) fail_msg("%d: %s", i, said);
        assert_null(strstr(said, "completion_length: none"));
        free(more);
    }
}

// Several files are asked one behind the other, each row once; every line says which file it is of.
static void files_are_asked_in_turn(void **state) {
    char *path = xasprintf("%s/second.jsonl", f.dir), *out = xasprintf("%s/both", f.dir);
    FILE *second = fopen(path, "w");
    assert_non_null(second);
    for (int i = 0; i < 3; i++) fprintf(second, "{\"question\": \"%d and 1?\", \"answer\": \"#### %d\"}\n", i, i + 1);
    fclose(second);
    char *more = xasprintf("select_output=%s 'train_file=[%s, %s/train.jsonl]'", out, path, f.dir);
    if (run(more)) fail_msg("%s", said);
    assert_non_null(strstr(said, "of 43 questions"));
    char *samples = output("both/samples.jsonl"), *kept = output("both/kept.jsonl");
    char *first = xasprintf("\n{\"file\": \"%s\", \"line\": 3, \"sample\": 2, \"question\": \"2 and 1?\"", path),
         *then = xasprintf("\n{\"file\": \"%s/train.jsonl\", \"line\": 1, \"sample\": 0, ", f.dir),
         *origin = xasprintf("\"origin\": {\"file\": \"%s/train.jsonl\", \"line\": ", f.dir);
    const char *a = strstr(samples, first), *b = strstr(samples, then);
    assert_true(a && b && a < b && strchr(a + 1, '\n') == b);
    assert_non_null(strstr(kept, origin));
    char *samples_path = xasprintf("%s/samples.jsonl", out);
    assert_int_equal(truncate(samples_path, (off_t)(strlen(samples) / 20)), 0); // in the first file
    if (run(more)) fail_msg("%s", said);
    char *again = output("both/samples.jsonl");
    assert_string_equal(again, samples);
    second = fopen(path, "a");
    fputs("{\"question\": \"9 and 1?\", \"answer\": \"#### 10\"}\n", second);
    fclose(second);
    assert_int_equal(run(more), 2);
    assert_non_null(strstr(said, "with other options: what is in train_file;"));
    free(path), free(out), free(more), free(samples), free(kept), free(first), free(then), free(origin);
    free(samples_path), free(again);
}

static void mistakes_are_said(void **state) {
    static const struct {
        const char *options;
        int code;
        const char *says;
    } cases[] = {
        {"select_rules=completion_lenght:max=1", 2, "did you mean `completion_length`?"},
        {"select_rules=completion_length", 2, "wants a bound"},
        {"select_rules=xmlcount:min=x", 2, "`x` is no number"},
        {"select_rules=xmlcount:least=1", 2, "there is no `least=1`"},
        {"select_rules=xmlcount:min=2,max=1", 2, "no score is at least 2 and at most 1"},
        {"select_rules=[]", 2, "select_rules is empty"},
        {"select_output=", 2, "select_output is not set"},
        {"temperature=0", 2, "all samples of a question would be the same"},
        {"select_limit=2 select_rules=completion_length:min=-9,xmlcount:min=9", 3,
         "no completion is kept of 6: 6 xmlcount outside select_rules (xmlcount:min=9);"},
        {"select_limit=2 select_rules=completion_length:min=-9 select_drop_easy=true", 3,
         "of 6: 6 question with right answers only;"},
        {"select_output=/proc/nowhere", 4, "/proc/nowhere"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = run(cases[i].options);
        if (code != cases[i].code || !strstr(said, cases[i].says))
            fail_msg("%s: exit %d (not %d): %s", cases[i].options, code, cases[i].code, said);
    }
    assert_int_equal(run("select_limit=2 seed=8"), 2); // the samples are of seed 7
    assert_non_null(strstr(said, "was drawn with other options: seed (was 7, is 8); choose another select_output"));
    char *path = xasprintf("%s/train.jsonl", f.dir);
    FILE *more = fopen(path, "a");
    assert_non_null(more);
    fputs("{\"question\": \"One more?\", \"answer\": \"#### 1\"}\n", more);
    fclose(more);
    assert_int_equal(run("select_limit=2"), 2);
    assert_non_null(strstr(said, "was drawn with other options: what is in train_file;"));
    free(path);
    path = xasprintf("%s/examples.jsonl", f.dir);
    char *shown = xasprintf("select_limit=2 few_shot=1 few_shot_file=%s select_output=%s/shown", path, f.dir);
    for (int i = 0; i < 2; i++) { // changed in place
        FILE *examples = fopen(path, "w");
        assert_non_null(examples);
        fprintf(examples, "{\"prompt\": \"Two and %d?\", \"completion\": \"#### %d\"}\n", i, 2 + i);
        fclose(examples);
        int code = run(shown);
        if (code != (i ? 2 : 0) || (i && !strstr(said, "with other options: what is in few_shot_file;")))
            fail_msg("%d: exit %d: %s", i, code, said);
    }
    free(path), free(shown);
    path = xasprintf("%s/out/samples.jsonl", f.dir);
    FILE *foreign = fopen(path, "w");
    assert_non_null(foreign);
    fputs("{\"line\": 1}\n", foreign);
    fclose(foreign);
    assert_int_equal(run("select_limit=2"), 2);
    assert_non_null(strstr(said, "does not say what it was drawn with"));
    free(path);
}

// A disk that is full costs what was being written, and nothing else: with room again it ends in the same bytes.
static void a_full_disk_costs_nothing(void **state) {
    if (run("")) fail_msg("%s", said);
    char *samples = output("out/samples.jsonl"), *kept = output("out/kept.jsonl"), *room = getenv("GRPO"), command[256];
    assert_true(strlen(samples) > 3 * 1024);
    snprintf(command, sizeof command, "rm %s/out/*", f.dir);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "ulimit -f 4; exec %s", room ? room : "build/grpo"); // 2 KiB a file
    setenv("GRPO", command, 1);
    int code = run("");
    if (room) setenv("GRPO", room, 1);
    else unsetenv("GRPO");
    if (code != 4 || !strstr(said, "samples.jsonl")) fail_msg("exit %d: %s", code, said);
    if (run("")) fail_msg("%s", said);
    char *again = output("out/samples.jsonl"), *kept_again = output("out/kept.jsonl");
    assert_string_equal(again, samples);
    assert_string_equal(kept_again, kept);
    free(again), free(kept_again), free(samples), free(kept);
}

// A prompt that is too long is not asked and is counted, and never cut: what is kept would answer another question.
static void long_prompts_are_left_out(void **state) {
    if (run("max_prompt_length=5 select_limit=3 select_samples=2 select_rules=reward:min=-100") != 3)
        fail_msg("%s", said);
    assert_non_null(strstr(said, "not asked: 3 questions"));
    assert_non_null(strstr(said, "no question was asked: the prompt of each of the 3 is longer than max_prompt_length, "
                                 "which is 5 tokens; raise it, with another select_output"));
    assert_int_equal(run("max_prompt_length=5 long_prompts=fail select_output=x"), 3);
    assert_non_null(strstr(said, "train.jsonl:1: the prompt has"));
}

// sft learns from kept.jsonl the very ids that were the prompt's, and the completion's text.
static void kept_rows_are_what_sft_reads(void **state) {
    if (run("raw=false chat_template=qwen2.5 max_prompt_length=300 select_limit=4 system_prompt=Hm."))
        fail_msg("%s", said);
    fixture_config(&f, "chat_template=qwen2.5 system_prompt=Hm. max_prompt_length=300");
    Engine en = {0};
    Prompter pr = {0};
    Error e = {0};
    if (!engine_prepare(&en, &f.cfg, &e) || !engine_prompter(&en, &pr, &e)) fail_msg("%s", e.text);
    char *path = xasprintf("%s/out/kept.jsonl", f.dir);
    Dataset *kept = dataset_open_sft(path, &f.cfg, &(RowCheck){example_check, &pr}, &e);
    if (!kept) fail_msg("%s", e.text);
    assert_true(dataset_rows(kept) >= 1 && dataset_rows(kept) <= 4);
    Dataset *asked = dataset_open(f.cfg.train_file.item[0].path, &f.cfg, NULL, &e);
    for (int64_t i = 0; i < dataset_rows(kept); i++) {
        Row row, question;
        Example x = {0};
        Ids prompt = {0};
        assert_true(dataset_row(kept, i, &row, &e));
        int64_t line = json_integer_value(json_object_get(json_object_get(row.example, "origin"), "line"));
        assert_true(dataset_row(asked, line - 1, &question, &e));
        assert_true(prompter_ids(&pr, question.question, &prompt, &e));
        assert_true(example_read(&pr, row.example, &x, &e));
        assert_true(x.ids.n > prompt.n);
        assert_memory_equal(x.ids.id, prompt.id, prompt.n * sizeof *prompt.id);
        for (size_t k = 0; k + 1 < prompt.n; k++) // in a conversation the newline behind "assistant" is learned
            if (x.wanted[k]) fail_msg("token %zu of the prompt's %zu is learned", k, prompt.n);
        assert_int_equal(x.wanted[prompt.n], 1);
        const char *said_by_model =
            json_string_value(json_object_get(json_array_get(json_object_get(row.example, "messages"), 2), "content"));
        Str text = {0};
        tokenizer_decode(en.tokenizer, x.ids.id + prompt.n, x.ids.n - prompt.n, true, &text);
        assert_int_equal(strncmp(text.s, said_by_model, strlen(said_by_model)), 0);
        str_free(&text);
        ids_free(&prompt);
        example_free(&x);
        row_free(&row), row_free(&question);
    }
    dataset_free(kept), dataset_free(asked);
    prompter_close(&pr);
    engine_close(&en);
    config_free(&f.cfg);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_drop_what_they_name),
        cmocka_unit_test(the_best_are_kept),
        cmocka_unit_test(truncated_and_unscored_answers_are_dropped),
        cmocka_unit_test(an_answer_is_kept_once_a_question),
        cmocka_unit_test(a_question_may_come_again),
        cmocka_unit_test_setup_teardown(a_stopped_run_ends_in_the_same_bytes, command_setup, command_teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_costs_nothing, command_setup, command_teardown),
        cmocka_unit_test_setup_teardown(scores_that_did_not_come_are_asked_for, command_setup, command_teardown),
        cmocka_unit_test_setup_teardown(silent_rewards_are_named, command_setup, command_teardown),
        cmocka_unit_test_setup_teardown(files_are_asked_in_turn, command_setup, command_teardown),
        cmocka_unit_test_setup_teardown(mistakes_are_said, command_setup, command_teardown),
        cmocka_unit_test_setup_teardown(long_prompts_are_left_out, command_setup, command_teardown),
        cmocka_unit_test_setup_teardown(kept_rows_are_what_sft_reads, command_setup, command_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
