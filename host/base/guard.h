// The guard of a program that must not outlive grpo: its parent process, which waits for grpo's end (guard.c).
#pragma once
#include <stddef.h>

#define GUARD_NAME "grpo-guard"
// The descriptors it is started with, beside the program's standard input, output and errors: the reading end of a pipe
// that only grpo can write to, and one to report why the program could not be started.
enum { GUARD_LIFE = 3, GUARD_REPORT = 4 };

// The guard's arguments for the program `path` with arguments argv. most: how many bytes of the program's output and
// errors reach the guard's own, the rest is left out; 0: they are the program's, without limit. The caller frees [1],
// [2] and the list.
char **guard_argv(const char *path, size_t most, char *const *argv);
