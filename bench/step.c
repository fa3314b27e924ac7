// Measures whole GRPO steps: those of the recipe, 4 x 8 completions of 200 tokens (a model with random weights seldom
// ends sooner); on a CPU also short ones, which TRL's trainer makes for comparison.
#include "bench_model.h"
#include "clock.h"
#include "train.h"
#include <stdlib.h>
#include <unistd.h>

static char *write_questions(void) {
    char *path = xstrdup("/tmp/grpo_bench_questions_XXXXXX");
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f) die("bench: cannot make a file in /tmp");
    for (int i = 0; i < 64; i++)
        fprintf(f,
                "{\"question\": \"Tom has %d pens, buys %d boxes of %d and gives %d away. How many has he now?\", "
                "\"answer\": \"#### %d\"}\n",
                i, i % 5, i % 7, i % 3, i + i % 5 * (i % 7) - i % 3);
    if (fclose(f)) die("bench: cannot write %s", path);
    return path;
}

typedef struct {
    Trainer trainer;
    double tokens, prompt; // of the last step: completions' tokens; a prompt's, on average
} Stepper;

static void step(void *arg, int i) {
    Stepper *s = arg;
    Error e = {0};
    if (grpo_step(&s->trainer, &e) == STEP_FAILED) die("bench: %s", e.text);
    Batch *b = &s->trainer.generation.batch;
    s->tokens = s->prompt = 0;
    for (int j = 0; j < b->n; j++) s->tokens += b->len[j];
    for (int p = 0; p < b->prompts; p++) s->prompt += (double)b->prompt[p].n / b->prompts;
}

// Measures one row: the recipe's step, or the one that a peer makes too, with all state in bf16 or f32.
typedef struct {
    Shape shape;
    int prompts, group, length;
    const char *name, *options;
    bool memory; // a row of the process's memory, too
} Kind;

static void measure(Bench *b, Kind k) {
    if (!bench_wants(b, k.name)) return;
    Error e = {0};
    Config c;
    Stepper s = {0};
    char *dir = shape_directory(k.shape), *file = write_questions();
    char *text =
        xasprintf("device=%s model=%s tokenizer=models/tiny init=random chat_template=r1-zero "
                  "train_file=%s max_completion_length=%d num_generations=%d per_device_train_batch_size=%d "
                  "gradient_accumulation_steps=%d beta=0 progress=off max_steps=1000000 %s",
                  b->device->name, dir ? dir : "models/tiny", file, k.length, k.group, k.group, k.prompts, k.options);
    char *override[32];
    int n = 0;
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) override[n++] = word;
    if (!config_read(&c, NULL, override, n, &e) || !trainer_open(&s.trainer, &c, &e)) die("bench: %s", e.text);
    peak_memory_reset();
    double seconds = bench_time(b, step, &s), bw = b->probe.read * 1e9, p = b->probe.bf16 * 1e9;
    int all = k.prompts * k.group;
    double floor = floor_step(s.trainer.learner.engine.hf.dims, all, k.group, s.prompt, s.tokens / all, all, bw, p);
    bench_row_time(b, k.name, seconds * 1e3, "ms", b->gpu ? floor * 1e3 : 0);
    char *memory = xasprintf("peak memory, %s", k.name);
    if (k.memory) bench_row_time(b, memory, peak_memory(), "GiB", 0);
    free(memory);
    trainer_close(&s.trainer);
    config_free(&c);
    shape_directory_remove(dir);
    unlink(file);
    free(file);
    free(text);
}

// Measures the recipe's step.
static void measure_recipe(Bench *b, Shape shape) {
    char name[64];
    snprintf(name, sizeof name, "GRPO step %s, 4 x 8 completions", shape_name[shape]);
    measure(b, (Kind){shape, 4, 8, 200, name,
                      shape == SEVEN_B ? "dtype=bf16 optim_dtype=bf16 grad_dtype=bf16" : "dtype=bf16"});
}

void bench_step(Bench *b) {
    bench_section(b, "GRPO steps (the limit is the floor; less is more)");
    if (b->gpu) peer_run(b, "grpo_torch.py", "step");
    for (Shape s = HALF_B; b->gpu && s < SHAPES; s++)
        if (shape_chosen(b, s)) measure_recipe(b, s);
    if (b->gpu) return;
    peer_run(b, "trl_step.py", "step");
    measure_recipe(b, TINY);
    measure(b, (Kind){TINY, 8, 8, 32, "GRPO step tiny, 8 x 8 completions of 32 tokens, f32", "dtype=f32"});
    measure(b, (Kind){TINY, 8, 8, 32, "GRPO step tiny, 8 x 8 completions of 32 tokens, bf16",
                      "dtype=bf16 optim_dtype=bf16 grad_dtype=bf16"});
    measure(b, (Kind){HALF_B, 1, 8, 32, "GRPO step 0.5B, 1 x 8 completions of 32 tokens, bf16",
                      "dtype=bf16 optim_dtype=bf16 grad_dtype=bf16"});
    peer_run(b, "trl_step.py", "lora");
    measure(b, (Kind){HALF_B, 1, 8, 32, "GRPO step 0.5B, 1 x 8 completions of 32 tokens, bf16, lora_r = 16",
                      "dtype=bf16 lora_r=16 lora_target=all-linear", true});
}
