// Several training files with weights: whose turn it is, whose rewards score, and that a run that stopped goes on the
// same.
#include "on_device.h"
#include "train_fixture.h"

static Fixture f;
static int setup(void **state) {
    fixture_dir(&f);
    const struct {
        const char *name;
        int rows;
    } files[] = {{"a", 40}, {"b", 7}, {"c", 1}};
    for (int k = 0; k < 3; k++) {
        char *path = xasprintf("%s/%s.jsonl", f.dir, files[k].name);
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        for (int i = 0; i < files[k].rows; i++)
            fprintf(out,
                    "{\"question\": \"%s %d + %d?\", \"answer\": \"#### %d\", \"prompt\": \"%s%d\", \"completion\": "
                    "\"%d\"}\n",
                    files[k].name, i, k, i + k, files[k].name, i, i);
        assert_int_equal(fclose(out), 0);
        free(path);
    }
    return 0;
}
static int teardown(void **state) { return fixture_remove(&f), 0; }

// train_file=[{file: a, ...}, ...] of the fixture's files, as one word.
static char *files_word(const char *pattern) {
    Str s = {0};
    str_puts(&s, "train_file=");
    for (const char *p = pattern; *p; p++)
        if (*p == '@') str_printf(&s, "%s/%c.jsonl", f.dir, *++p);
        else str_add(&s, p, 1);
    return s.s;
}
#define TWO                                                                                                            \
    "[{file:\t@a,weight:\t3},{file:\t@b,weight:\t1,rewards:\t[\"regex:pattern=e,as=has_e\",\"completion_length:"       \
    "weight=1\"]}]"

static Mix *open_mix(Config *c, const char *pattern) {
    char *word = files_word(pattern);
    Error e = {0};
    if (!config_read(c, NULL, &word, 1, &e)) fail_msg("%s", e.text);
    Mix *m = mix_open(c, dataset_open, NULL, &e);
    if (!m) fail_msg("%s", e.text);
    free(word);
    return m;
}

// n questions: which file each is of, as a string, and that of each file they are its own data set's, in its order.
static void draw(Mix *m, int n, char *of) {
    for (int i = 0; i < n; i++) {
        Row row;
        Error e = {0};
        if (!mix_next(m, &row, &e)) fail_msg("%s", e.text);
        of[i] = *row.question;
        assert_int_equal(of[i], "abc"[row.file]);
        row_free(&row);
    }
    of[n] = 0;
}

static void files_take_turns_by_weight(void **state) {
    static const struct {
        const char *files, *turns;
    } cases[] = {{"[{file: @a, weight: 3}, {file: @b}]", "aaabaaabaaab"},
                 {"[@a, @b, @c]", "abcabcabcabc"},
                 {"[{file: @a, weight: 0}, {file: @b, weight: 1e-3}]", "bbbbbbbbbbbb"},
                 {"[{file: @a, weight: 0.5}, {file: @b, weight: 1.25}, {file: @c, weight: 0.25}]", "bbabbabcbbab"},
                 {"@a", "aaaaaaaaaaaa"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char turns[13];
        Config c;
        Mix *m = open_mix(&c, cases[i].files);
        draw(m, 12, turns);
        assert_string_equal(turns, cases[i].turns);
        mix_free(m), config_free(&c);
    }
    // Far into a run the ratio is the weights', and any stretch has it to one question.
    Config c;
    Mix *m = open_mix(&c, "[{file: @a, weight: 2}, {file: @b, weight: 3}]");
    char turns[5001];
    draw(m, 5000, turns);
    for (int from = 0; from < 4990; from += 5) {
        int b = 0;
        for (int i = from; i < from + 5; i++) b += turns[i] == 'b';
        assert_int_equal(b, 3);
    }
    assert_int_equal(mix_rows(m), 47);
    assert_string_equal(mix_about(m), " of 2 files");
    mix_free(m), config_free(&c);
}

static void a_file_is_drawn_as_if_it_were_alone(void **state) {
    Config c, alone;
    Mix *m = open_mix(&c, "[@a, {file: @b, weight: 2}]"), *b = open_mix(&alone, "@b");
    Error e = {0};
    for (int i = 0; i < 60; i++) { // nearly six epochs of b
        Row x, y;
        assert_true(mix_next(m, &x, &e));
        if (x.file == 1) {
            assert_true(mix_next(b, &y, &e));
            assert_string_equal(x.question, y.question);
            assert_int_equal(x.line, y.line);
            assert_non_null(strstr(x.path, "/b.jsonl"));
            row_free(&y);
        }
        row_free(&x);
    }
    MixCursor at = mix_cursor(m);
    assert_int_equal(at.n, 2);
    assert_int_equal(at.file[1].at.epoch, 5);
    assert_int_equal(at.file[1].at.index, 5);
    assert_int_equal(at.file[1].drawn, 40);
    mix_free(m), mix_free(b);
    config_free(&c), config_free(&alone);
}

static void it_goes_on_where_its_cursor_is(void **state) {
    Config c, other;
    Mix *m = open_mix(&c, "[{file: @a, weight: 1.5}, @b, {file: @c, weight: 0.3}]");
    char all[101], rest[101];
    draw(m, 100, all);
    mix_free(m);
    for (int stop = 0; stop < 100; stop += 7) {
        m = open_mix(&other, "[{file: @a, weight: 1.5}, @b, {file: @c, weight: 0.3}]");
        draw(m, stop, rest);
        MixCursor at = mix_cursor(m);
        mix_free(m);
        m = mix_open(&c, dataset_open, NULL, NULL);
        mix_seek(m, &at);
        draw(m, 100 - stop, rest);
        assert_string_equal(rest, all + stop);
        mix_free(m), config_free(&other);
    }
    // What is of no use does not count: the next is of the same file.
    m = mix_open(&c, dataset_open, NULL, NULL);
    draw(m, 1, rest);
    mix_again(m);
    draw(m, 1, rest + 1);
    assert_string_equal(rest, "aa");
    draw(m, 99, rest);
    assert_string_equal(rest, all + 1);
    mix_free(m), config_free(&c);
}

static void files_are_told_apart(void **state) {
    Config c;
    char *more = xasprintf("mkdir -p %s/d && cp %s/a.jsonl %s/d/a.jsonl", f.dir, f.dir, f.dir);
    assert_int_equal(system(more), 0);
    free(more);
    char *word = xasprintf("train_file=[%s/a.jsonl, %s/b.jsonl, %s/d/a.jsonl]", f.dir, f.dir, f.dir);
    assert_true(config_read(&c, NULL, &word, 1, NULL));
    Mix *m = mix_open(&c, dataset_open, NULL, NULL);
    assert_string_equal(mix_label(m, 1), "b");
    assert_string_equal(mix_label(m, 0), c.train_file.item[0].path);
    assert_string_equal(mix_label(m, 2), c.train_file.item[2].path);
    mix_free(m), config_free(&c);
    free(word);
}

// ---- training -------------------------------------------------------------------------------------------------------

static json_t *line_of(const char *text, int number) {
    for (; number > 1; number--) text = strchr(text, '\n') + 1;
    json_t *j = json_loadb(text, strcspn(text, "\n"), 0, NULL);
    assert_non_null(j);
    return j;
}

static double told(const json_t *line, const char *name) {
    const json_t *v = json_object_get(line, name);
    if (!json_is_number(v)) fail_msg("no number %s", name);
    return json_number_value(v);
}

// Every completion has the scores of its file's rewards, which are those of a run on that file alone, and no other; the
// metrics tell of each file what its completions say.
static void questions_are_scored_by_their_files_rewards(void **state) {
    char *word = files_word(TWO),
         *more = xasprintf("%s per_device_train_batch_size=16 rewards=completion_length,xmlcount", word);
    fixture_open(&f, more);
    Trainer *t = &f.t;
    const Batch *b = &t->generation.batch;
    Error e = {0};
    if (!trainer_resume(t, &e)) fail_msg("%s", e.text);
    assert_int_equal(t->scoring.rewards.n, 3); // completion_length is one of both
    double sum[2] = {0}, n[2] = {0};
    assert_int_equal(fixture_step(&f), STEP_DONE);
    for (int i = 0; i < b->n; i++) {
        int file = b->file[i / b->group];
        const float *score = b->score + i * 3;
        assert_int_equal(*b->question[i / b->group], "ab"[file]);
        assert_int_equal(isnan(score[1]), file == 1);
        assert_int_equal(isnan(score[2]), file == 0);
        if (file) assert_true(score[2] == (float)(strchr(b->text[i], 'e') != NULL));
        assert_true(b->reward[i] == (file ? (float)((double)score[0] + (double)score[2])
                                          : (float)((double)score[0] + (double)score[1])));
        sum[file] += (double)b->reward[i], n[file]++;
    }
    assert_int_equal(n[0], 24); // 3 : 1 of 8 questions of 4
    assert_int_equal(n[1], 8);
    assert_true(train_log(t, STEP_DONE, &e));
    char *text = metrics_text(&f), *completions = output_text(&f, "completions.jsonl");
    json_t *line = line_of(text, 1), *first = line_of(completions, 1), *fourth = line_of(completions, 13);
    assert_true(fabs(told(line, "files/a/reward") - sum[0] / n[0]) < 1e-6);
    assert_true(fabs(told(line, "files/b/reward") - sum[1] / n[1]) < 1e-6);
    assert_int_equal(told(line, "files/b/questions"), 2);
    assert_true(fabs(told(line, "files/b/rewards/has_e/mean") - told(line, "rewards/has_e/mean")) < 1e-6);
    assert_null(json_object_get(line, "files/a/rewards/has_e/mean"));
    assert_string_equal(json_string_value(json_object_get(first, "file")), "a");
    assert_string_equal(json_string_value(json_object_get(fourth, "file")), "b");
    json_decref(line), json_decref(first), json_decref(fourth);
    free(text), free(completions);
    fixture_close(&f);
    free(word), free(more);
}

static char *run_parts(const char *more, int stop, char **state_json) {
    Fixture g;
    fixture_dir(&g);
    for (int part = 0; part < 2; part++) {
        Error e = {0};
        fixture_open(&g, more);
        if (!trainer_resume(&g.t, &e)) fail_msg("%s", e.text);
        while (g.t.state.step < (part ? g.t.total_steps : stop)) {
            assert_int_equal(fixture_step(&g), STEP_DONE);
            assert_true(train_log(&g.t, STEP_DONE, &e));
            if (!trainer_save(&g.t, &e)) fail_msg("%s", e.text);
        }
        if (part == 0) {
            fixture_step(&g); // a step begun and lost
            fixture_close(&g);
        }
    }
    char *metrics = metrics_text(&g);
    *state_json = output_text(&g, "step_6/manifest.json"); // with the CRC of every file
    fixture_close(&g);
    fixture_remove(&g);
    return metrics;
}

static void a_stopped_run_of_several_files_is_the_same_run(void **state) {
    char *word = files_word(TWO),
         *more = xasprintf("%s steps_per_generation=4 num_iterations=2 dynamic_sampling=1", word);
    char *manifest, *metrics = run_parts(more, 0, &manifest);
    for (int stop = 1; stop < 6; stop++) {
        char *other, *again = run_parts(more, stop, &other);
        assert_string_equal(metrics, again);
        // All but the configuration, which names output_dir.
        json_t *x = json_loads(manifest, 0, NULL), *y = json_loads(other, 0, NULL);
        json_t *files[2] = {json_object_get(x, "files"), json_object_get(y, "files")};
        assert_non_null(json_object_get(files[0], "model.safetensors"));
        for (int k = 0; k < 2; k++) assert_int_equal(json_object_del(files[k], "state/config.yaml"), 0);
        char *mine = json_dumps(files[0], JSON_SORT_KEYS), *its = json_dumps(files[1], JSON_SORT_KEYS);
        assert_string_equal(mine, its);
        free(mine), free(its);
        json_decref(x), json_decref(y);
        free(other), free(again);
    }
    free(manifest), free(metrics), free(word), free(more);
}

// A checkpoint says where each file was: with another number of files there is no going on.
static void another_number_of_files_is_refused(void **state) {
    Error e = {0};
    char *two = files_word("[@a,@b]");
    fixture_open(&f, two);
    assert_true(trainer_resume(&f.t, &e));
    assert_int_equal(fixture_step(&f), STEP_DONE);
    assert_true(trainer_save(&f.t, &e));
    fixture_close(&f);
    fixture_open(&f, "");
    assert_false(trainer_resume(&f.t, &e));
    assert_int_equal(e.code, EXIT_CONFIG);
    assert_non_null(strstr(e.text, "was trained on 2 files, train_file has 1"));
    fixture_close(&f);
    free(two);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_take_turns_by_weight),
        cmocka_unit_test(a_file_is_drawn_as_if_it_were_alone),
        cmocka_unit_test(it_goes_on_where_its_cursor_is),
        cmocka_unit_test(files_are_told_apart),
        cmocka_unit_test(questions_are_scored_by_their_files_rewards),
        cmocka_unit_test(a_stopped_run_of_several_files_is_the_same_run),
        cmocka_unit_test(another_number_of_files_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
