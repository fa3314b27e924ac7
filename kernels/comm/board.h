// The shared memory behind a Board: what the collectives of comm.c move their bytes through.
#pragma once
#include "comm.h"

#define BOARD_WINDOW ((size_t)256 << 10) // bytes a rank brings to one meeting

// The window that rank number `local` fills before the next meeting and that is read after it. It may be written again
// only before the meeting after that one: the two windows of a rank take turns.
char *board_window_next(Board *b, int local);
// The window rank number `local` had filled for the meeting that is just over.
const char *board_window_last(Board *b, int local);
