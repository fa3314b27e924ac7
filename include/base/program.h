// How every program of ours begins and ends.
#pragma once
#include "error.h"

// First thing in main: makes a sane place of whatever the program was started in.
// - Descriptors 0 to 2 that were closed are on /dev/null: else the next file opened would get what is printed.
// - A file that reaches its size limit fails to be written, as on a full disk, instead of ending the program.
// - The stacks are as large as the limits let them be.
// - OpenMP's variables: those it refuses are explained; threads beyond the cores and stacks too small are errors.
// - OpenMP's waiting threads spin for milliseconds by default: beside other work a small model then runs several times
//   slower. Not to spin at all costs a wake-up a parallel region, a quarter of the speed of decoding one sequence. Some
//   microseconds do; but the library reads its settings before main, so the program starts itself once more. What the
//   user has set stays.
// EXIT_CONFIG, EXIT_MEMORY.
bool program_begin(char **argv, Error *e);

// What of standard output waits is written: the code, or EXIT_DISK where all else went well and that did not.
ExitCode program_flush(ExitCode code, Error *e);
// Last thing in main: the line for a command that ended with this error (none where its text is empty), safe for a
// terminal. Gives back the exit status.
int program_end(const char *program, ExitCode code, const Error *e);
