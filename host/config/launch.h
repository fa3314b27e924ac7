// Which rank this process is, of how many, as its launcher says.
#pragma once
#include "error.h"
#include <stdint.h>

// A rank is one process. Ranks are started by a launcher (torchrun, Open MPI, MPICH or Intel MPI, Slurm), which is
// found in the environment; or gpus=N forks N of them on this host. Only rank 0 prints, logs and writes checkpoints.
#define LAUNCH_PORTS 8 // rank 0 listens on the first free one of as many
typedef struct {
    const char *by;         // "torchrun", "Open MPI", "MPICH (or Intel MPI)", "Slurm"; NULL: no launcher
    char why[160];          // "Slurm started it as one of 4 (SLURM_PROCID=0, SLURM_STEP_NUM_TASKS=4)"
    int rank, world, local; // local: its number on its host
    int locals;             // how many ranks the launcher says are on the host; 0: it does not say
    char master[256];       // host of rank 0; `port` is the first to try
    int port;
    uint64_t job; // a number that tells this job from others
} Launch;
// Reads the environment. False after filling *e (EXIT_CONFIG): variables that are partly set or contradict each other.
bool launch_read(Launch *l, Error *e);
// The number of this rank's GPU among those the process sees: the rank's number on the host; 0 where
// CUDA_VISIBLE_DEVICES leaves only one, as Slurm does with --gpus-per-task (but not with torchrun, whose ranks share
// what they see).
int launch_gpu(const Launch *l);
