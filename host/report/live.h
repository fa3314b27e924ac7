// report.html while a run goes on.
#pragma once
#include "metrics.h"

typedef struct LiveReport LiveReport;
// Rewrites output_dir/report.html from the logs `m`, which stay open as long. NULL where it is not `wanted`, or m is NULL; the
// calls below then do nothing.
LiveReport *live_open(const char *output_dir, Metrics *m, bool wanted);
// After a step: writes the page where it is time, at most every ten seconds and for a hundredth of a run's time. A page that
// cannot be written (a full disk) is said once; the run goes on, and so do the tries.
void live_step(LiveReport *l);
// Writes it a last time.
void live_close(LiveReport *l);
