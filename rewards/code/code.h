// The tests of a model's program, and running them.
#pragma once
#include "sandbox.h"
#include "samples.h"
#include <jansson.h>

typedef enum { LANGUAGE_PYTHON, LANGUAGE_C, LANGUAGE_CPP } CodeLanguage;

// One test case.
typedef enum {
    CASE_OUTPUT, // standard input in, standard output compared line by line, stripped
    CASE_CALL,   // a function called with values, its result compared as a value (Python only)
    CASE_TEST,   // test code after the program: it must run to its end
} CaseKind;
typedef struct {
    CaseKind kind;
    char *input;       // CASE_OUTPUT: standard input; CASE_TEST: the code
    char *output;      // CASE_OUTPUT: expected
    char *function;    // CASE_CALL: a function, or a method of `class Solution`
    json_t *arguments; // CASE_CALL: a list
    json_t *result;    // CASE_CALL: expected
} CodeCase;

// The tests of one question, from its answer field.
typedef struct {
    char *prefix; // code before the program; NULL: none
    char *entry;  // the function that `check` of the tests is called with; NULL: none
    CodeCase *item;
    int n;
} CodeTask;

// Values of calls are JSON, with integers of any size. Jansson has 64-bit integers; a larger one is kept as a string of
// a NUL, which no other string here has, and its digits.
json_t *code_value_read(Text text);         // any value; NULL where it is none, or holds a NUL
char *code_value_text(const json_t *value); // the caller frees it
bool code_same_result(const json_t *got,
                      const json_t *want); // of a call, as values; numbers that are no integers to 1e-6

// Reads the answer field (rewards/README.md describes the forms); `prompt` may hold the beginning of the program. False
// where it has none of the forms, or no test.
bool code_task_read(const char *answer, const char *prompt, CodeTask *out);
void code_task_free(CodeTask *t);
// The last code block of the language (```python) in a completion; s == NULL where there is none.
Text code_block(Text completion, CodeLanguage language);

typedef struct {
    CodeLanguage language;
    double timeout, total;              // seconds of a case, of all cases
    int64_t memory;                     // bytes
    char python[256], c[256], cpp[256]; // absolute paths of what runs and compiles; "" where it is not here
} CodeRunner;

// Finds the programs of the runner's language and tries the sandbox with them; false after filling *e.
bool code_runner_open(CodeRunner *r, Error *e);

// Runs `program` against the task's cases; where `all` must pass, only up to the first failure. Returns how many
// passed, or -1 where the sandbox did not start.
int code_run(const CodeRunner *r, Text program, const CodeTask *task, bool all);

// code.c
void *open_code(const Reward *r, Error *e);
void close_code(void *data);
RewardFn reward_code, reward_binary_code;
