// Which rank of how many this process is, as its launcher says.
#pragma once
#include "error.h"
#include <stdint.h>

// A process is one rank. They come from a launcher (torchrun, Open MPI, MPICH or Intel MPI, Slurm), found in the environment,
// or gpus=N forks N of them on this host. Rank 0 alone prints, logs and writes checkpoints.
#define LAUNCH_PORTS 8 // rank 0 listens on the first free one of as many
typedef struct {
    const char *by;         // "torchrun", "Open MPI", "MPICH (or Intel MPI)", "Slurm"; NULL: no launcher
    char why[160];          // "Slurm started it as one of 4 (SLURM_PROCID=0, SLURM_STEP_NUM_TASKS=4)"
    int rank, world, local; // local: number on its host
    int locals;             // how many ranks the launcher says are there; 0: it does not say
    char master[256];       // rank 0's host and first port
    int port;
    uint64_t job; // tells this job from others
} Launch;
// EXIT_CONFIG: variables that are half set or contradict each other.
bool launch_read(Launch *l, Error *e);
// The number of its GPU among those the process sees: its number on the host; 0 where CUDA_VISIBLE_DEVICES leaves it one
// alone, as Slurm does with --gpus-per-task (but not torchrun: its ranks share what they see).
int launch_gpu(const Launch *l);
