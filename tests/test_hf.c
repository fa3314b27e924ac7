// Model directories: config.json, weights in one file or in shards, saving, random starts.
#include "file.h"
#include "json.h"
#include "safetensors.h"
#include "scratch.h"
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static const ModelDims small = {.family = &qwen2_family,
                                .V = 40,
                                .D = 12,
                                .F = 20,
                                .L = 2,
                                .H = 3,
                                .K = 1,
                                .d = 4,
                                .max_positions = 64,
                                .rms_eps = 1e-6f,
                                .rope.theta = 10000,
                                .tied = true};

// A config.json for `small`, with `name` set to the JSON text `value` (NULL name: nothing; NULL value: left out).
static void put_config(const char *dir, const char *name, const char *value) {
    mkdir(dir, 0777);
    json_t *j = json_pack("{s:s,s:[s],s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:b,s:s,s:i,s:s}", "model_type", "qwen2",
                          "architectures", "Qwen2ForCausalLM", "vocab_size", 40, "hidden_size", 12, "intermediate_size",
                          20, "num_hidden_layers", 2, "num_attention_heads", 3, "num_key_value_heads", 1,
                          "max_position_embeddings", 64, "rms_norm_eps", 1e-6, "rope_theta", 10000.0,
                          "tie_word_embeddings", 1, "hidden_act", "silu", "eos_token_id", 7, "torch_dtype", "float16");
    if (name && value) json_object_set_new(j, name, json_parse(value, strlen(value), "test", NULL));
    else if (name) json_object_del(j, name);
    char *path = xasprintf("%s/config.json", dir);
    Str text = {0};
    json_write(&text, j, JSON_LINES);
    put_text(path, text.s);
    str_free(&text);
    free(path);
    json_decref(j);
}

// ---- config.json ----------------------------------------------------------------------------------------------------

static void published_models_have_their_size(void **state) {
    const struct {
        const char *name;
        int64_t parameters;
    } models[] = {{"Qwen2.5-0.5B", 494032768},
                  {"Qwen2.5-1.5B", 1543714304},
                  {"Qwen2.5-7B", 7615616512},
                  {"Qwen2.5-0.5B-Instruct", 494032768},
                  {"Qwen2.5-1.5B-Instruct", 1543714304},
                  {"Qwen2.5-7B-Instruct", 7615616512}};
    const ModelDims three = {
        .family = &qwen2_family, .V = 151936, .D = 2048, .F = 11008, .L = 36, .H = 16, .K = 2, .d = 128, .tied = true};
    assert_int_equal(model_param_count(three), 3085938688);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char name[256];
        snprintf(name, sizeof name, "qwen2.5/%s", models[i].name);
        HfConfig c;
        Error e = {0};
        if (!hf_config_read(data_path("published_models_have_their_size", name), &c, &e)) fail_msg("%s", e.text);
        assert_int_equal(model_param_count(c.dims), models[i].parameters);
        assert_true(c.dims.rope.theta == 1e6f && c.dims.rms_eps == 1e-6f);
        assert_int_equal(c.dims.tied, !strstr(name, "7B"));
        bool instruct = strstr(name, "Instruct");
        assert_int_equal(c.n_eos, instruct ? 2 : 1);
        assert_int_equal(c.eos[0], instruct ? 151645 : 151643);
        assert_int_equal(c.bos, 151643);
        assert_int_equal(c.pad, instruct ? 151643 : -1);
    }
}

static void config_is_read(void **state) {
    HfConfig c;
    put_config(at("m"), NULL, NULL);
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_memory_equal(&c.dims.V, &small.V, 7 * sizeof(int));
    assert_true(c.dims.max_positions == 64 && c.dims.rms_eps == 1e-6f && c.dims.rope.theta == 1e4f && c.dims.tied);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 7);
    assert_int_equal(c.pad, -1);
    assert_false(c.dims.padded);

    put_config(at("m"), "pad_token_id", "3");
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_true(c.dims.padded && c.dims.pad == 3);
    put_config(at("m"), "pad_token_id", "-1"); // to torch that is the last row
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_true(c.dims.padded && c.dims.pad == small.V - 1);
    put_config(at("m"), "head_dim", "6");
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_int_equal(c.dims.d, 6);
    put_config(at("m"), "rope_parameters", "{\"rope_theta\": 5e5, \"rope_type\": \"default\"}");
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_true(c.dims.rope.theta == 5e5f);
    put_config(at("m"), "tie_word_embeddings", NULL); // transformers' default for this model type
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_false(c.dims.tied);
    put_config(at("m"), "eos_token_id", NULL);
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_int_equal(c.n_eos, 0);
    const char *const fine[][2] = {{"rope_scaling", "null"},
                                   {"rope_scaling", "{\"type\": \"default\"}"},
                                   {"sliding_window", "4096"},
                                   {"layer_types", "[\"full_attention\",\"full_attention\"]"},
                                   {"quantization_config", "null"},
                                   {"pad_token_id", "-1"},
                                   {"attention_dropout", "0.0"},
                                   {"rope_theta", "1000000"},
                                   {"some_length", "1000000000000000019884624838656"}};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        put_config(at("m"), fine[i][0], fine[i][1]);
        Error e = {0};
        if (!hf_config_read(at("m"), &c, &e)) fail_msg("%s", e.text);
    }

    put_text(at("m/generation_config.json"), "{\"eos_token_id\": [3, 39], \"pad_token_id\": 2, \"bos_token_id\": 1}");
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_true(c.n_eos == 2 && c.eos[0] == 3 && c.eos[1] == 39 && c.pad == 2 && c.bos == 1);
    assert_false(c.dims.padded); // sampling's padding is not the embedding's
    Error e = {0};
    put_text(at("m/generation_config.json"), "{\"eos_token_id\": [3, 40]}");
    assert_false(hf_config_read(at("m"), &c, &e));
    SAYS(&e, at("m/generation_config.json"), "eos_token_id", "below 40");
}

// What other families' files leave out, and what they would switch on.
static void families_have_their_own_defaults(void **state) {
    HfConfig c;
    Error e = {0};
    json_t *j =
        json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i}", "model_type", "qwen3", "vocab_size", 40, "hidden_size", 12,
                  "intermediate_size", 20, "num_hidden_layers", 2, "num_attention_heads", 5, "num_key_value_heads", 1);
    mkdir(at("m"), 0777);
    assert_int_equal(json_dump_file(j, at("m/config.json"), 0), 0);
    if (!hf_config_read(at("m"), &c, &e)) fail_msg("%s", e.text);
    assert_true(c.dims.family == &qwen3_family && c.dims.d == 128 && c.dims.max_positions == 32768 && c.n_eos == 0);
    assert_true(c.dims.rope.theta == 10000 && c.dims.rope.type == ROPE_DEFAULT);
    json_object_set_new(j, "attention_bias", json_true());
    assert_int_equal(json_dump_file(j, at("m/config.json"), 0), 0);
    assert_false(hf_config_read(at("m"), &c, &e));
    SAYS(&e, "\"attention_bias\" is true: qwen3 models");

    json_object_del(j, "attention_bias");
    json_object_set_new(j, "model_type", json_string("llama"));
    json_object_set_new(j, "num_attention_heads", json_integer(3));
    assert_int_equal(json_dump_file(j, at("m/config.json"), 0), 0);
    e = (Error){0};
    if (!hf_config_read(at("m"), &c, &e)) fail_msg("%s", e.text);
    assert_true(c.dims.family == &llama_family && c.dims.d == 4 && c.dims.max_positions == 2048);
    assert_true(c.bos == 1 && c.n_eos == 1 && c.eos[0] == 2);
    json_object_set_new(j, "mlp_bias", json_true());
    assert_int_equal(json_dump_file(j, at("m/config.json"), 0), 0);
    assert_false(hf_config_read(at("m"), &c, &e));
    SAYS(&e, "\"mlp_bias\" is true: llama models");
    json_decref(j);
}

// null is not a missing key: transformers 5.24 then takes as many as heads, of any family.
static void key_heads_may_be_null(void **state) {
    HfConfig c;
    put_config(at("m"), "num_key_value_heads", "null");
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_int_equal(c.dims.H, 3);
    assert_int_equal(c.dims.K, 3);
}

// Where keys of transformers 4 and 5 differ, the one that transformers takes, and that it was taken.
static void what_won_is_said(void **state) {
    HfConfig c;
    put_config(at("m"), "rope_parameters", "{\"rope_theta\": 5e5, \"rope_type\": \"default\"}");
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_string_equal(c.rope_won, "\"rope_parameters\" counts: theta is 500000, not \"rope_theta\"'s 10000");
    assert_string_equal(c.dtype, "float16");
    assert_false(c.dtype_won);
    put_config(at("m"), "dtype", "\"bfloat16\"");
    assert_true(hf_config_read(at("m"), &c, NULL));
    assert_string_equal(c.dtype, "bfloat16");
    assert_true(c.dtype_won);
    assert_string_equal(c.rope_won, "");
}

static void configs_that_mean_something_else_are_refused(void **state) {
    const char *const bad[][3] = {
        {"model_type", "\"mistral\"", "\"mistral\", a family that is not known here; there are qwen2 (Qwen2.5), qwen3"},
        {"model_type", "\"qwen3_moe\"", "mixtures of experts"},
        {"model_type", "\"llama\"", "\"architectures\" holds \"Qwen2ForCausalLM\", not \"LlamaForCausalLM\""},
        {"model_type", "3", "not a string"},
        {"model_type", NULL, "missing"},
        {"architectures", "[\"Qwen2ForTokenClassification\"]", "causal"},
        {"architectures", "[\"Qwen2ForSequenceClassification\"]", "a model of 2 labels"},
        {"hidden_act", "\"gelu\"", "SwiGLU"},
        {"use_sliding_window", "true", "sliding"},
        {"layer_types", "[\"full_attention\",\"sliding_attention\"]", "sliding"},
        {"layer_types", "[\"full_attention\"]", "1 entries, not one for each of \"num_hidden_layers\""},
        {"use_mrope", "true", "multimodal"},
        {"rope_scaling", "{\"type\": \"dynamic\", \"factor\": 4.0}",
         "\"dynamic\" are not supported (default, linear, llama3 and yarn are): written as \"default\" they are the "
         "same"},
        {"rope_scaling", "{\"rope_type\": \"longrope\"}", "\"longrope\" are not supported"},
        {"rope_scaling", "{\"rope_type\": \"linear\"}", "\"factor\" is missing beside rope_type \"linear\""},
        {"rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 0.5}", "at least 1"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"beta_fast\": 1, \"beta_slow\": 2}", "beta_fast"},
        {"rope_parameters", "{\"rope_type\": \"llama3\", \"factor\": 8}", "\"low_freq_factor\" is missing"},
        {"rope_parameters",
         "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4}",
         "must be above"},
        {"rope_scaling", "{\"rope_type\": 3}", "not a string"},
        {"torch_dtype", "3", "not a string"},
        {"rope_parameters", "3", "not an object"},
        {"rope_scaling", "3", "not an object"},
        {"partial_rotary_factor", "0.5", "partial"},
        {"quantization_config", "{}", "quantised"},
        {"attention_dropout", "0.1", "dropout"},
        {"vocab_size", NULL, "missing"},
        {"vocab_size", "0", "outside"},
        {"vocab_size", "\"40\"", "whole number"},
        {"vocab_size", "18446744073709551656", "is 18446744073709551656, outside"},
        {"attention_dropout", "1e999", "dropout"},
        {"attention_dropout", "\"0\"", "dropout"},
        {"rope_theta", "1e999", "positive"},
        {"model_type", "18446744073709551616", "not a string"},
        {"hidden_size", "-12", "outside"},
        {"hidden_size", "1e3", "whole number"},
        {"hidden_size", "13", "multiple"},
        {"hidden_size", "9", "even"},
        {"head_dim", "3", "even"},
        {"head_dim", "258", "at most 256"},
        {"head_dim", "1024", "at most 256"},
        {"hidden_size", "774", "heads of size 258"},
        {"model_type", "\"qwen2\\u0000x\"", "NUL"},
        {"rope_parameters", "{\"full_attention\": {\"rope_theta\": 1e6}}", "layers that differ"},
        {"num_key_value_heads", "2", "multiple"},
        {"num_key_value_heads", NULL, "(32: it is not there"},
        {"num_hidden_layers", "99999999999999999", "outside"},
        {"intermediate_size", "2147483648", "outside"},
        {"rms_norm_eps", "0", "positive"},
        {"rms_norm_eps", "1e-60", "positive"},
        {"rope_theta", "\"1e6\"", "positive"},
        {"tie_word_embeddings", "1", "true or false"},
        {"eos_token_id", "40", "outside"},
        {"eos_token_id", "[1,2,3,4,5,6,7,8,9]", "at most 8"},
        {"eos_token_id", "[\"a\"]", "token id"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_config(at("m"), bad[i][0], bad[i][1]);
        HfConfig c;
        Error e = {0};
        if (hf_config_read(at("m"), &c, &e)) fail_msg("accepted: %s %s", bad[i][0], bad[i][1]);
        SAYS(&e, at("m/config.json"), bad[i][2]);
        assert_int_equal(e.code, EXIT_INPUT);
    }
    HfConfig c;
    Error e = {0};
    put_text(at("m/config.json"), "[]");
    assert_false(hf_config_read(at("m"), &c, &e));
    SAYS(&e, at("m/config.json"), "not a JSON object");
    assert_false(hf_config_read(at("nowhere"), &c, &e));
    SAYS(&e, at("nowhere"), "model directory");
    assert_false(hf_config_read("owner/model", &c, &e));
    SAYS(&e, "hf download owner/model --local-dir owner/model");
    assert_false(hf_config_read(at("m/config.json"), &c, &e));
    SAYS(&e, "is a file");
    put_text(at("m.gguf"), "GGUF\3");
    assert_false(hf_config_read(at("m.gguf"), &c, &e));
    SAYS(&e, "llama.cpp");
    assert_int_equal(mkfifo(at("m.pipe"), 0600), 0);
    assert_false(hf_config_read(at("m.pipe"), &c, &e));
    SAYS(&e, "is a pipe");
    mkdir(at("empty"), 0777);
    assert_false(hf_config_read(at("empty"), &c, &e));
    SAYS(&e, at("empty/config.json"), "No such file");

    // Each size alone is possible, together they are not.
    put_text(at("m/config.json"),
             "{\"model_type\":\"qwen2\",\"vocab_size\":100,\"hidden_size\":131072,"
             "\"intermediate_size\":1048576,\"num_hidden_layers\":4096,\"num_attention_heads\":1024,"
             "\"num_key_value_heads\":1024}");
    assert_false(hf_config_read(at("m"), &c, &e));
    SAYS(&e, "parameters");
}

// ---- weights --------------------------------------------------------------------------------------------------------

static void save(const char *dir, const char *source, const Model *m) {
    Error e = {0};
    if (!hf_save(dir, source, NULL, m, &e)) fail_msg("%s", e.text);
}

static void saved_weights_come_back(void **state) {
    for (int tied = 0; tied < 2; tied++)
        for (DType t = F32; t <= BF16; t++) {
            ModelDims dims = small;
            dims.tied = tied;
            put_config(at("source"), "tie_word_embeddings", tied ? "true" : "false");
            Model m = model_make(dims, t, 5);
            assert_int_equal(!model_param(&m, "lm_head.weight"), tied);
            save(at("saved"), at("source"), &m);
            for (int mode = LOAD_STRICT; mode <= LOAD_MMAP; mode++) {
                Model back = model_make(dims, t, 0);
                Error e = {0};
                if (!hf_weights_read(at("saved"), NULL, &back, mode, &e)) fail_msg("%s", e.text);
                assert_same_weights(&m, &back);
                model_drop(&back);
            }
            // f32 to bf16 rounds each element; bf16 to f32 is exact.
            Model other = model_make(dims, t == F32 ? BF16 : F32, 0);
            assert_true(hf_weights_read(at("saved"), NULL, &other, LOAD_STRICT, NULL));
            for (int64_t i = 0; i < m.slab.dim[0]; i++)
                assert_true(bf16_to_f32(f32_to_bf16(tensor_get(m.slab, i))) ==
                            bf16_to_f32(f32_to_bf16(tensor_get(other.slab, i))));
            model_drop(&other);
            model_drop(&m);
        }
}

static void saved_directory_is_complete(void **state) {
    put_config(at("source"), NULL, NULL);
    const char *const files[] = {
        "generation_config.json",  "tokenizer.json",    "tokenizer_config.json", "vocab.json", "merges.txt",
        "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"};
    for (int i = 0; i < 8; i++) put_text(at("source/%s", files[i]), i == 0 ? "{}" : files[i]);
    put_text(at("source/README.md"), "not part of a model");
    Model m = model_make(small, BF16, 5);
    save(at("deep/er/saved"), at("source"), &m);
    for (int i = 1; i < 8; i++) {
        size_t n;
        char *text = file_read(at("deep/er/saved/%s", files[i]), 1000, &n, NULL);
        assert_string_equal(text, files[i]);
        free(text);
    }
    assert_false(exists(at("deep/er/saved/README.md")));
    assert_false(exists(at("deep/er/saved.tmp")));
    size_t n;
    char *text = file_read(at("deep/er/saved/config.json"), 10000, &n, NULL);
    assert_non_null(strstr(text, "\"rms_norm_eps\": 1e-06,"));
    assert_non_null(strstr(text, "\"torch_dtype\": \"bfloat16\""));
    free(text);

    put_config(at("source"), "dtype", "\"bfloat16\"");
    Model f = model_make(small, F32, 5);
    save(at("deep/er/saved"), at("source"), &f); // takes the place of the model there
    json_t *j = json_read(at("deep/er/saved/config.json"), NULL);
    assert_string_equal(json_string_value(json_object_get(j, "dtype")), "float32");
    assert_null(json_object_get(j, "torch_dtype"));
    json_decref(j);
    assert_false(exists(at("deep/er/saved.old")));
    model_drop(&f);
    model_drop(&m);
}

// Reads a file of the saved model; heap memory.
static char *saved_text(const char *name) {
    size_t n;
    Error e = {0};
    char *text = file_read(at("saved/%s", name), 10000, &n, &e);
    if (!text) fail_msg("%s", e.text);
    return text;
}

// Numbers beyond 64 bits, as HF writes for a length that has no end, and those of many digits come back as they were
// in every file that is written anew.
static void numbers_of_other_keys_stay(void **state) {
    static const char big[] = "1000000000000000019884624838656";
    HfConfig c;
    Error e = {0};
    put_config(at("source"), "rope_theta", "100000000000000000000"); // beyond 64 bits, and a float
    assert_true(hf_config_read(at("source"), &c, &e));
    assert_true(c.dims.rope.theta == 1e20f);
    assert_string_equal(c.rope_won, "");
    put_config(at("source"), "some_length", big);
    put_text(at("source/tokenizer.json"), "{}");
    put_text(at("source/tokenizer_config.json"),
             "{\n  \"model_max_length\": 1000000000000000019884624838656,\n  \"x\": 0.30000000000000004\n}");
    put_text(at("source/generation_config.json"), "{\n  \"eos_token_id\": 7,\n  \"max_length\": "
                                                  "1000000000000000019884624838656,\n  \"top_p\": "
                                                  "0.30000000000000004\n}");
    Model m = model_make(small, F32, 5);
    const int32_t ends[] = {7, 9};
    HfVoice voice = {"qwen2.5", ends, 2};
    OutDir d;
    HfFiles *files = hf_files_read(at("source"), &voice, &m, &e);
    if (!files) fail_msg("%s", e.text);
    assert_true(outdir_begin(&d, at("saved"), hf_bytes(files, &m), &e));
    if (!hf_write(&d, files, NULL, &m, HF_SHARD_BYTES, &e)) fail_msg("%s", e.text);
    assert_true(outdir_commit(&d, &e));
    outdir_free(&d);
    hf_files_free(files);
    char *config = saved_text("config.json"), *tokenizer = saved_text("tokenizer_config.json");
    char *generation = saved_text("generation_config.json");
    assert_non_null(strstr(config, "\"some_length\": 1000000000000000019884624838656,\n"));
    assert_string_equal(generation, "{\n  \"eos_token_id\": [\n    7,\n    9\n  ],\n  \"max_length\": "
                                    "1000000000000000019884624838656,\n  \"top_p\": 0.30000000000000004\n}");
    assert_ptr_equal(strstr(tokenizer, "{\n  \"model_max_length\": 1000000000000000019884624838656,\n  \"x\": "
                                       "0.30000000000000004,\n  \"chat_template\": \"{"),
                     tokenizer);
    free(config), free(tokenizer), free(generation);
    model_drop(&m);
}

// A checkpoint's generation_config.json lists each id that ended a text of its run: transformers reads that file alone
// where it is there, and config.json, as it is written, where it is not.
static void ends_are_told_to_other_programs(void **state) {
    const struct {
        const char *config, *generation, *saved; // eos_token_id; generation_config.json before and after. NULL: absent
    } cases[] = {
        {"7", NULL, NULL},
        {"7", "{\"eos_token_id\": 7}", "{\"eos_token_id\": 7}"},
        {"9", "{\"eos_token_id\": [9, 7]}", "{\"eos_token_id\": [9, 7]}"},
        {"7", "{\"top_k\": 5}", "{\n  \"top_k\": 5,\n  \"eos_token_id\": [\n    7\n  ]\n}"},
        {"7", "{\"eos_token_id\": null}", "{\n  \"eos_token_id\": [\n    7\n  ]\n}"},
        {"7", "{\"eos_token_id\": 9}", "{\n  \"eos_token_id\": [\n    7\n  ]\n}"},
        {NULL, NULL, "{\n  \"eos_token_id\": [\n    7\n  ]\n}"},
        {"9", NULL, "{\n  \"eos_token_id\": [\n    7\n  ]\n}"},
    };
    Model m = model_make(small, F32, 5);
    const int32_t end = 7;
    HfVoice voice = {NULL, &end, 1};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error e = {0};
        OutDir d;
        char name[16];
        snprintf(name, sizeof name, "saved%zu", i);
        put_config(at("source"), "eos_token_id", cases[i].config);
        unlink(at("source/generation_config.json"));
        if (cases[i].generation) put_text(at("source/generation_config.json"), cases[i].generation);
        HfFiles *files = hf_files_read(at("source"), &voice, &m, &e);
        if (!files) fail_msg("%s", e.text);
        assert_true(outdir_begin(&d, at("%s", name), hf_bytes(files, &m), &e));
        if (!hf_write(&d, files, NULL, &m, HF_SHARD_BYTES, &e)) fail_msg("%s", e.text);
        assert_true(outdir_commit(&d, &e));
        outdir_free(&d);
        hf_files_free(files);
        size_t n;
        char *text = file_read(at("%s/generation_config.json", name), 10000, &n, NULL);
        if (!text != !cases[i].saved || (text && strcmp(text, cases[i].saved))) fail_msg("case %zu: %s", i, text);
        free(text);
    }
    model_drop(&m);
}

static void saving_replaces_only_models(void **state) {
    put_config(at("source"), NULL, NULL);
    Model m = model_make(small, F32, 5);
    Error e = {0};
    mkdir(at("home"), 0777);
    put_text(at("home/letter.txt"), "dear");
    assert_false(hf_save(at("home"), at("source"), NULL, &m, &e));
    SAYS(&e, at("home"), "not a model directory");
    assert_int_equal(e.code, EXIT_DISK);
    assert_true(exists(at("home/letter.txt")));
    assert_false(hf_save(at("home/letter.txt"), at("source"), NULL, &m, &e));
    SAYS(&e, "letter.txt", "not a model directory");
    assert_false(hf_save(at("home/letter.txt/x"), at("source"), NULL, &m, &e));
    SAYS(&e, "letter.txt", "Not a directory");
    assert_false(hf_save(at("source"), at("source/../source"), NULL, &m, &e));
    SAYS(&e, at("source"), "made from");
    char back[PATH_MAX]; // an empty directory that a shell may stand in
    mkdir(at("stand"), 0777);
    assert_true(getcwd(back, sizeof back) && !chdir(at("stand")));
    static const char *const nameless[] = {".", "./", "../stand/.", ".."};
    for (int i = 0; i < 4; i++) {
        assert_false(hf_save(nameless[i], at("source"), NULL, &m, &e));
        SAYS(&e, nameless[i], "give it a name");
    }
    assert_int_equal(chdir(back), 0);
    put_text(at("home/config.json"), "{\"theme\": \"dark\"}"); // of another program
    assert_false(hf_save(at("home"), at("source"), NULL, &m, &e));
    SAYS(&e, at("home"), "not a model directory");
    assert_true(exists(at("home/letter.txt")));
    save(at("saved"), at("source"), &m);
    static const char *const foreign[] = {"notes.txt", "manifest.json", "model-1-of-2.safetensors.bak", ".git"};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        put_text(at("saved/%s", foreign[i]), "mine");
        assert_false(hf_save(at("saved"), at("source"), NULL, &m, &e));
        SAYS(&e, at("saved"), foreign[i], "would be deleted");
        assert_int_equal(e.code, EXIT_DISK);
        assert_true(exists(at("saved/%s", foreign[i])));
        unlink(at("saved/%s", foreign[i]));
    }
    mkdir(at("saved/vocab.json"), 0777); // a directory by a file's name
    put_text(at("saved/vocab.json/letter"), "dear");
    assert_false(hf_save(at("saved"), at("source"), NULL, &m, &e));
    SAYS(&e, "holds vocab.json");
    assert_true(exists(at("saved/vocab.json/letter")));
    assert_true(disk_remove(at("saved/vocab.json"), NULL));
    // Through a link, to a model, an empty directory or nothing yet; the link stays.
    static const char *const behind[] = {"saved", "bare", "later"};
    mkdir(at("bare"), 0777);
    for (size_t i = 0; i < 3; i++) {
        struct stat link;
        assert_int_equal(symlink(behind[i], at("link")), 0);
        save(at(i % 2 ? "link/" : "link"), at("source"), &m);
        assert_true(!lstat(at("link"), &link) && S_ISLNK(link.st_mode) && exists(at("%s/config.json", behind[i])));
        unlink(at("link"));
    }
    // Neighbours by names that could be of help are the user's.
    static const char *const beside[] = {"saved.old", "saved.tmp", "saved.old.1", "saved.tmp.x"};
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        mkdir(at("%s", beside[i]), 0777);
        put_text(at("%s/letter", beside[i]), "dear");
    }
    save(at("saved/"), at("source"), &m);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) assert_true(exists(at("%s/letter", beside[i])));
    // What a killed process left is removed; what it was about to replace comes back where nothing stands.
    pid_t dead = fork();
    if (!dead) _exit(0);
    assert_int_equal(waitpid(dead, NULL, 0), dead);
    mkdir(at("saved.tmp.%d", (int)dead), 0777);
    put_text(at("saved.tmp.%d/model.safetensors", (int)dead), "half");
    assert_int_equal(rename(at("saved"), at("saved.old.%d", (int)dead)), 0);
    struct rlimit usual, little; // a save that fails after its neighbours were mended
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
    little = usual, little.rlim_cur = 64;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    bool saved = hf_save(at("saved"), at("source"), NULL, &m, &e);
    setrlimit(RLIMIT_FSIZE, &usual);
    signal(SIGXFSZ, SIG_DFL);
    assert_false(saved);
    assert_true(exists(at("saved/model.safetensors")));
    assert_false(exists(at("saved.tmp.%d", (int)dead)) || exists(at("saved.old.%d", (int)dead)));
    put_config(at("source"), "vocab_size", "41");
    assert_false(hf_save(at("new"), at("source"), NULL, &m, &e));
    SAYS(&e, at("source/config.json"), "another model");
    assert_false(exists(at("new")));
    assert_false(exists(at("new.tmp")));
    model_drop(&m);
}

// Saves in shards of at most 1200 bytes.
static void save_shards(const char *dir, const Model *m) {
    put_config(at("source"), NULL, NULL);
    OutDir d;
    HfFiles *files = hf_files_read(at("source"), NULL, m, NULL);
    assert_true(files && outdir_begin(&d, dir, hf_bytes(files, m), NULL));
    assert_true(hf_write(&d, files, NULL, m, 1200, NULL));
    assert_true(outdir_commit(&d, NULL));
    hf_files_free(files);
    outdir_free(&d);
}

static void shards_come_back(void **state) {
    Model m = model_make(small, F32, 5), back = model_make(small, F32, 0);
    save_shards(at("saved"), &m);
    assert_false(exists(at("saved/model.safetensors")));
    json_t *j = json_read(at("saved/model.safetensors.index.json"), NULL), *map = json_object_get(j, "weight_map"),
           *file;
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "metadata"), "total_size")),
                     4 * model_param_count(small));
    const char *name;
    int most = 0;
    json_object_foreach(map, name, file) {
        int k, n;
        assert_int_equal(sscanf(json_string_value(file), "model-%5d-of-%5d.safetensors", &k, &n), 2);
        most = k > most ? k : most;
        assert_true(k >= 1 && k <= n);
        SafeTensors s;
        assert_true(safetensors_open(&s, at("saved/%s", json_string_value(file)), NULL));
        assert_non_null(safetensors_find(&s, name));
        assert_true(s.n == 1 || s.bytes < 1200 + 4096);
        safetensors_close(&s);
    }
    assert_int_equal(json_object_size(map), m.n_params);
    assert_true(most > 5);
    json_decref(j);
    Error e = {0};
    if (!hf_weights_read(at("saved"), NULL, &back, LOAD_MMAP, &e)) fail_msg("%s", e.text);
    assert_same_weights(&m, &back);
    model_drop(&m);
    model_drop(&back);
}

// The shard that holds a tensor, as a new reference.
static json_t *index_get(const char *name) {
    json_t *j = json_read(at("saved/model.safetensors.index.json"), NULL);
    json_t *file = json_incref(json_object_get(json_object_get(j, "weight_map"), name));
    json_decref(j);
    return file;
}

// Replaces the entry of one tensor in the index; NULL leaves it out.
static void index_set(const char *name, json_t *file) {
    json_t *j = json_read(at("saved/model.safetensors.index.json"), NULL), *map = json_object_get(j, "weight_map");
    if (file) json_object_set_new(map, name, file);
    else json_object_del(map, name);
    assert_int_equal(json_dump_file(j, at("saved/model.safetensors.index.json"), 0), 0);
    json_decref(j);
}

static void index_mistakes_are_named(void **state) {
    Model m = model_make(small, F32, 5);
    const char *index = "model.safetensors.index.json";
    const struct {
        json_t *file;
        const char *says;
    } bad[] = {
        {json_string("../source/config.json"), "beside the index"},
        {json_string("/etc/passwd"), "beside the index"},
        {json_string(".."), "beside the index"},
        {json_string(""), "beside the index"},
        {json_integer(1), "not a string"},
        {json_string("model-00099-of-00099.safetensors"), "No such file"},
        {json_string("config.json"), "byte 0"},
        {json_loads("\"model-00001-of-00007.safetensors\\u0000x\"", JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL), "NUL"},
        {NULL /* the first shard */, "is not in model-00001"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        save_shards(at("saved"), &m);
        json_t *file = !bad[i].file ? index_get("model.embed_tokens.weight") : json_incref(bad[i].file);
        index_set("model.norm.weight", file);
        Error e = {0};
        assert_false(hf_weights_read(at("saved"), NULL, &m, LOAD_STRICT, &e));
        SAYS(&e, index, bad[i].says);
        assert_int_equal(e.code, EXIT_INPUT);
        json_decref(bad[i].file);
    }
    // A tensor that lies in a shard is the model's, whether the index names it or not.
    save_shards(at("saved"), &m);
    index_set("model.norm.weight", NULL);
    Model back = model_make(small, F32, 0);
    assert_true(hf_weights_read(at("saved"), NULL, &back, LOAD_STRICT, NULL));
    assert_same_weights(&m, &back);
    model_drop(&back);
    model_drop(&m);
}

static void unfit_weights_are_named(void **state) {
    put_config(at("source"), NULL, NULL);
    Model m = model_make(small, F32, 5);
    save(at("saved"), at("source"), &m);

    ModelDims deeper = small, wider = small, untied = small;
    deeper.L = 3;
    wider.F = 24;
    untied.tied = false;
    Model a = model_make(deeper, F32, 0), b = model_make(wider, F32, 0), c = model_make(untied, F32, 0);
    Error e = {0};
    assert_false(hf_weights_read(at("saved"), NULL, &a, LOAD_STRICT, &e));
    SAYS(&e, at("saved"), "12 missing: model.layers.2.self_attn.q_proj.weight", ", ...", "0 of another shape");
    assert_false(hf_weights_read(at("saved"), NULL, &b, LOAD_STRICT, &e));
    SAYS(&e, "0 missing", "6 of another shape", "gate_proj.weight ([20,12] in model.safetensors at byte",
         "[24,12] wanted)");
    assert_false(hf_weights_read(at("saved"), NULL, &c, LOAD_STRICT, &e));
    SAYS(&e, "1 missing: lm_head.weight", "tie_word_embeddings");
    model_drop(&a);
    model_drop(&b);

    // A head beside tied embeddings is let be where it has their shape.
    put_config(at("source"), "tie_word_embeddings", "false");
    model_init_random(NULL, &c, 9);
    save(at("untied"), at("source"), &c);
    Model back = model_make(small, F32, 0);
    assert_true(hf_weights_read(at("untied"), NULL, &back, LOAD_STRICT, &e));
    assert_memory_equal(model_param(&back, "model.embed_tokens.weight")->t.data,
                        model_param(&c, "model.embed_tokens.weight")->t.data, 4 * 40 * 12);
    model_drop(&back);
    model_drop(&c);
    model_drop(&m);

    mkdir(at("none"), 0777);
    Model n = model_make(small, F32, 0);
    assert_false(hf_weights_read(at("none"), NULL, &n, LOAD_STRICT, &e));
    SAYS(&e, at("none"), "no model.safetensors");
    put_text(at("none/pytorch_model.bin"), "");
    assert_false(hf_weights_read(at("none"), NULL, &n, LOAD_STRICT, &e));
    SAYS(&e, "pytorch_model.bin");
    model_drop(&n);
}

// ---- random starts --------------------------------------------------------------------------------------------------

static void random_start_has_its_moments(void **state) {
    ModelDims dims = {
        .family = &qwen2_family, .V = 1000, .D = 64, .F = 200, .L = 3, .H = 4, .K = 2, .d = 16, .tied = false};
    Model m = model_make(dims, F32, 1);
    for (int p = 0; p < m.n_params; p++) {
        Tensor x = m.params[p].t;
        float init = m.params[p].spec->init;
        int64_t n = tensor_numel(x);
        double sum = 0, squares = 0, fourth = 0, pairs = 0;
        for (int64_t i = 0; i < n; i++) {
            double v = tensor_get(x, i);
            sum += v, squares += v * v, fourth += v * v * v * v;
            if (i) pairs += v * tensor_get(x, i - 1);
        }
        if (init <= 0) {
            assert_true(sum == (init < 0 ? (double)n : 0) && squares == sum);
            continue;
        }
        // Five standard errors of each of the mean, the variance, the kurtosis and the correlation of neighbours.
        double s2 = (double)init * init, five = 5 / sqrt((double)n);
        assert_true(fabs(sum / (double)n) < five * init);
        assert_true(fabs(squares / (double)n / s2 - 1) < five * sqrt(2));
        assert_true(fabs(fourth / (double)n / (s2 * s2) - 3) < five * sqrt(96));
        assert_true(fabs(pairs / (double)n / s2) < five);
    }
    model_drop(&m);
}

static void random_start_depends_on_seed_parameter_and_element(void **state) {
    ModelDims wide = small;
    wide.V = 400; // the embedding grows; its first elements and all later parameters stay
    Model a = model_make(small, F32, 7), b = model_make(wide, F32, 7), c = model_make(small, BF16, 7),
          other = model_make(small, F32, 8);
    for (int p = 0; p < a.n_params; p++) {
        assert_memory_equal(a.params[p].t.data, b.params[p].t.data, tensor_bytes(a.params[p].t));
        for (int64_t i = 0; i < tensor_numel(a.params[p].t); i++)
            assert_int_equal(f32_to_bf16(tensor_get(a.params[p].t, i)), bf16(c.params[p].t)[i]);
        if (a.params[p].spec->init <= 0) continue;
        int same = 0;
        for (int64_t i = 0; i < tensor_numel(a.params[p].t); i++)
            same += f32(a.params[p].t)[i] == f32(other.params[p].t)[i];
        assert_true(same < 3);
        for (int q = 0; q < p; q++)
            if (a.params[q].spec->init > 0) assert_memory_not_equal(f32(a.params[p].t), f32(a.params[q].t), 4 * 48);
    }
    // Padding stays zero.
    int64_t inside = 0, nonzero = 0;
    for (int p = 0; p < a.n_params; p++) inside += a.params[p].spec->init != 0 ? tensor_numel(a.params[p].t) : 0;
    for (int64_t i = 0; i < a.slab.dim[0]; i++) nonzero += f32(a.slab)[i] != 0;
    assert_true(nonzero <= inside);
    model_drop(&a);
    model_drop(&b);
    model_drop(&c);
    model_drop(&other);
}

#define IN_SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_models_have_their_size),
        IN_SCRATCH(config_is_read),
        IN_SCRATCH(families_have_their_own_defaults),
        IN_SCRATCH(key_heads_may_be_null),
        IN_SCRATCH(what_won_is_said),
        IN_SCRATCH(configs_that_mean_something_else_are_refused),
        IN_SCRATCH(saved_weights_come_back),
        IN_SCRATCH(saved_directory_is_complete),
        IN_SCRATCH(numbers_of_other_keys_stay),
        IN_SCRATCH(ends_are_told_to_other_programs),
        IN_SCRATCH(saving_replaces_only_models),
        IN_SCRATCH(shards_come_back),
        IN_SCRATCH(index_mistakes_are_named),
        IN_SCRATCH(unfit_weights_are_named),
        cmocka_unit_test(random_start_has_its_moments),
        cmocka_unit_test(random_start_depends_on_seed_parameter_and_element),
    };
    return cmocka_run_group_tests_name("hf", tests, NULL, NULL);
}
