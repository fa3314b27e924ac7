// The guard of a program that must not outlive grpo: its parent process, which waits for grpo's end (guard.c).
#pragma once

#define GUARD_NAME "grpo-guard"
// The descriptors it is started with, beside the program's standard input, output and errors: the reading end of a pipe
// that only grpo can write to, and one to report why the program could not be started.
enum { GUARD_LIFE = 3, GUARD_REPORT = 4 };

// The guard's arguments for the program `path` with arguments argv. The caller frees [1] and the list.
char **guard_argv(const char *path, char *const *argv);
