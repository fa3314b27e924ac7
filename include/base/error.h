// Errors: what, where, why, what to do; one line, one exit code. And the allocator that cannot return NULL.
//
// A function that reads what a user wrote takes an `Error *` and returns false (or NULL) after filling it.
// Nothing below main prints an error or exits; main prints "grpo: error: <text>" and exits with <code>.
// A broken invariant inside the program (never a user's doing) is `die`.
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

typedef enum {
    EXIT_OK = 0,
    EXIT_CONFIG = 2,   // the configuration or the command line
    EXIT_INPUT = 3,    // a model, tokenizer, data set or prompt
    EXIT_DISK = 4,     // reading or writing failed
    EXIT_MEMORY = 5,   // not enough memory
    EXIT_NUMERIC = 6,  // NaN or Inf that did not go away
    EXIT_COMM = 7,     // a rank or a GPU failed
    EXIT_STOPPED = 75, // stopped by a signal, after saving
} ExitCode;

typedef struct Error {
    ExitCode code;
    char text[2048];
} Error;

#ifdef __cplusplus
extern "C" {
#define _Noreturn [[noreturn]]
#endif
// Fills *e (which may be NULL) and returns false, so that `return error_set(...)` reads as one step.
bool error_set(Error *e, ExitCode code, const char *fmt, ...) PRINTF_LIKE(3, 4);
// Puts "<prefix>: " before the text already there; returns false.
bool error_prefix(Error *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

// Why a file could not be opened, and what to do about it: strerror(number) and more.
const char *error_open(int number);

// Why a file could not be written, likewise.
const char *error_write(int number);

// One line to stderr: "grpo: note: ...".
void note(const char *fmt, ...) PRINTF_LIKE(1, 2);

// From here on `also` (may be NULL) is given what notes say.
void note_tell(void (*also)(const char *text));

// From here on notes are kept back: of several ranks one speaks.
void note_quiet(bool quiet);

// An internal invariant is broken: says where, and aborts.
_Noreturn void die(const char *fmt, ...) PRINTF_LIKE(1, 2);

// ---- memory.c: memory that is never NULL, here and in every library -------------------------------------------------
// Ends the process with one line, "grpo: error: out of memory: <what>; ...", and EXIT_MEMORY. What a library calls
// malloc for, or a thread, ends there too where there is none.
_Noreturn void out_of_memory(const char *what, ...) PRINTF_LIKE(1, 2);
// Whether this process may say so is asked of `ask`, which is ranks_speak: of several ranks one speaks.
void memory_ask_who_speaks(bool (*ask)(ExitCode code, Error *e));
// malloc and friends of our own code.
void *xmalloc(size_t bytes);
void *xcalloc(size_t count, size_t bytes);
void *xrealloc(void *p, size_t bytes);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);
#ifdef __cplusplus
}
#undef _Noreturn
#endif
