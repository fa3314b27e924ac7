// safetensors: the vectors, every way a small file can be cut or flipped, conversions, both ways of reading.
#include "file.h"
#include "json.h"
#include "safetensors.h"
#include "scratch.h"
#include <math.h>

// The value of element i as a double, straight from the file's bytes: the test's own reading.
static double element(const SafeTensors *s, const FileTensor *t, uint64_t i) {
    unsigned char b[8] = {0};
    size_t wide = (size_t)((t->end - t->begin) / t->numel);
    assert_int_equal(pread(s->fd, b, wide, (off_t)(t->begin + i * wide)), wide);
    uint32_t u = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    if (!strcmp(t->dtype, "U8")) return b[0];
    if (!strcmp(t->dtype, "BF16")) u <<= 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static void check_tensors(const SafeTensors *s, const json_t *wanted) {
    const char *name;
    json_t *want;
    assert_int_equal(s->n, json_object_size(wanted));
    json_object_foreach((json_t *)wanted, name, want) {
        const FileTensor *t = safetensors_find(s, name);
        assert_non_null(t);
        assert_string_equal(t->name, name);
        assert_string_equal(t->dtype, json_string_value(json_object_get(want, "dtype")));
        const json_t *shape = json_object_get(want, "shape"), *values = json_object_get(want, "values");
        assert_int_equal(t->ndim, json_array_size(shape));
        for (int i = 0; i < t->ndim; i++)
            assert_int_equal(t->dim[i], json_integer_value(json_array_get(shape, (size_t)i)));
        assert_int_equal(t->numel, json_array_size(values));
        for (uint64_t i = 0; i < t->numel; i++)
            assert_true(element(s, t, i) == json_number_value(json_array_get(values, (size_t)i)));
    }
}

static void vectors_behave_as_marked(void **state) {
    char dir[4096], line[4096];
    snprintf(dir, sizeof dir, "%s", data_path("vectors_behave_as_marked", "formats/safetensors"));
    char *index = xasprintf("%s/index.jsonl", dir);
    FILE *f = fopen(index, "r");
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        json_t *j = json_parse(line, strlen(line), index, NULL);
        const char *name = json_string_value(json_object_get(j, "file"));
        char *path = xasprintf("%s/%s", dir, name);
        Error e = {0};
        SafeTensors s;
        bool ok = safetensors_open(&s, path, &e);
        if (ok != json_is_true(json_object_get(j, "valid"))) fail_msg("%s: %s", name, ok ? "accepted" : e.text);
        if (ok && json_is_object(json_object_get(j, "tensors"))) check_tensors(&s, json_object_get(j, "tensors"));
        if (ok) safetensors_close(&s);
        else {
            SAYS(&e, path, "byte");
            assert_int_equal(e.code, EXIT_INPUT);
        }
        free(path);
        json_decref(j);
        n++;
    }
    fclose(f);
    free(index);
    assert_int_equal(n, 51);
}

// Writes header + data as a file.
static void put_file(const char *path, const char *header, const void *data, size_t bytes) {
    uint64_t length = strlen(header);
    Str s = {0};
    str_add(&s, (const char *)&length, 8);
    str_puts(&s, header);
    str_add(&s, data, bytes);
    put_bytes(path, s.s, s.n);
    str_free(&s);
}

static void header_mistakes_are_named(void **state) {
    static const char data[64];
#define ENTRY(type, shape, offsets) "{\"x\":{\"dtype\":" type ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    const struct {
        const char *header, *says;
    } bad[] = {
        {ENTRY("\"F32\"", "[16]", "[0,60]"), "shape and dtype"},
        {ENTRY("\"F32\"", "[15]", "[0,60]"), "the tensors end here"},
        {ENTRY("\"F32\"", "[17]", "[0,68]"), "the file ends before"},
        {ENTRY("\"F32\"", "[15]", "[4,64]"), "hole"},
        {ENTRY("\"F32\"", "[4294967296,4294967296,0]", "[0,0]"), "2^64 elements"},
        {ENTRY("\"F64\"", "[2305843009213693952]", "[0,64]"), "2^64 bits"},
        {ENTRY("\"F4\"", "[3]", "[0,1]"), "whole bytes"},
        {ENTRY("\"F32\"", "[16]", "[9223372036854775807,9223372036854775807]"), "shape and dtype"},
        {ENTRY("\"F32\"", "[16.0]", "[0,64]"), "whole number"},
        {ENTRY("\"F32\"", "[-1]", "[0,64]"), "whole number"},
        {ENTRY("\"f32\"", "[16]", "[0,64]"), "dtype"},
        {ENTRY("7", "[16]", "[0,64]"), "\"dtype\""},
        {ENTRY("\"F32\"", "16", "[0,64]"), "\"shape\""},
        {ENTRY("\"F32\"", "[16]", "[0]"), "\"data_offsets\""},
        {ENTRY("\"F32\"", "[16]", "[64,0]"), "ends before it begins"},
        {"{\"x\":[]}", "not a JSON object"},
        {"{\"__metadata__\":{\"a\":1}}", "not a string"},
        {"{\"__metadata__\":{\"a\":18446744073709551616}}", "not a string"},
        {"{\"__metadata__\":[]}", "not a JSON object"},
        {"[]", "not a JSON object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_file(at("x.safetensors"), bad[i].header, data, sizeof data);
        Error e = {0};
        SafeTensors s;
        assert_false(safetensors_open(&s, at("x.safetensors"), &e));
        SAYS(&e, at("x.safetensors"), bad[i].says, "byte");
    }
    put_file(at("x.safetensors"),
             "{\"__metadata__\":null,\"y\":{\"dtype\":\"U8\",\"shape\":[4,8],\"more\":1,\"data_offsets"
             "\":[32,64]},\"x\":{\"dtype\":\"U8\",\"shape\":[32],\"data_offsets\":[0,32]}}",
             data, sizeof data);
    SafeTensors s;
    assert_true(safetensors_open(&s, at("x.safetensors"), NULL));
    assert_null(safetensors_find(&s, "z"));
    assert_int_equal(safetensors_find(&s, "y")->dim[1], 8);
    safetensors_close(&s);
    Error e = {0};
    assert_false(safetensors_open(&s, at("absent"), &e));
    SAYS(&e, at("absent"), "No such file");
    assert_false(safetensors_open(&s, scratch, &e));
    SAYS(&e, scratch, "is a directory");
}

static void every_prefix_is_refused(void **state) {
    put_file(at("whole"), ENTRY("\"BF16\"", "[3,2]", "[0,12]"), "abcdefghijkl", 12);
    size_t n;
    char *whole = file_read(at("whole"), 1 << 20, &n, NULL);
    for (size_t cut = 0; cut <= n + 1; cut++) {
        whole = xrealloc(whole, n + 2);
        whole[n] = whole[n + 1] = ' ';
        put_bytes(at("cut"), whole, cut);
        Error e = {0};
        SafeTensors s;
        bool ok = safetensors_open(&s, at("cut"), &e);
        assert_int_equal(ok, cut == n);
        if (ok) safetensors_close(&s);
        else SAYS(&e, at("cut"), "byte");
    }
    // A flipped bit of the header is refused or gives a file whose tensors still lie inside it.
    for (size_t bit = 0; bit < 8 * (n - 12); bit++) {
        whole[bit / 8] ^= (char)(1 << bit % 8);
        put_bytes(at("flip"), whole, n);
        whole[bit / 8] ^= (char)(1 << bit % 8);
        SafeTensors s;
        if (!safetensors_open(&s, at("flip"), NULL)) continue;
        for (int i = 0; i < s.n; i++) assert_true(s.tensor[i].end <= n && s.tensor[i].begin <= s.tensor[i].end);
        safetensors_close(&s);
    }
    free(whole);
}

// ---- values ---------------------------------------------------------------------------------------------------------

static float half_value(uint16_t h) {
    int exponent = h >> 10 & 31, fraction = h & 1023;
    float v = exponent == 31 ? (fraction ? NAN : INFINITY)
              : exponent     ? ldexpf((float)(1024 + fraction), exponent - 25)
                             : ldexpf((float)fraction, -24);
    return h & 0x8000 ? -v : v;
}

// A file of one tensor "x" of n elements of `type`, its data at an odd byte.
static void put_tensor(const char *path, const char *type, const void *data, size_t n, size_t wide) {
    char header[256];
    snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}", type, n,
             n * wide);
    if (strlen(header) % 2 == 0) strcat(header, " ");
    put_file(path, header, data, n * wide);
}

static bool copy_one(const char *path, Tensor to, int mode, Error *e) {
    SafeTensors s;
    assert_true(safetensors_open(&s, path, NULL));
    TensorCopy c = {&s, safetensors_find(&s, "x"), to};
    bool ok = safetensors_copy(NULL, &c, 1, mode, e);
    safetensors_close(&s);
    return ok;
}

static void every_half_converts(void **state) {
    uint16_t *half = xmalloc(65536 * 2), *to16 = xmalloc(65536 * 2);
    float *single = xmalloc(65536 * 4);
    for (int i = 0; i < 65536; i++) half[i] = (uint16_t)i;
    put_tensor(at("x"), "F16", half, 65536, 2);
    assert_true(copy_one(at("x"), tensor1(single, F32, 65536), LOAD_MMAP, NULL));
    assert_true(copy_one(at("x"), tensor1(to16, BF16, 65536), LOAD_MMAP, NULL));
    for (int i = 0; i < 65536; i++) {
        float want = half_value((uint16_t)i);
        if (isnan(want)) assert_true(isnan(single[i]) && isnan(bf16_to_f32(to16[i])));
        else {
            assert_memory_equal(&single[i], &want, 4);
            assert_int_equal(to16[i], f32_to_bf16(want));
        }
    }
    free(half);
    free(single);
    free(to16);
}

// More than one piece, all pairs of dtypes, both ways of reading.
static void both_ways_give_the_same_bits(void **state) {
    enum { N = (1 << 20) + 12345 };
    static const struct {
        const char *name;
        size_t wide;
    } types[] = {{"F32", 4}, {"BF16", 2}, {"F16", 2}};
    uint32_t *data = xmalloc(N * 4);
    uint64_t x = 1;
    for (int i = 0; i < N; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        // Exponents that are finite in every one of the three types, for either half of the word.
        data[i] = ((uint32_t)(x >> 32) & 0x8fff8fffu) | 0x30003000u;
    }
    for (int from = 0; from < 3; from++) {
        put_tensor(at("x"), types[from].name, data, N, types[from].wide);
        for (DType to = F32; to <= BF16; to++) {
            size_t bytes = N * dtype_size(to);
            char *strict = xcalloc(bytes, 1), *mapped = xcalloc(bytes, 1);
            Error e = {0};
            assert_true(copy_one(at("x"), tensor1(strict, to, N), LOAD_STRICT, &e));
            assert_true(copy_one(at("x"), tensor1(mapped, to, N), LOAD_MMAP, &e));
            assert_memory_equal(strict, mapped, bytes);
            for (int i = 0; i < N; i += 997) {
                uint16_t h = ((uint16_t *)data)[i];
                float want = from == 0 ? ((float *)data)[i] : from == 1 ? bf16_to_f32(h) : half_value(h);
                if (to == BF16) want = bf16_to_f32(f32_to_bf16(want));
                float got = tensor_get(tensor1(strict, to, N), i);
                assert_memory_equal(&got, &want, 4);
            }
            free(strict);
            free(mapped);
        }
    }
    free(data);
}

static void strict_names_what_is_not_finite(void **state) {
    enum { N = 3 << 20 };
    float *data = xcalloc(N, 4), *to = xmalloc(N * 4);
    data[N - 5] = NAN;
    data[2000000] = -INFINITY;
    put_tensor(at("x"), "F32", data, N, 4);
    SafeTensors s;
    assert_true(safetensors_open(&s, at("x"), NULL));
    char byte[32];
    snprintf(byte, sizeof byte, "byte %llu:", (unsigned long long)(s.tensor[0].begin + 4 * 2000000ull));
    byte[strlen(byte) - 1] = ' ';
    safetensors_close(&s);
    for (int i = 0; i < 3; i++) {
        Error e = {0};
        assert_false(copy_one(at("x"), tensor1(to, F32, N), LOAD_STRICT, &e));
        SAYS(&e, at("x"), "tensor x", byte, "finite");
        assert_int_equal(e.code, EXIT_INPUT);
    }
    // Finite as f32, infinite once rounded to bf16.
    data[N - 5] = data[2000000] = 0;
    data[7] = 3.4e38f;
    put_tensor(at("x"), "F32", data, N, 4);
    assert_true(copy_one(at("x"), tensor1(to, F32, N), LOAD_STRICT, NULL));
    Error e = {0};
    assert_false(copy_one(at("x"), tensor1(to, BF16, N), LOAD_STRICT, &e));
    SAYS(&e, "finite", "bf16");
    free(data);
    free(to);
}

// The file loses its end after it was opened.
static void files_cut_meanwhile_are_an_error(void **state) {
    enum { N = 1 << 20 };
    float *data = xcalloc(N, 4);
    put_tensor(at("x"), "F32", data, N, 4);
    SafeTensors s;
    assert_true(safetensors_open(&s, at("x"), NULL));
    assert_int_equal(truncate(at("x"), 2 * N), 0);
    TensorCopy c = {&s, safetensors_find(&s, "x"), tensor1(data, F32, N)};
    for (int mode = LOAD_STRICT; mode <= LOAD_MMAP; mode++) {
        Error e = {0};
        assert_false(safetensors_copy(NULL, &c, 1, mode, &e));
        SAYS(&e, at("x"), "byte", "cut short");
        assert_int_equal(e.code, EXIT_DISK);
    }
    safetensors_close(&s);
    free(data);
}

static void other_dtypes_are_refused(void **state) {
    char data[32] = {0}, to[32];
    put_tensor(at("x"), "I8", data, 8, 1);
    Error e = {0};
    assert_false(copy_one(at("x"), tensor1(to, F32, 8), LOAD_STRICT, &e));
    SAYS(&e, at("x"), "tensor x", "byte", "I8", "quantised");
}

static void written_headers_read_back(void **state) {
    Model m = model_make((ModelDims){.family = &qwen2_family, .V = 11, .D = 6, .F = 5, .L = 2, .H = 3, .K = 1, .d = 2},
                         BF16, 3);
    Str s = {0};
    safetensors_header(&s, m.params, m.n_params, NULL, NULL);
    assert_int_equal(s.n % 8, 0);
    for (int i = 0; i < m.n_params; i++) str_add(&s, m.params[i].t.data, tensor_bytes(m.params[i].t));
    put_bytes(at("m.safetensors"), s.s, s.n);
    str_free(&s);
    SafeTensors f;
    Error e = {0};
    assert_true(safetensors_open(&f, at("m.safetensors"), &e));
    assert_int_equal(f.n, m.n_params);
    for (int i = 0; i < m.n_params; i++) {
        const FileTensor *t = safetensors_find(&f, m.params[i].name);
        assert_non_null(t);
        assert_string_equal(t->dtype, "BF16");
        assert_int_equal(t->ndim, m.params[i].t.ndim);
        assert_int_equal(t->dim[0], m.params[i].t.dim[0]);
    }
    safetensors_close(&f);
    model_drop(&m);
}

#define IN_SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_behave_as_marked),   IN_SCRATCH(header_mistakes_are_named),
        IN_SCRATCH(every_prefix_is_refused),          IN_SCRATCH(every_half_converts),
        IN_SCRATCH(both_ways_give_the_same_bits),     IN_SCRATCH(strict_names_what_is_not_finite),
        IN_SCRATCH(files_cut_meanwhile_are_an_error), IN_SCRATCH(other_dtypes_are_refused),
        IN_SCRATCH(written_headers_read_back),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
