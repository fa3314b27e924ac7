// Stopping on request: what a signal asks for, and who is told.
#pragma once
#include "error.h"

// Handles SIGTERM, SIGINT, SIGUSR1, SIGHUP (where it is not ignored): the first is acknowledged on stderr at once and asks to
// stop, a second one (of SIGHUPs none) quits there and then with 128 + its number. SIGPIPE is ignored: a log reader that went
// away does not end a run. `saves`: a stopped command saves first, and the acknowledgement says so.
void signals_install(bool saves);
// Before a read that may wait for a person or a pipe: waits until it need not. False where a stop is requested.
bool signals_wait(int fd);
int stop_requested(void); // the signal that asked to stop, or 0
int stop_asked(void);     // the same without a sign of life: from any thread
// A signal that one of several ranks gets stops all: `flag` is shared by them. on_look (may be NULL) is called at every
// stop_requested. NULL, NULL: one rank again.
void signals_share(int *flag, void (*on_look)(void));
