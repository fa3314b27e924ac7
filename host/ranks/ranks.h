// Ranks: the processes that train together, started by a launcher or forked here.
#pragma once
#include "comm.h"
#include "config.h"
#include "error.h"

// Makes this process one of c->gpus ranks: by forking, unless a launcher started it. Returns false in the process that
// forked, after the ranks have ended, with their exit code in *code and the first failure in *e; and false after a
// failure here. No OpenMP thread and no GPU may have been used before.
bool ranks_start(const Config *c, ExitCode *code, Error *e);
int ranks_rank(void); // this process's rank; 0 where there is one
int ranks_gpu(void);  // launch_gpu of this process
int ranks_here(void); // ranks on this host, as far as is known before they meet, among which cores are divided
// Opens the communicator between the ranks, and compares their configurations: the options that must be the same, the
// version, the sizes of files. *out stays NULL for one rank. False after filling *e: EXIT_CONFIG names the ranks and
// what differs.
bool ranks_join(const Config *c, Device *d, const char *model_facts, Comm **out, Error *e);
const char *ranks_about(const Config *c);          // "4 ranks, each " or ""
void ranks_phase(const char *phase, int64_t step); // what this rank does, for the errors of ranks that wait for it
void ranks_alive(void); // a sign of life, from work that takes minutes without asking stop_requested
// Tells the other ranks that this one's work has ended in a failure (nothing where `code` is none): to be called before
// the engine is closed, since closing a communicator waits for them, and they for this rank; and after what takes long,
// since all ranks are ended soon after it.
void ranks_tell(ExitCode code, const Error *e);
// Whether main is to print the error with which a command ended: of several ranks the first to fail does, for all.
bool ranks_speak(ExitCode code, Error *e);
