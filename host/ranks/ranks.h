// Several ranks: a process each, started by a launcher or forked here.
#pragma once
#include "comm.h"
#include "config.h"
#include "error.h"

// Makes this process a rank of c->gpus: at once where a launcher started it, else by forking. False in the process that
// forked, after the ranks have ended, with their exit code in *code and the first failure in *e; and false after a failure.
// Before it no OpenMP thread and no GPU may have been used.
bool ranks_start(const Config *c, ExitCode *code, Error *e);
int ranks_rank(void); // this process's rank; 0 where there is one
int ranks_gpu(void);  // launch_gpu of this process
int ranks_here(void); // ranks on this host, as far as is known before they meet: the cores are divided by it
// Opens the communicator between the ranks, and compares their configurations: rank-independent options, version, the
// files' sizes. *out stays NULL for one rank. EXIT_CONFIG names ranks and options that differ.
bool ranks_join(const Config *c, Device *d, const char *model_facts, Comm **out, Error *e);
const char *ranks_about(const Config *c);          // "4 ranks, each " or ""
void ranks_phase(const char *phase, int64_t step); // for the errors of those who wait for this rank
void ranks_alive(void); // a sign of life in work that takes minutes and never looks at stop_requested
// What main asks before it prints the error a command ended with: of several ranks the first to fail speaks for all.
bool ranks_speak(ExitCode code, Error *e);
