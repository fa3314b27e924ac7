// What a profiler is told: which steps to record, and the ranges of phases and layers.
#include "train_fixture.h"
#include <string.h>

static void steps_are_read(void **state) {
    static const struct {
        const char *text;
        bool good;
        int64_t first, last;
    } known[] = {{"", true, 0, 0},      {"3:5", true, 3, 5},  {"4", true, 4, 4},   {"1:1", true, 1, 1},
                 {"0:2", false, 0, 0},  {"5:3", false, 0, 0}, {":3", false, 0, 0}, {"3:", false, 0, 0},
                 {"3:5x", false, 0, 0}, {"x", false, 0, 0},   {"-1", false, 0, 0}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        int64_t first, last;
        bool good = config_step_range(known[i].text, &first, &last);
        if (good != known[i].good) fail_msg("'%s' is taken for %s", known[i].text, good ? "good" : "bad");
        if (good) assert_true(first == known[i].first && last == known[i].last);
    }
}

// A device that writes down what a profiler would hear.
static char heard[1 << 16];
static int depth, layers;
static void hear(const char *text) { strncat(heard, text, sizeof heard - strlen(heard) - 1); }
static void hear_range(Device *d, const char *name) {
    depth += name ? 1 : -1;
    assert_true(depth >= 0);
    if (name && strstr(name, "layer")) layers++;
    if (!name || depth > 1) return; // only the outermost: phases
    hear(name);
    hear(" ");
}
static void hear_record(Device *d, bool on) { hear(on ? "[" : "] "); }

static void steps_between_are_recorded(void **state) {
    Device d = {.name = "test", .range = hear_range, .record = hear_record};
    Config c = {.profile_steps = "3:4"};
    Profile p = profile_open(&d, &c, NULL);
    *heard = 0;
    for (int step = 1; step <= 6; step++) {
        profile_step(&p, step);
        profile_phase(&p, "a");
        profile_phase(&p, "a");
        profile_phase(&p, "b");
    }
    profile_close(&p);
    assert_string_equal(heard, "a b a b [a b a b ] a b a b ");
    assert_int_equal(depth, 0);
    // A run that goes on in the middle, and one that ends there.
    p = profile_open(&d, &c, NULL);
    *heard = 0;
    profile_step(&p, 4);
    profile_close(&p);
    profile_close(&p);
    assert_string_equal(heard, "[] ");
}

static void a_step_shows_its_phases_and_layers(void **state) {
    Fixture f;
    fixture_dir(&f);
    fixture_open(&f, "profile_steps=2");
    Device *d = f.t.learner.engine.device;
    d->range = hear_range, d->record = hear_record;
    f.t.report.profile = profile_open(d, &f.cfg, NULL);
    for (int step = 1; step <= 3; step++) {
        *heard = 0, layers = 0;
        profile_step(&f.t.report.profile, step);
        fixture_step(&f);
        profile_phase(&f.t.report.profile, NULL);
        assert_string_equal(heard, step == 2   ? "[rollout rewards reference train optimizer "
                                   : step == 3 ? "] rollout rewards reference train optimizer "
                                               : "rollout rewards reference train optimizer ");
        assert_int_equal(depth, 0);
        // Two micro-batches run forward and backward through every layer, and two more forward for the reference.
        assert_true(layers >= 6 * f.t.learner.engine.hf.dims.L);
    }
    fixture_close(&f);
    fixture_remove(&f);
}

static void the_cpu_has_none(void **state) {
    Fixture f;
    fixture_dir(&f);
    fixture_open(&f, "profile_steps=1:2 device=cpu");
    f.t.report.profile = profile_open(f.t.learner.engine.device, &f.cfg, NULL);
    profile_step(&f.t.report.profile, 1);
    fixture_step(&f);
    profile_close(&f.t.report.profile);
    fixture_close(&f);
    fixture_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_read),
        cmocka_unit_test(steps_between_are_recorded),
        cmocka_unit_test(a_step_shows_its_phases_and_layers),
        cmocka_unit_test(the_cpu_has_none),
    };
    return cmocka_run_group_tests_name("profile", tests, NULL, NULL);
}
