// The share of its limit that each kernel is expected to reach on a GPU, written down before it was measured there.
// `bench floor` prints the table as times; a run on a GPU shows it beside the measured share.
#include "bench.h"
#include "floor.h"
#include <math.h>
#include <string.h>

// Measured ceilings: device-to-device copy, read + written, and a bf16 product of 8192 cubed (PERFORMANCE of H200; for
// the H100's copy what the best published memory-bound kernels reach there). f32 without TF32: the boost clock's rate,
// less a tenth.
static const struct {
    const char *name;
    double bw, bf16, f32; // bytes a second, FLOP a second
} cards[] = {{"H100", 3.0e12, 700e12, 60e12}, {"H200", 4.3e12, 790e12, 60e12}};

// Shares of the limit that binds, memory or tensor cores. A row's entry is the first one where the row's name begins
// with `name` and contains `part`.
static const struct {
    const char *name, *part;
    double share;
} expected[] = {
    // Products. Backward: cuBLASLt as it was measured on an H200, its other guesses being no better; wgmma from the
    // time that the forward kernel took there, less what edges of tiles and the last wave lose (matmul_bwd_hopper.cu),
    // which is why a run takes it for gate_up and down and the library for qkv and o.
    {"matmul gate_up dx by cuBLASLt", "", 0.92},
    {"matmul o dw by cuBLASLt", "", 0.70},
    {"matmul ", " by cuBLASLt", 0.83},
    {"matmul gate_up dx", "", 0.96},
    {"matmul gate_up dw", "", 0.96},
    {"matmul down dx", "", 0.93},
    {"matmul down dw", "", 0.90},
    {"matmul qkv dx by wgmma", "", 0.83},
    {"matmul qkv dw by wgmma", "", 0.74},
    {"matmul o dx by wgmma", "", 0.79},
    {"matmul o dw by wgmma", "", 0.60},
    {"matmul o dw", "", 0.70},
    {"matmul ", "dx [8192", 0.83},
    {"matmul ", "dw [8192", 0.81},
    // Forward, by wgmma: what matmul_hopper.cu took in a test program on an H200, 206, 115, 30 and 27 us; with swiglu
    // 16 more for the instructions at the end of a tile.
    {"matmul gate_up + swiglu [8192", "", 0.82},
    {"matmul gate_up [8192", "", 0.88},
    {"matmul down [8192", "", 0.79},
    {"matmul qkv [8192", "", 0.71},
    {"matmul o [8192", "", 0.61},
    // One wave and a rest; launch and the way of the first bytes are 2 to 3 us. By wgmma where it gives enough SMs a
    // tile (hopper_choice.h): a tile of gate_up's one wave is 6.1 us of products on an H200, one of down's chunks 4.2
    // and 1.5 for the sums; the first boxes and the launch 2.
    {"matmul gate_up + swiglu [256", "", 0.57},
    {"matmul gate_up + swiglu [8,", "", 0.55},
    {"matmul gate_up [256", "", 0.60},
    {"matmul down [256", "", 0.35},
    {"matmul ", "[256", 0.20},
    {"matmul gate_up [8,", "", 0.55},
    {"matmul down [8,", "", 0.35},
    {"matmul ", "[8,", 0.18},
    {"matmul T=2720", "", 0.75}, // gate_up's share, less edges (22 tiles of 128 rows) and a last wave (6.3 of 7)
    {"matmul_swiglu T=2720", "", 0.70},
    {"norm_matmul T=8", "F=4864", 0.51}, // the product's time and 0.7 us of norm
    {"norm_matmul T=8", "F=1152", 0.16},
    {"norm_matmul T=64", "", 0.13}, // norm_matmul.cu counts 4.5 and 7.0 us
    {"norm_matmul T=256", "", 0.135},
    {"matmul_bwd ", "", 0.65},
    // One pass over memory; those of 16 M elements are half as long as launching them. What f32 was measured to reach
    // is expected of bf16 too, now that all loads of a thread are under way together and pairs are converted at once.
    // An SM of an H200 moves 18 bytes a clock and issues 128 instructions of threads, 7 a byte; the kernels' comments
    // count theirs against that.
    {"fill ", "134217728", 0.95},
    {"cast ", "134217728", 0.94},
    {"lerp ", "134217728", 0.95},
    {"sumsq ", "134217728", 0.92}, // f64 sums: half of what is issued
    {"adamw ", "134217728", 0.90},
    {"rmsnorm T=32768", "", 0.90}, // a warp a row, no barrier: 560 instructions where the bytes leave room for 1,600
    {"rmsnorm T=16384", "", 0.90},
    {"rmsnorm_bwd T=32768", "", 0.85}, // 16 warps an SM, and 264 sums of dw in a launch of their own
    {"rmsnorm_bwd T=16384", "", 0.85},
    {"swiglu T=32768", "", 0.93}, // 150 instructions for 8 elements, room for 340
    {"swiglu T=8192", "", 0.93},
    {"swiglu_bwd T=32768", "", 0.93}, // 217 instructions, room for 570
    {"swiglu_bwd T=8192", "", 0.93},
    {"lora_down ", "", 0.12},         // a launch, and 28 loads one after another
    {"lora_up ", "", 0.45},           // a column a thread: loads of 4 and stores of 2 bytes
    {"lora_grad ", "", 0.20},         // x read for every 8 rows of dw, then the parts
    {"qk_norm T=2720", "", 0.65},     // 12 us of bytes, 4 of launch and of the first and last blocks
    {"qk_norm_bwd T=2720", "", 0.50}, // and two more launches, for the sums
    {"rope T=32768", "", 0.88}, // an angle's sine and cosine in f64, once a token and pair, while loads are under way
    {"rope_bwd T=32768", "", 0.80}, // and a launch for the sums of the bias' gradient
    {"embed T=32768", "", 0.88},
    {"embed_bwd T=32768", "", 0.60}, // 15 us of sorting beside 40 of bytes
    // p in two parts doubles the second product. By wgmma: softmax of one warpgroup over the products of another; for
    // small heads its instructions bind, for large ones the tensor cores; tiles of four chunks and a half.
    {"attention T=16384", "d=64", 0.36},
    {"attention T=16384", "d=128", 0.47},
    // Five products in one pass; a quarter of the tiles' work lies beyond the diagonal, and dq is summed in f32.
    {"attention_bwd T=16384", "d=64", 0.41},
    {"attention_bwd T=16384", "d=128", 0.48}, // two launches: scratch holds dq of three kv heads
    {"decode T=256", "", 0.60},
    {"rope_decode T=256", "d=64", 0.59}, // its own rows rotated on the way
    // Turns of 4 us, of which three blocks a multiprocessor hide most; bound by memory but for the last wave.
    {"rope_decode T=256", "d=128", 0.70},
    // By wgmma: one warpgroup sums or draws while the other multiplies, as far as the ring of stages is long.
    {"logprob T=8192", "", 0.77},
    {"logprob_bwd T=8192", "", 0.73}, // and two products, whose sums go through memory
    {"sample T=256", "opt", 0.12},    // filters: the logits go through memory
    {"sample T=256", "", 0.60},       // Philox and a logarithm for each logit
    {"grpo_loss T=1048576", "", 0.50},
    {"grpo_loss ", "", 0.02}, // a launch, and its longest chain of steps
};

#define EXPECTED ((int)(sizeof expected / sizeof *expected))

double predicted_share(const char *name) {
    bool half = strstr(name, " bf16") != NULL || !strncmp(name, "grpo_loss", 9);
    for (int i = 0; i < EXPECTED && half; i++)
        if (!strncmp(name, expected[i].name, strlen(expected[i].name)) && strstr(name, expected[i].part))
            return expected[i].share;
    return NAN;
}

void bench_row_floor(const Bench *b, const char *name, double bytes, double flop, DType dtype) {
    double share = predicted_share(name);
    if (isnan(share)) die("bench: nothing says what %s is expected to reach: bench/predict.c", name);
    printf("%-52s %9.1f %10.2f", name, bytes * 1e-6, flop * 1e-9);
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++) {
        double floor = floor_of(bytes, flop, cards[i].bw, dtype == F32 ? cards[i].f32 : cards[i].bf16) * 1e6;
        printf(" %10.1f %10.1f", floor, floor / share);
    }
    printf(" %7.0f%%\n", 100 * share);
}

void bench_floor(Bench *b) {
    Bench f = {.gpu = true, .floors = true, .only = b->only};
    printf("The least that each kernel can take, and what it is expected to: unmeasured. Ceilings:");
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
        printf(" %s %.1f TB/s, %.0f TFLOP/s;", cards[i].name, cards[i].bw * 1e-12, cards[i].bf16 * 1e-12);
    printf("\n%-52s %9s %10s", "", "MB", "GFLOP");
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++) printf(" %6s: us %10s", cards[i].name, "expected");
    printf(" %8s\n", "of limit");
    bench_products(&f);
    bench_ops(&f);
    // An entry behind one that takes all its rows would be believed and never read.
    for (int i = 0; i < EXPECTED; i++)
        for (int k = 0; k < i; k++)
            if (!strncmp(expected[i].name, expected[k].name, strlen(expected[k].name)) &&
                (strstr(expected[i].name, expected[k].part) || strstr(expected[i].part, expected[k].part)))
                die("bench: bench/predict.c never gets to \"%s\" with \"%s\", as \"%s\" with \"%s\" stands before it",
                    expected[i].name, expected[i].part, expected[k].name, expected[k].part);
}
