// The benchmark's floor model against the figures that were printed from it for a card of 4.3 TB/s and 790 TFLOP/s.
#include "../bench/floor.h"
#include "model.h"
#include "near.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define BW 4.3e12
#define P  790e12

// Qwen2.5-0.5B, 1.5B, 7B
static const ModelDims models[] = {
    {.family = &qwen2_family, .V = 151936, .D = 896, .F = 4864, .L = 24, .H = 14, .K = 2, .d = 64, .tied = true},
    {.family = &qwen2_family, .V = 151936, .D = 1536, .F = 8960, .L = 28, .H = 12, .K = 2, .d = 128, .tied = true},
    {.family = &qwen2_family, .V = 152064, .D = 3584, .F = 18944, .L = 28, .H = 28, .K = 4, .d = 128},
};

// Within half a unit of the last digit that was printed.
static void assert_printed(double value, double printed, double unit) { assert_near(value, printed, 0.5001 * unit); }

static void sizes_and_arithmetic(void **state) {
    static const double params[] = {494032768, 1543714304, 7615616512}, gflop[] = {1.010, 3.131, 14.244};
    static const double kv[] = {12288, 28672, 57344};
    static const double ceiling[] = {261, 84.1, 18.5}, unit[] = {1, 0.1, 0.1}; // thousand tokens a second
    for (int m = 0; m < 3; m++) {
        assert_true(floor_params(models[m]) == params[m]);
        assert_true(floor_params(models[m]) == (double)model_param_count(models[m]));
        assert_printed(floor_forward(models[m], 512) * 1e-9, gflop[m], 0.001);
        assert_printed(P / (3 * floor_forward(models[m], 512)) * 1e-3, ceiling[m], unit[m]);
        assert_true(floor_kv(models[m]) == kv[m]);
    }
}

static void decode_step(void **state) {
    static const double batch[] = {8, 64, 256, 1024};
    static const double ms[3][4] = {{.24, .30, .52, 1.4}, {.74, .89, 1.4, 4.1}, {3.3, 3.6, 4.7, 18.5}};
    static const double unit[3][4] = {{.01, .01, .01, .1}, {.01, .01, .1, .1}, {.1, .1, .1, .1}};
    for (int m = 0; m < 3; m++)
        for (int b = 0; b < 4; b++)
            assert_printed(floor_decode(models[m], batch[b], 400, BW, P) * 1e3, ms[m][b], unit[m][b]);
}

static void head(void **state) {
    static const double sample_us[] = {88, 151, 353}, loss_ms[] = {8.5, 14.5, 33.9};
    for (int m = 0; m < 3; m++) {
        assert_printed(floor_sample(models[m], 256, BW, P) * 1e6, sample_us[m], 1);
        assert_printed(floor_loss(models[m], 8192, BW, P) * 1e3, loss_ms[m], 0.1);
    }
}

static void optimizer(void **state) {
    assert_true(floor_adamw(2, 4, 4) == 30);
    assert_true(floor_adamw(2, 2, 2) == 14);
    assert_true(floor_adamw(4, 4, 4) == 28);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_arithmetic),
        cmocka_unit_test(decode_step),
        cmocka_unit_test(head),
        cmocka_unit_test(optimizer),
    };
    return cmocka_run_group_tests_name("floor", tests, NULL, NULL);
}
