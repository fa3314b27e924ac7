// What metrics.jsonl says of a step's memory, and of the share that training had of a card.
#include "on_device.h"
#include "train_fixture.h"
#include <sys/resource.h>

static void costs_are_told(void **state) {
    Fixture f;
    Error e = {0};
    fixture_dir(&f);
    fixture_open(&f, "dtype=bf16 num_generations=4");
    Device *d = f.t.learner.engine.device;
    double known = d->peak_flops;
    d->peak_flops = 3e9;
    assert_true(run_resume(&f.t.learner, &f.t.state, NULL, &f.t.report.metrics, &e));
    StepResult done = fixture_step(&f);
    assert_true(done == STEP_DONE && train_log(&f.t, done, &e));
    const Batch *b = &f.t.generation.batch;
    ModelDims n = f.t.learner.engine.hf.dims;
    double tokens = 0, rows = 0, alone = 0; // a token that predicts another is a row
    for (int i = 0; i < b->n; i++) {
        double before = (double)b->prompt[i / b->group].n - 1; // a group has these once
        tokens += b->len[i];
        rows += b->len[i] + (i % b->group ? 0 : before);
        alone += b->len[i] + before;
    }
    // Multiplications and additions of a token, counted matrix by matrix.
    double block = 2. * n.D * (n.H + 2 * n.K) * n.d + 2. * n.H * n.d * n.D + 3 * 2. * n.D * n.F,
           keys = (alone / b->n + 1) / 2, attention = 2 * 2. * n.H * n.d * keys;
    double flop = 3 * (rows * n.L * (block + attention) + tokens * 2 * n.D * n.V);
    json_t *j = last_line(&f);
    assert_told(j, "mfu", flop / (f.t.stats.train_time * 3e9));
    // Between what is resident now and what getrusage saw at most, which leave out each thread's last few pages.
    double kib = json_real_value(json_object_get(j, "memory/process_gib")) * (1 << 20);
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    FILE *statm = fopen("/proc/self/statm", "r");
    long resident;
    assert_true(statm && fscanf(statm, "%*d %ld", &resident) == 1);
    fclose(statm);
    assert_true(kib > 0.9 * (double)(resident * sysconf(_SC_PAGESIZE) >> 10) && kib < 1.1 * (double)use.ru_maxrss);
    const json_t *on_card = json_object_get(j, "memory/device_gib");
    assert_true(d->on_host ? !on_card : json_real_value(on_card) > 0.06); // the ops' scratch alone
    json_decref(j);
    d->peak_flops = known;
    fixture_close(&f);
    fixture_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_are_told),
    };
    return cmocka_run_group_tests_name("costs", tests, NULL, NULL);
}
