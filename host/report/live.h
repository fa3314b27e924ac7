// report.html while a run goes on.
#pragma once
#include "metrics.h"

typedef struct LiveReport LiveReport;
// Starts rewriting output_dir/report.html from the logs `m`, which must stay open meanwhile. NULL where it is not
// `wanted`, or m is NULL; the calls below then do nothing.
LiveReport *live_open(const char *output_dir, Metrics *m, bool wanted);
// Called after a step: writes the page if it is time, at most every ten seconds and in at most a hundredth of the run's
// time. If it cannot be written (a full disk) a note says so once; the run goes on, and later steps try again.
void live_step(LiveReport *l);
// Writes the page a last time and frees l.
void live_close(LiveReport *l);
