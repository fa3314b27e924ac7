// The program run as a user runs it, in a directory with small files of every kind.
#pragma once
#include "device.h"
#include "file.h"
#include "train_fixture.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <string.h>

static char dir[64]; // holds train.jsonl

static inline const char *program(void) { return getenv("GRPO") ? getenv("GRPO") : "build/grpo"; }

// Runs `grpo ARGS` through the shell (input may be NULL), both outputs into *out; the exit code.
static inline int grpo(const char *args, const char *input, Str *out) {
    char *in = xasprintf("%s/input", dir);
    FILE *f = fopen(in, "w");
    assert_non_null(f);
    if (input) fputs(input, f);
    fclose(f);
    char *command = xasprintf("%s %s <%s 2>&1", program(), args, in);
    str_clear(out);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, p)) > 0;) str_add(out, block, n);
    int status = pclose(p);
    free(command);
    free(in);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

// Where the JSON of an output begins: notes may come first.
static inline char *results(const Str *out) { return strchr(out->s, '{') ? strchr(out->s, '{') : out->s; }

static inline char *words(const char *fmt) { // "$D" stands for the directory
    Str s = {0};
    for (const char *p = fmt; *p; p++) {
        if (p[0] == '$' && p[1] == 'D') str_puts(&s, dir), p++;
        else str_add(&s, p, 1);
    }
    return s.s;
}

static inline void write_file(const char *name, const char *text) {
    char *path = xasprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

#define TINY                                                                                                           \
    "model=models/tiny init=random dtype=f32 chat_template=r1-zero max_prompt_length=96 max_completion_length=8 "      \
    "num_generations=2 per_device_train_batch_size=2 gradient_accumulation_steps=1 progress=plain beta=0 "

static inline int cli_setup(void **state) {
    static Fixture f;
    fixture_dir(&f);
    snprintf(dir, sizeof dir, "%s", f.dir);
    *state = &f;
    write_file("empty.jsonl", "");
    write_file("wide.jsonl", "{\"text\": 18446744073709551616, \"completion\": 18446744073709551616}\n");
    write_file("noquestion.jsonl", "{\"question\": \"\", \"answer\": \"#### 1\"}\n");
    write_file("bad.jsonl", "{\"question\": \"a\", \"answer\": \"#### 1\"}\n{\"question\": \"a\"\n");
    Str sft = {0};
    for (int i = 0; i < 8; i++)
        str_printf(&sft,
                   i % 2 ? "{\"prompt\": \"What is %d + 1?\", \"completion\": \"%d\"}\n"
                         : "{\"messages\": [{\"role\": \"user\", \"content\": \"What is %d + 1?\"}, {\"role\": "
                           "\"assistant\", \"content\": \"%d\"}]}\n",
                   i, i + 1);
    char *zero = xasprintf("printf 'one\\nt\\0wo\\n' >%s/zero.txt; printf 'caf\\351\\n' >%s/latin.txt", dir, dir);
    if (system(zero)) return -1;
    free(zero);
    write_file("sft.jsonl", sft.s);
    Str late = {0};
    for (int i = 1; i <= 6000; i++)
        str_printf(&late, "{\"question\": \"%s\", \"answer\": \"#### 1\"}\n", i < 6000 ? "What?" : "");
    write_file("late.jsonl", late.s);
    str_free(&late);
    write_file("roles.jsonl",
               "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
               "\"b\"}]}\n{\"messages\": [{\"role\": \"critic\", \"content\": \"a\"}, {\"role\": \"assistant\", "
               "\"content\": \"b\"}]}\n");
    write_file("unasked.jsonl", "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}\n");
    write_file("turns.jsonl",
               "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\"}]}\n");
    str_free(&sft);
    char here[4096];
    if (!getcwd(here, sizeof here)) return -1;
    // a model with fewer rows than the tokenizer has ids, and one with narrower layers
    char *make =
        xasprintf("mkdir -p %s/small && cp models/tiny/* %s/small && cd %s/small && sed -i -E "
                  "'s/(vocab_size.: )[0-9]+/\\1128/; s/(_token_id.: )[0-9]+/\\11/' config.json && "
                  "echo '{\"eos_token_id\": 1}' >generation_config.json && cd .. && "
                  "cp -r %s/models/tiny other && sed -i -E 's/(intermediate_size.: )[0-9]+/\\1256/' other/config.json",
                  dir, dir, dir, here);
    int status = system(make);
    free(make);
    return status;
}

static inline int cli_teardown(void **state) {
    fixture_remove(*state);
    return 0;
}
