// The windows of a Board: the shared memory through which the collectives of comm.c move bytes.
#pragma once
#include "comm.h"

#define BOARD_WINDOW ((size_t)256 << 10) // bytes that a rank can bring to one meeting

// The window that rank number `local` of this host fills before the next meeting, and that the others read after it.
// The two windows of a rank take turns, so the others can read it until the meeting after that one.
char *board_window_next(Board *b, int local);
// The window that rank number `local` filled for the meeting that is just over.
const char *board_window_last(Board *b, int local);
