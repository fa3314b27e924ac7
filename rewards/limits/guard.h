// The guard of a program that must not outlive us: its parent, which waits for our end.
#pragma once

#define GUARD_NAME "reward-guard"
// Descriptors it is started with, beside standard input, output and errors, which are the program's: the reading end of a
// pipe that only we can write to, and the one that tells why the program could not be started.
enum { GUARD_LIFE = 3, GUARD_REPORT = 4 };

// The guard's arguments for the program `path` with arguments argv: [1] and the list itself are the caller's to free.
char **guard_argv(const char *path, char *const *argv);
