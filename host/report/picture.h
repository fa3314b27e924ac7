// A picture of runs: their main numbers as one SVG, for a README or a paper.
#pragma once
#include "logs.h"

// Appends the SVG of run[n]: at most four plots, one colour for each run, the plain values drawn behind their smoothed
// line.
void picture_svg(const RunLogs *run, int n, Str *out);
