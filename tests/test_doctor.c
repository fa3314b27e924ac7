// grpo doctor: one broken thing at a time, and the line and the exit code it gets.
#include "commands.h"
#include "hf.h"
#include "scratch.h"
#include "file.h"
#include "outdir.h"
#include <string.h>
#include <sys/stat.h>

static char folder[] = "/tmp/grpo-doctor-XXXXXX";

static char *in_folder(const char *name) { return xasprintf("%s/%s", folder, name); }

static void put(const char *name, const char *text) {
    char *path = in_folder(name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0 && fclose(f) == 0);
    free(path);
}

static const char rows[] =
    "{\"question\": \"1+1?\", \"answer\": \"2\\n#### 2\"}\n"
    "{\"question\": \"What is one and two, in words and at some length?\", \"answer\": \"#### 3\"}\n";

static int make_folder(void **state) {
    if (!mkdtemp(folder)) return -1;
    put("rows.jsonl", rows);
    put("bad.jsonl", "{\"question\": \"1+1?\", \"answer\": \"#### 2\"}\n{\"question\": \"1+1?\"\n");
    char *model = in_folder("model");
    int failed = mkdir(model, 0777);
    free(model);
    put("model/config.json",
        "{\"model_type\": \"qwen2\", \"architectures\": [\"Qwen2ForCausalLM\"], \"hidden_act\": \"silu\", "
        "\"hidden_size\": 64, \"intermediate_size\": 128, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, "
        "\"num_hidden_layers\": 2, \"vocab_size\": 100, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-6, "
        "\"rope_theta\": 10000.0, \"tie_word_embeddings\": true, \"eos_token_id\": 1}");
    return failed;
}

static int remove_folder(void **state) {
    Error e;
    return disk_remove(folder, &e) ? 0 : -1;
}

// Runs the doctor on models/tiny with these options, and expects a line that begins with `finding`, has `what`, and
// `why`.
static void assert_finding(char **args, int n, ExitCode code, const char *finding, const char *what, const char *why) {
    char *argv[16] = {"model=models/tiny", "init=random", "chat_template=r1-zero", "max_prompt_length=200"};
    int argc = 4;
    for (int i = 0; i < n; i++) {
        char *mark = strstr(args[i], "@");
        argv[argc++] =
            mark ? xasprintf("%.*s%s%s", (int)(mark - args[i]), args[i], folder, mark + 1) : xstrdup(args[i]);
    }
    char *log = in_folder("log");
    fflush(stdout);
    int screen = dup(STDOUT_FILENO);
    assert_non_null(freopen(log, "w", stdout));
    Error e = {0};
    ExitCode got = command_doctor(argc, argv, &e);
    fflush(stdout);
    assert_true(dup2(screen, STDOUT_FILENO) >= 0 && !close(screen));
    size_t size;
    char *text = file_read(log, 1 << 20, &size, &e);
    assert_non_null(text);
    bool found = false;
    for (char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t length = strcspn(line, "\n");
        found = found || (!strncmp(line, finding, strlen(finding)) && memmem(line, length, what, strlen(what)) &&
                          memmem(line, length, why, strlen(why)));
    }
    if (!found || got != code)
        fail_msg("code %d, not %d; no '%s %s ... %s' in:\n%s", got, code, finding, what, why, text);
    if (code) assert_non_null(strstr(e.text, "failed; see FAIL above"));
    for (int i = 4; i < argc; i++) free(argv[i]);
    free(text);
    unlink(log);
    free(log);
}
#define FINDS(code, finding, what, why, ...)                                                                           \
    assert_finding((char *[]){__VA_ARGS__}, (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)), code, finding,    \
                   what, why)

static void machine_and_model(void **state) {
    FINDS(EXIT_OK, "OK", "device", "CPU", "threads=1");
    FINDS(EXIT_OK, "OK", "device", "plain C", "cpu_isa=generic");
    FINDS(EXIT_OK, "WARN", "instructions", "generic is slow", "cpu_isa=generic");
    setenv("GRPO_CPU_ISA", "avx3", 1);
    FINDS(EXIT_CONFIG, "FAIL", "device", "GRPO_CPU_ISA=avx3: no such instruction set; choose one of generic",
          "threads=1");
    setenv("GRPO_CPU_ISA", "auto", 1);
    FINDS(EXIT_OK, "OK", "device", "CPU", "threads=1");
    unsetenv("GRPO_CPU_ISA");
    if (cpu_isa_missing(CPU_ISA_amx)) { // said in one line, and an error for those who ask for it
        char why[128];
        snprintf(why, sizeof why, "amx: %s", cpu_isa_missing(CPU_ISA_amx));
        FINDS(EXIT_OK, cpu_isa_missing(CPU_ISA_avx2) ? "WARN" : "OK", "instructions", why, "threads=1");
        snprintf(why, sizeof why, "amx: %s; choose one of generic", cpu_isa_missing(CPU_ISA_amx));
        FINDS(EXIT_CONFIG, "FAIL", "device", why, "cpu_isa=amx");
    }
    for (int isa = CPU_ISA_AUTO + 1; isa < CPU_ISA_END; isa++) { // there, but auto takes a faster one
        if (!cpu_isa_slow(isa)) continue;
        char of[64], said[128];
        snprintf(of, sizeof of, "cpu_isa=%s", cpu_isa_name(isa));
        snprintf(said, sizeof said, "%s (%s)", cpu_isa_name(isa), cpu_isa_slow(isa));
        assert_int_not_equal(cpu_isa_auto(), isa);
        FINDS(EXIT_OK, "OK", "instructions", said, "threads=1");
        snprintf(said, sizeof said, "%s (used; %s)", cpu_isa_name(isa), cpu_isa_slow(isa));
        FINDS(EXIT_OK, "OK", "instructions", said, of);
    }
    FINDS(EXIT_OK, "OK", "libraries", "libyaml", "threads=1");
    FINDS(EXIT_OK, "OK", "model", "qwen2, 459904 parameters", "threads=1");
    FINDS(EXIT_OK, "OK", "rotary", "theta 10000", "threads=1");
    FINDS(EXIT_OK, "OK", "tokenizer", "models/tiny/tokenizer.json", "threads=1");
    FINDS(EXIT_INPUT, "FAIL", "model", "/nowhere", "model=@/nowhere");
    FINDS(EXIT_INPUT, "FAIL", "weights", "no model.safetensors", "init=load");
    FINDS(EXIT_INPUT, "FAIL", "tokenizer", "the model 100 rows", "model=@/model", "tokenizer=models/tiny");
    FINDS(EXIT_INPUT, "FAIL", "tokenizer", "/model", "model=@/model");
    FINDS(EXIT_OK, "WARN", "template", "chat_template is r1-zero, the tokenizer came with qwen2.5", "threads=1");
    FINDS(EXIT_OK, "OK", "template", "qwen2.5", "chat_template=auto");
    FINDS(EXIT_INPUT, "WARN", "end of turn", "ends a turn with <|im_end|> (id 511)", "model=@/model",
          "tokenizer=models/tiny", "chat_template=qwen2.5");
    FINDS(EXIT_CONFIG, "FAIL", "context", "max_position_embeddings", "max_completion_length=1000");
    FINDS(EXIT_MEMORY, "FAIL", "plan", "grpo plan", "train_file=@/rows.jsonl", "max_completion_length=800",
          "per_device_train_batch_size=65536", "num_generations=4096", "output_dir=@/out");
}

// config.json says that the head is the embedding, the files have another: it is counted.
static void a_head_of_its_own_is_counted(void **state) {
    HfConfig tiny;
    Error e = {0};
    assert_true(hf_config_read("models/tiny", &tiny, &e));
    tiny.dims.tied = false;
    Model m = model_make(tiny.dims, F32, 3);
    char *dir = in_folder("headed"), *wanted = xasprintf("%lld parameters", (long long)model_param_count(tiny.dims));
    if (!hf_save(dir, "models/tiny", NULL, &m, &e)) fail_msg("%s", e.text);
    size_t n;
    char *config = file_read("models/tiny/config.json", 1 << 16, &n, &e);
    put("headed/config.json", config);
    FINDS(EXIT_OK, "OK", "model", wanted, "model=@/headed", "tokenizer=models/tiny", "init=load");
    FINDS(EXIT_OK, "OK", "model", "459904 parameters", "model=@/headed", "tokenizer=models/tiny");
    free(config), free(dir), free(wanted);
    model_drop(&m);
}

// config.json in the words of transformers 4 and of 5, which do not agree.
static void what_counted_is_said(void **state) {
    json_t *config = json_load_file("models/tiny/config.json", 0, NULL);
    json_object_update_new(config,
                           json_loads("{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2.0}, \"rope_theta\": 3e4,"
                                      "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 1e6},"
                                      "\"dtype\": \"bfloat16\"}",
                                      0, NULL));
    char *dir = in_folder("both"), *text = json_dumps(config, 0);
    assert_int_equal(mkdir(dir, 0777), 0);
    put("both/config.json", text);
    FINDS(EXIT_OK, "OK", "rotary", "theta 30000, yarn: factor 2", "model=@/both", "tokenizer=models/tiny");
    FINDS(EXIT_OK, "WARN", "rotary",
          "\"rope_scaling\" stands beside \"rope_parameters\" and replaces it: theta is 30000, not", "model=@/both",
          "tokenizer=models/tiny");
    FINDS(EXIT_OK, "OK", "dtype", "the files are bfloat16", "model=@/both", "tokenizer=models/tiny");
    free(dir), free(text);
    json_decref(config);
}

// What other programs stop at stands in generation_config.json alone, where it is there.
static void ends_are_looked_for_where_others_do(void **state) {
    size_t n;
    Error e = {0};
    char *dir = in_folder("ends"), *config = file_read("models/tiny/config.json", 1 << 16, &n, &e); // ends with 511
    assert_int_equal(mkdir(dir, 0777), 0);
    put("ends/config.json", config);
    put("ends/generation_config.json", "{\"top_k\": 5}");
    FINDS(EXIT_OK, "WARN", "end of turn", "<|im_end|> (id 511)", "model=@/ends", "tokenizer=models/tiny",
          "chat_template=qwen2.5");
    free(config), free(dir);
}

static void data_and_output(void **state) {
    FINDS(EXIT_OK, "OK", "train_file", "2 rows", "train_file=@/rows.jsonl", "output_dir=@/new/out");
    FINDS(EXIT_OK, "OK", "output_dir", "GiB free", "train_file=@/rows.jsonl", "output_dir=@/new/out");
    FINDS(EXIT_OK, "WARN", "eval_file", "is the training file", "train_file=@/rows.jsonl", "eval_file=@/rows.jsonl");
    FINDS(EXIT_INPUT, "FAIL", "eval_file", "No such file", "eval_file=@/none.jsonl");
    FINDS(EXIT_DISK, "FAIL", "output_dir", "rows.jsonl: Not a directory; choose another output_dir",
          "train_file=@/rows.jsonl", "output_dir=@/rows.jsonl");
    FINDS(EXIT_INPUT, "FAIL", "train_file", "bad.jsonl:2", "train_file=@/bad.jsonl", "output_dir=@/out");
    FINDS(EXIT_OK, "WARN", "train_file", "1 bad lines are left out", "train_file=@/bad.jsonl", "bad_lines=skip",
          "output_dir=@/out");
    FINDS(EXIT_OK, "WARN", "train_file", "2 of 2 prompts have more", "train_file=@/rows.jsonl", "max_prompt_length=5",
          "output_dir=@/out");
    FINDS(EXIT_INPUT, "FAIL", "train_file", "stop the run", "train_file=@/rows.jsonl", "max_prompt_length=5",
          "long_prompts=fail", "output_dir=@/out");
    FINDS(EXIT_OK, "WARN", "train_file", "keep their last tokens (long_prompts: truncate_left); select leaves them out",
          "train_file=@/rows.jsonl", "max_prompt_length=5", "output_dir=@/out");
    FINDS(EXIT_OK, "WARN", "train_file", "they are left out", "train_file=@/rows.jsonl", "max_prompt_length=5",
          "long_prompts=skip", "output_dir=@/out");
    FINDS(EXIT_OK, "WARN", "eval_file", "keep their last tokens (long_prompts: skip leaves nothing out",
          "eval_file=@/rows.jsonl", "max_prompt_length=5", "long_prompts=skip");
    FINDS(EXIT_OK, "WARN", "eval_file", "keep their last tokens (long_prompts: truncate_left)",
          "eval_file=@/rows.jsonl", "max_prompt_length=5");
    FINDS(EXIT_INPUT, "FAIL", "eval_file", "2 of 2 prompts have more than max_prompt_length 5 tokens",
          "eval_file=@/rows.jsonl", "max_prompt_length=5", "long_prompts=fail");
    FINDS(EXIT_INPUT, "FAIL", "prompt", "system_prompt_file", "system_prompt_file=@/none.txt");
    FINDS(EXIT_INPUT, "FAIL", "prompt_file", "cannot read", "prompt_file=@/none.txt");
    FINDS(EXIT_DISK, "FAIL", "output_dir", "cannot write", "train_file=@/rows.jsonl", "output_dir=@/rows.jsonl/out");
}

static void rewards_are_opened(void **state) {
    put("half.so", "\x7f"
                   "ELF");
    FINDS(EXIT_CONFIG, "FAIL", "rewards", "plugin: ", "rewards=plugin:path=@/none.so");
    FINDS(EXIT_CONFIG, "FAIL", "rewards", "was cut short", "rewards=xmlcount,plugin:path=@/half.so");
    FINDS(EXIT_CONFIG, "FAIL", "rewards", "external: ", "rewards=external:command=/nowhere/program");
    FINDS(EXIT_CONFIG, "FAIL", "rewards", "regex: ", "rewards=regex:pattern=(");
    FINDS(EXIT_CONFIG, "FAIL", "eval_grader", "external: ", "eval_grader=external:command=/nowhere/program");
    FINDS(EXIT_OK, "OK", "rewards", "regex can be used", "rewards=xmlcount,regex:pattern=a");
}

static void configuration_comes_first(void **state) {
    Error e = {0};
    char *args[] = {"beta=x"};
    assert_int_equal(command_doctor(1, args, &e), EXIT_CONFIG);
    assert_non_null(strstr(e.text, "beta wants a number"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machine_and_model),         cmocka_unit_test(a_head_of_its_own_is_counted),
        cmocka_unit_test(what_counted_is_said),      cmocka_unit_test(data_and_output),
        cmocka_unit_test(configuration_comes_first), cmocka_unit_test(ends_are_looked_for_where_others_do),
        cmocka_unit_test(rewards_are_opened),
    };
    return cmocka_run_group_tests_name("doctor", tests, make_folder, remove_folder);
}
