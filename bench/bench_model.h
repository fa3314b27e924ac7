// Models the benchmark runs: the tiny one, and some of Qwen2.5's shapes with random weights.
#pragma once
#include "bench.h"
#include "config.h"
#include "floor.h"
#include "learner.h"
typedef enum { TINY, HALF_B, ONE_HALF_B, SEVEN_B, SHAPES } Shape;
extern const char *const shape_name[SHAPES]; // "tiny", "0.5B", ...
// Whether --models has it.
bool shape_chosen(const Bench *b, Shape shape);
// Whether a list, as --models takes it, has nothing but known shapes.
bool shapes_known(const char *list);
// A temporary model directory with that shape's config.json, heap; the tiny model has its own: NULL.
char *shape_directory(Shape shape);
void shape_directory_remove(char *dir); // and frees; NULL is fine

typedef struct {
    Learner learner;
    Config cfg;
    char *dir; // a temporary model directory, or NULL
} BenchModel;

// Opens the model; ends the program with the reason where that fails.
void bench_model_open(const Bench *b, BenchModel *m, Shape shape, DType dtype, RunShape run_shape);
void bench_model_close(BenchModel *m);
// Seconds of drawing `length` tokens for each of `prompts` x `group` sequences; a group shares its prompt's tokens.
double rollout_seconds(const Bench *b, Engine *engine, int prompts, int group, int prompt, int length);
// A row of the memory this model took: the process's peak since peak_memory_reset; on a GPU what was allocated there.
void bench_model_memory(Bench *b, const BenchModel *m, const char *what);
