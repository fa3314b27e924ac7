// How ranks that a launcher started find each other.
#pragma once
#include "comm.h"
#include "error.h"
#include "launch.h"

typedef struct {
    char id[COMM_ID_BYTES]; // NCCL's: rank 0 brings it, the others get it
    int local, locals;      // this rank's number on its host, and how many there are
    char board[32];         // name of its host's Board
} Meeting;

// Waits at most `timeout` seconds for all ranks of *l; `device` must be the same for all. False after filling *e, naming
// the ranks that did not come.
bool rendezvous(const Launch *l, const char *device, double timeout, Meeting *out, Error *e);
