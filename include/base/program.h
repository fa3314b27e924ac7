// How every program of this project begins and ends.
#pragma once
#include "error.h"

// To be called first in main: puts right what the program was started with.
// - Descriptors 0 to 2 that were closed are opened on /dev/null: else what is printed would go into the next file
//   opened.
// - A file that reaches its size limit fails to be written, as on a full disk, instead of ending the program.
// - Stacks become as large as the limits allow.
// - OpenMP's variables: those it refuses are explained; threads beyond the cores and stacks too small are errors.
// - OpenMP's waiting threads spin for milliseconds by default: beside other work a small model then runs several times
//   slower. Not spinning at all costs a wake-up for each parallel region, a quarter of the speed of decoding one
//   sequence. So they spin for some microseconds; because the library reads that setting before main, the program
//   executes itself once more. What the user has set is kept.
// False after filling *e (EXIT_CONFIG, EXIT_MEMORY).
bool program_begin(char **argv, Error *e);

// Writes what standard output still holds. Returns `code`, or EXIT_DISK where code is EXIT_OK and that failed.
ExitCode program_flush(ExitCode code, Error *e);
// To be called last in main: prints the line for a command that ended with this error (none where its text is empty),
// safe for a terminal. Returns the exit status.
int program_end(const char *program, ExitCode code, const Error *e);
