// The device under test: the CPU, or the one GRPO_TEST_DEVICE names (cuda: a GPU, or its emulation in MODE=emu).
#pragma once
#include "config.h"
#include "device.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline bool test_on_cuda(void) {
    const char *name = getenv("GRPO_TEST_DEVICE");
    return name && !strcmp(name, "cuda");
}
// GPU number `ordinal`.
static inline Device *test_device_of(int ordinal, int threads) {
    Error e = {0};
    Device *d = device_open(test_on_cuda() ? DEVICE_CUDA : DEVICE_CPU, ordinal, threads, CPU_ISA_AUTO, &e);
    if (!d) die("tests: %s", e.text);
    return d;
}
static inline Device *test_device(int threads) { return test_device_of(0, threads); }

// The emulator's (tests/emu/emu.h), where it is.
int64_t emu_launches(const char *kernel) __attribute__((weak));
// Opening an emulated Hopper card takes seconds, since each of its kernels is checked. A test of some leaves out the
// others: "off:NAME,NAME".
static inline void test_hopper_without(const char *left_out) {
    if (emu_launches) setenv("GRPO_HOPPER", left_out, 1);
}
// Whether the device is an emulated GPU, which can be asked to be another card; else says that the test is skipped.
static inline bool test_emulated(const char *test) {
    if (emu_launches && test_on_cuda()) return true;
    printf("SKIP %s: another card than this needs the emulation of a GPU (MODE=emu)\n", test);
    return false;
}
// An emulated card of that generation ("90": Hopper), with one more variable of tests/emu/README.md set, or NULL.
static inline Device *test_card(const char *arch, const char *name, const char *value) {
    const char *now = getenv("EMU_ARCH");
    char *usual = now ? xstrdup(now) : NULL;
    setenv("EMU_ARCH", arch, 1);
    if (name) setenv(name, value, 1);
    Device *d = test_device(2);
    if (name) unsetenv(name);
    if (usual) setenv("EMU_ARCH", usual, 1);
    else unsetenv("EMU_ARCH");
    free(usual);
    return d;
}
// A Hopper card, whose two kinds of tensor cores give the same bits or not.
static inline Device *test_hopper_device(bool alike) { return test_card("90", alike ? NULL : "EMU_UNITS", "unlike"); }

// Copies of a tensor: of host memory in the device's (device_drop gives it back), and of the device's in host memory
// (free). NONE stays NONE.
static inline Tensor to_device(Device *d, Tensor host) {
    Tensor x = host;
    if (!present(host)) return x;
    x.data = d->alloc(d, tensor_bytes(x) + 1);
    if (!x.data) die("tests: no memory on the device");
    d->copy(d, x.data, host.data, tensor_bytes(x));
    return x;
}
static inline void device_drop(Device *d, Tensor x) {
    if (present(x)) d->free(d, x.data, tensor_bytes(x) + 1);
}
// The contents of a tensor of the device into host memory.
static inline void device_fetch(Device *d, void *host, Tensor x) {
    d->copy(d, host, x.data, tensor_bytes(x));
    d->sync(d);
    if (d->error[0]) die("tests: %s", d->error);
}
static inline Tensor to_host(Device *d, Tensor x) {
    Tensor host = x;
    host.data = xmalloc(tensor_bytes(x) + 1);
    device_fetch(d, host.data, x);
    return host;
}
// Whether two tensors of the device hold the same bits.
static inline bool device_same(Device *d, Tensor x, Tensor y) {
    Tensor a = to_host(d, x), b = to_host(d, y);
    bool same = tensor_bytes(x) == tensor_bytes(y) && !memcmp(a.data, b.data, tensor_bytes(x));
    free(a.data);
    free(b.data);
    return same;
}
