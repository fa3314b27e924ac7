// Whether there are GPUs for a test of several ranks.
#pragma once
#include "comm.h"
#include "on_device.h"
#include <sys/wait.h>
#include <unistd.h>

// Whether there is a GPU for each of `world` ranks, and NCCL between them; asked by another process, as the ranks' own
// must be forked before CUDA is awake.
static inline bool gpus_for(int world) {
    int status = 1;
    pid_t pid = fork();
    if (pid == 0) {
        Error e = {0};
        bool nccl = false;
#ifdef GRPO_CUDA
        char id[COMM_ID_BYTES];
        nccl = cuda_comm_id(id, &e);
#endif
        _exit(!(nccl && device_open(DEVICE_CUDA, world - 1, 1, CPU_ISA_AUTO, &e)));
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}
// Skips a test on GPUs for which there are too few.
#define NEEDS_GPUS(world)                                                                                              \
    do {                                                                                                               \
        if (test_on_cuda() && !gpus_for(world)) {                                                                      \
            printf("  SKIP %d ranks: they need as many GPUs, and a build with NCCL\n", world);                         \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)
