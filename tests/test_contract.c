// The numerics contract, to the bit: a token's hidden state and log-prob depend on its prefix and the weights alone,
// not on the batch beside it, the packing, the number of threads, nor on whether it was prefilled, decoded or trained
// on.
#include "model_case.h"
#include "on_device.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define VOCAB       1100
#define MOST        64
#define TEMPERATURE 0.9f

static const RopeSpec scaled = {ROPE_LLAMA3, .theta = 10000, .factor = 4, .trained = 64, .low = 1, .high = 4};
// GRPO_TEST_SEQUENCES: fewer, 20 at least, where all of it would take too long (make check-ptx).
static int sequences = MOST;
static bool adapted; // the model has an adapter

// Sizes that cross every chunk: keys in 64s, products over 4096 bytes of F, the vocabulary in 1024s.
static ModelDims contract_dims(const Family *family, DType dtype) {
    return (ModelDims){.family = family,
                       .V = VOCAB,
                       .D = 192,
                       .F = family != &qwen2_family ? 100
                            : dtype == F32          ? 1100
                                                    : 2100,
                       .L = 2,
                       .H = 6,
                       .K = 2,
                       .d = 32,
                       .max_positions = 256,
                       .rms_eps = 1e-6f,
                       .rope = family == &llama_family ? scaled : (RopeSpec){.theta = 10000}};
}

// Sequences 2 g and 2 g + 1 answer the same prompt. The first two are long.
static int prompt_length(int s) { return s < 2 ? 120 : 1 + s / 2 * 5 % 9; }
static int sequence_length(int s) { return prompt_length(s) + (s < 2 ? 16 + 4 * s : 1 + s * 7 % 11); }
static int32_t token_id(int s, int pos) {
    int owner = pos < prompt_length(s) ? 1000 + s / 2 : s;
    return (int32_t)(mix64((uint64_t)(owner * 1000 + pos)) % VOCAB);
}

typedef struct {
    float logp, lse, entropy;
} Numbers;

static Numbers numbers_at(const ModelCase *c, int64_t i) {
    return (Numbers){f32(c->logp)[i], f32(c->lse)[i], f32(c->entropy)[i]};
}

// What every run must reproduce: computed from each sequence alone, on one thread.
typedef struct {
    DType dtype;
    int start[MOST + 1]; // rows of hidden
    size_t row_bytes;
    char *hidden;   // [tokens, D]
    float *logp;    // [tokens] of the next token, where there is one
    int32_t *drawn; // [tokens] what the sampler draws after each token that can be followed
    Numbers *given; // [tokens] and what it gives with it
    bool *has_draw;
} Truth;

static int total_tokens(void) {
    int n = 0;
    for (int s = 0; s < sequences; s++) n += sequence_length(s);
    return n;
}

// Beside some projections, so that parts of fused products have none.
static const AdapterSpec lora = {.rank = 5,
                                 .alpha = 8,
                                 .target = {[TARGET_q_proj] = true,
                                            [TARGET_v_proj] = true,
                                            [TARGET_o_proj] = true,
                                            [TARGET_up_proj] = true,
                                            [TARGET_down_proj] = true}};

static ModelCase *contract_case(Device *d, const Family *family, DType dtype) {
    int n = total_tokens();
    ModelCase *c = model_case(d, (CaseSpec){.dims = contract_dims(family, dtype),
                                            .dtype = dtype,
                                            .tokens = n,
                                            .kv_rows = 2 * n,
                                            .lora = adapted ? lora : (AdapterSpec){0}});
    case_fill(c);
    return c;
}

// Packs the sequences order[n], forward; log-probs of the given next tokens.
static void run_packed(ModelCase *c, const int *order, int n) {
    int32_t *ids = xmalloc((size_t)c->spec.tokens * sizeof *ids);
    int length[MOST], t = 0;
    for (int i = 0; i < n; i++) {
        length[i] = sequence_length(order[i]);
        for (int p = 0; p < length[i]; p++) ids[t++] = token_id(order[i], p);
    }
    case_pack(c, ids, length, n);
    case_forward(c, TEMPERATURE, false);
    free(ids);
}

static const char *hidden_row(const ModelCase *c, const Truth *truth, int64_t row) {
    return (const char *)c->acts.out.data + (size_t)row * truth->row_bytes;
}
static char *true_row(const Truth *truth, int s, int pos) {
    return truth->hidden + (size_t)(truth->start[s] + pos) * truth->row_bytes;
}

static Truth truth_new(const Family *family, DType dtype) {
    Device *one = test_device(1);
    ModelCase *c = contract_case(one, family, dtype);
    int n = total_tokens();
    Truth truth = {.dtype = dtype, .row_bytes = (size_t)contract_dims(family, dtype).D * dtype_size(dtype)};
    truth.hidden = xmalloc((size_t)n * truth.row_bytes);
    truth.logp = xcalloc((size_t)n, sizeof *truth.logp);
    truth.drawn = xcalloc((size_t)n, sizeof *truth.drawn);
    truth.given = xcalloc((size_t)n, sizeof *truth.given);
    truth.has_draw = xcalloc((size_t)n, sizeof *truth.has_draw);
    for (int s = 0; s < sequences; s++) {
        truth.start[s + 1] = truth.start[s] + sequence_length(s);
        run_packed(c, &s, 1);
        memcpy(true_row(&truth, s, 0), c->acts.out.data, (size_t)sequence_length(s) * truth.row_bytes);
        memcpy(truth.logp + truth.start[s], c->logp.data, (size_t)c->N * sizeof(float));
    }
    model_case_free(c);
    device_close(one);
    return truth;
}
static void truth_free(Truth *truth) {
    free(truth->hidden), free(truth->logp), free(truth->drawn), free(truth->given), free(truth->has_draw);
}

static void check_packed(ModelCase *c, const Truth *truth, const int *order, int n) {
    run_packed(c, order, n);
    for (int i = 0, t = 0, scored = 0; i < n; i++) {
        int s = order[i], length = sequence_length(s);
        assert_memory_equal(hidden_row(c, truth, t), true_row(truth, s, 0), (size_t)length * truth->row_bytes);
        assert_memory_equal(f32(c->logp) + scored, truth->logp + truth->start[s], sizeof(float) * (size_t)(length - 1));
        t += length, scored += length - 1;
    }
}

static void check_packings(ModelCase *c, const Truth *truth) {
    int order[MOST];
    for (int s = 0; s < sequences; s++) order[s] = s;
    check_packed(c, truth, order, sequences);
    for (int s = 0; s < sequences; s++) order[s] = (s * 37 + 11) % sequences;
    check_packed(c, truth, order, sequences);
    check_packed(c, truth, order + 5, 2);
    check_packed(c, truth, order + 13, 7);
}

// Draws after rows of x; a sequence draws with its own key. The first draw at a place is kept, later ones compared.
static void check_draws(ModelCase *c, Truth *truth, Tensor x, int B, const int *pos) {
    SampleParams p = {.temperature = TEMPERATURE, .top_p = 1, .repetition_penalty = 1, .seed = 3};
    for (int s = 0; s < B; s++) {
        i64(c->key)[s] = pos[s] < 0 ? -1 : 100 + s;
        i32(c->step_pos)[s] = pos[s];
    }
    SampleOut to = {tensor_rows(c->token, 0, B), tensor_rows(c->logp, 0, B), tensor_rows(c->lse, 0, B),
                    tensor_rows(c->entropy, 0, B)};
    c->device->sample(c->device, to, x, c->model.head, tensor_rows(c->key, 0, B), tensor_rows(c->step_pos, 0, B), NONE,
                      NONE, p);
    c->device->sync(c->device);
    for (int s = 0; s < B; s++) {
        if (pos[s] < 0) continue;
        int at = truth->start[s] + pos[s];
        Numbers given = numbers_at(c, s);
        if (truth->has_draw[at]) {
            assert_int_equal(truth->drawn[at], i32(c->token)[s]);
            assert_memory_equal(&truth->given[at], &given, sizeof given);
        }
        truth->has_draw[at] = true;
        truth->drawn[at] = i32(c->token)[s];
        truth->given[at] = given;
    }
}

// The first B sequences: each prompt prefilled once, completions decoded side by side; those that end become idle rows.
static void check_decode(ModelCase *c, Truth *truth, int B) {
    int length[MOST], first_row[MOST], pos[MOST], groups = (B + 1) / 2, n = 0;
    int32_t *ids = xmalloc((size_t)c->spec.tokens * sizeof *ids);
    for (int g = 0; g < groups; g++) {
        first_row[g] = n;
        length[g] = prompt_length(2 * g);
        for (int p = 0; p < length[g]; p++) ids[n++] = token_id(2 * g, p);
    }
    case_pack(c, ids, length, groups);
    for (int t = 0; t < n; t++) i32(c->kv_row)[t] = t;
    case_forward(c, TEMPERATURE, true);
    free(ids);
    char *last = shared_memory(c->device, (size_t)B * truth->row_bytes);
    for (int s = 0; s < B; s++) {
        int g = s / 2;
        assert_memory_equal(hidden_row(c, truth, first_row[g]), true_row(truth, s, 0),
                            (size_t)length[g] * truth->row_bytes);
        memcpy(last + (size_t)s * truth->row_bytes, hidden_row(c, truth, first_row[g] + length[g] - 1),
               truth->row_bytes);
        pos[s] = length[g] - 1;
    }
    check_draws(c, truth, tensor2(last, truth->dtype, B, c->spec.dims.D), B, pos);
    c->device->host_free(c->device, last, (size_t)B * truth->row_bytes);

    for (int step = 0, busy = B; busy > 0; step++) {
        busy = 0;
        for (int s = 0, row = n; s < B; row += sequence_length(s) - prompt_length(s), s++) {
            pos[s] = prompt_length(s) + step;
            if (pos[s] >= sequence_length(s)) pos[s] = -1;
            else busy++;
            bool idle = pos[s] < 0;
            i32(c->token)[s] = idle ? 0 : token_id(s, pos[s]);
            i32(c->step_pos)[s] = idle ? 0 : pos[s];
            i32(c->kv_row)[s] = idle ? -1 : row + step;
            int32_t span[4] = {first_row[s / 2], prompt_length(s), row, step + 1};
            for (int k = 0; k < 4; k++) i32(c->span)[4 * s + k] = idle ? 0 : span[k];
        }
        if (busy == 0) break;
        model_decode(c->device, &c->model, &c->acts, tensor_rows(c->token, 0, B), tensor_rows(c->step_pos, 0, B),
                     &c->cache, tensor_rows(c->kv_row, 0, B), tensor_rows(c->span, 0, B));
        c->device->sync(c->device);
        for (int s = 0; s < B; s++)
            if (pos[s] >= 0) assert_memory_equal(hidden_row(c, truth, s), true_row(truth, s, pos[s]), truth->row_bytes);
        check_draws(c, truth, tensor_rows(c->acts.out, 0, B), B, pos);
    }
}

// Log-probs, logsumexps and entropies of the sampler are those that training computes, all at once, for the same
// tokens.
static void check_drawn_in_training(ModelCase *c, const Truth *truth) {
    int order[MOST];
    for (int s = 0; s < sequences; s++) order[s] = s;
    run_packed(c, order, sequences);
    int64_t n = 0;
    for (int t = 0; t < truth->start[sequences]; t++) {
        if (!truth->has_draw[t]) continue;
        i32(c->rows)[n] = t;
        i32(c->target)[n++] = truth->drawn[t];
    }
    assert_true(n > 4 * sequences - 6);
    c->N = n;
    c->device->logprob(c->device, scored(c, c->logp), scored(c, c->lse), scored(c, c->entropy),
                       tensor_rows(c->acts.out, 0, c->T), scored(c, c->rows), c->model.head, scored(c, c->target),
                       TEMPERATURE);
    c->device->sync(c->device);
    for (int64_t i = 0; i < n; i++) {
        Numbers trained = numbers_at(c, i);
        assert_memory_equal(&trained, &truth->given[i32(c->rows)[i]], sizeof trained);
    }
}

// Other families than Qwen2.5's differ in single ops: for them one number of threads and fewer batch sizes will do.
static void contract(const Family *family, DType dtype) {
    const int batch_sizes[] = {1, 2, 7, sequences};
    bool few = family != &qwen2_family;
    Truth truth = truth_new(family, dtype);
    int most = test_on_cuda() ? 1 : few ? 2 : 3; // there the threads of the host have no say
    for (int threads = few ? most : 1; threads <= most; threads++) {
        Device *d = test_device(threads);
        ModelCase *c = contract_case(d, family, dtype);
        if (!few || !test_on_cuda()) check_packings(c, &truth);
        for (int i = few ? 2 + test_on_cuda() : 0; i < 4; i++) check_decode(c, &truth, batch_sizes[i]);
        check_drawn_in_training(c, &truth);
        model_case_free(c);
        device_close(d);
    }
    truth_free(&truth);
}

static void same_bits_everywhere_f32(void **state) { contract(&qwen2_family, F32); }
static void same_bits_everywhere_bf16(void **state) { contract(&qwen2_family, BF16); }
// Other families, and adapters, add single ops to Qwen2.5's: an emulated GPU, on which all sequences have run with
// those, is asked fewer.
static void contract_beside(const Family *family, DType dtype) {
    int all = sequences;
    if (test_on_cuda()) sequences = 20;
    contract(family, dtype);
    sequences = all;
}
static void same_bits_in_qwen3(void **state) { contract_beside(&qwen3_family, BF16); }
static void same_bits_beside_an_adapter(void **state) {
    adapted = true;
    contract_beside(&qwen3_family, BF16);
    if (!test_on_cuda()) contract(&llama_family, F32);
    adapted = false;
}
// Qwen2.5's ops but for the table of frequencies: an emulated GPU need not run them again.
static void same_bits_in_llama(void **state) {
    if (!test_on_cuda()) contract(&llama_family, BF16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_everywhere_f32),    cmocka_unit_test(same_bits_everywhere_bf16),
        cmocka_unit_test(same_bits_in_qwen3),          cmocka_unit_test(same_bits_in_llama),
        cmocka_unit_test(same_bits_beside_an_adapter),
    };
    // An emulated GPU is a Hopper here: products of few tokens and of many are different instructions there.
    setenv("EMU_ARCH", "90", 0);
    if (getenv("GRPO_TEST_SEQUENCES")) sequences = atoi(getenv("GRPO_TEST_SEQUENCES"));
    if (sequences < 20 || sequences > MOST) die("GRPO_TEST_SEQUENCES: 20 to %d", MOST);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
