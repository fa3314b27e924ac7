// How ranks that a launcher started find each other.
#pragma once
#include "comm.h"
#include "error.h"
#include "launch.h"

typedef struct {
    char id[COMM_ID_BYTES]; // NCCL's id: rank 0 sets it before, the others receive it
    int local, locals;      // this rank's number on its host, and how many there are
    char board[32];         // name of its host's Board
} Meeting;

// Meets all ranks of *l, waiting at most `timeout` seconds; `device` must be the same for all. False after filling *e,
// which names the ranks that did not come.
bool rendezvous(const Launch *l, const char *device, double timeout, Meeting *out, Error *e);
