// What tests ask of the emulated device beyond CUDA itself: counts of launches, the order of threads, faults on
// purpose. Callable from C.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

// Launches that ran since the last reset (a graph's count each time it runs): of kernels of that name, without template
// arguments ("fill_kernel"), and of all.
int64_t emu_launches(const char *kernel);
int64_t emu_launches_total(void);
// Those of all that a graph asked for.
int64_t emu_launches_replayed(void);
// Bytes of device memory that are allocated now.
size_t emu_device_bytes(void);
// Forgets counts, sticky errors and faults asked for.
void emu_reset(void);

// The order in which threads of a block and blocks of a grid run is drawn from this seed (environment EMU_SEED; 1).
void emu_seed(uint64_t seed);
// The k-th allocation from now on (1: the next) fails for lack of memory; 0: none (EMU_FAIL_ALLOC).
void emu_fail_alloc(int64_t k);
// Launches of kernels of that name fail as a crash on the GPU would: at the next synchronisation, and from then on
// everywhere; NULL: none (EMU_FAIL_LAUNCH).
void emu_fail_launch(const char *kernel);
// Work waits in its stream until somebody synchronises, instead of running as it is asked for (EMU_DEFER=1).
void emu_defer(bool on);
// Kernels run as nvcc compiled them, on the machine of tests/ptx: the .ptx files of folder EMU_PTX hold them. (Where it
// is set, from the start.) The number of instructions that threads have run there.
void emu_machine(bool on);
int64_t emu_machine_instructions(void);
// EMU_GUARD=1: device memory is out of the host's reach but for copies, as on a GPU; who reads or writes it dies there.
// (AddressSanitizer does not watch the ends of allocations then.)

#ifdef __cplusplus
}
#endif
