// Stopping on request: signals that ask a command to stop, and who learns of it.
#pragma once
#include "error.h"

// Handles SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGXCPU and SIGHUP (where that is not ignored). The first is acknowledged
// on stderr at once and asks to stop; a second one (but not another SIGHUP or SIGXCPU) quits at once with 128 + its
// number. SIGPIPE is ignored: a log
// reader that goes away does not end a run. `saves`: the command saves before it stops, and the acknowledgement says
// so.
void signals_install(bool saves);
// Waits until fd can be read without waiting. Called before a read from a person or a pipe. False where a stop is
// requested.
bool signals_wait(int fd);
int stop_requested(void); // the signal that asked to stop, or 0; calls on_look
int stop_asked(void);     // the same without calling on_look: from any thread
// Makes a signal to one of several ranks stop all: they share `flag`. on_look (may be NULL) is called at every
// stop_requested, as a sign of life. NULL, NULL: one rank again.
void signals_share(int *flag, void (*on_look)(void));
