// Errors, each one line (what, where, why, what to do) and an exit code; notes; and an allocator that never returns
// NULL.
//
// A function that can fail through what a user wrote takes an `Error *` and returns false (or NULL) after filling it.
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
// Fills *e (which may be NULL) and returns false, so that one can write `return error_set(...)`.
bool error_set(Error *e, ExitCode code, const char *fmt, ...) PRINTF_LIKE(3, 4);
// Puts "<prefix>: " before the text already there; returns false.
bool error_prefix(Error *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

// The text for errno `number` after a file could not be opened: strerror, and what to do about it.
const char *error_open(int number);

// The same for a file that could not be written.
const char *error_write(int number);

// Prints one line to stderr: "grpo: note: ...".
void note(const char *fmt, ...) PRINTF_LIKE(1, 2);

// From now on also calls also(text) (may be NULL) with what a note says.
void note_tell(void (*also)(const char *text));

// From now on notes are not printed (quiet), or are again: of several ranks only one prints them.
void note_quiet(bool quiet);

// Ends the program with a message because an internal invariant is broken: a bug, never a user's mistake.
_Noreturn void die(const char *fmt, ...) PRINTF_LIKE(1, 2);

// ---- memory.c: memory that is never NULL, here and in every library -------------------------------------------------
// Ends the process with one line, "grpo: error: out of memory: <what>; ...", and EXIT_MEMORY. A library's malloc that
// fails, or a thread that cannot be started, ends here too.
_Noreturn void out_of_memory(const char *what, ...) PRINTF_LIKE(1, 2);
// Sets who is asked before that line is printed (ranks_speak): of several ranks only one prints it.
void memory_ask_who_speaks(bool (*ask)(ExitCode code, Error *e));
// Where an error is of memory, and a limit of this process is what refuses it (ulimit -v, ulimit -d), says so at its
// end, unless it names the limit already: closing other programs would not help.
void memory_name_limit(Error *e);
// Where such a limit is set, keeps the C library from reserving 64 MiB of it for each thread.
void memory_spare_limit(void);
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
