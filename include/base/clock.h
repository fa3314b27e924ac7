// The clock that only goes forward.
#pragma once

// Seconds since some moment in the past: for durations and time limits.
double clock_seconds(void);
