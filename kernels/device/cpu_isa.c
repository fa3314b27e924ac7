// Which CPU instruction sets this program was built with, this CPU has, and the operating system permits.
#include "cpu_ops.h"
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// lacks_X: why this machine cannot run instruction set X, or NULL where it can.
static const char *lacks_generic(void) { return NULL; }
static const char *const not_here = "this CPU does not have it";
#if defined(__x86_64__)
static const char *lacks_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? NULL : not_here;
}
static const char *lacks_avx512(void) {
    bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return has ? lacks_avx2() : not_here;
}
static const char *lacks_avx512_bf16(void) { return __builtin_cpu_supports("avx512bf16") ? lacks_avx512() : not_here; }

// AMX needs more than the CPU: its tile registers are 8 KiB for each thread, so the operating system must have enabled
// them (XCR0), and a process must ask for permission, once for all its threads and children (Linux,
// Documentation/arch/x86/xstate.rst).
static const char *lacks_amx(void) {
    enum { OSXSAVE = 1 << 27, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, XTILE = 3 << 17 };
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    uint32_t a, b, c, d, xcr0, high;
    if (lacks_avx512_bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_TILE) || !(d & AMX_BF16))
        return not_here;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return not_here;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    if ((xcr0 & XTILE) != XTILE) return "the operating system does not keep tile registers";
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA)) return "the kernel does not permit tile registers";
    return NULL;
}
#else
static const char *lacks_avx2(void) { return not_here; }
static const char *lacks_avx512(void) { return not_here; }
static const char *lacks_avx512_bf16(void) { return not_here; }
static const char *lacks_amx(void) { return not_here; }
#endif

// Why auto passes over an instruction set that is there, or NULL where it does not. Intel's cores since Sapphire Rapids
// (those with AVX512_FP16) take four times as long for VDPBF16PS as for a multiply-add of f32 that does half its work
// (measured on two Xeons: 0.5 and 2 a cycle), AMD's as long; so products of bf16 that is widened are up to 1.7 times as
// fast on the former. By what the CPU is and not by a measurement: a machine has to choose the same at every start.
static const char *slow_here(int isa) {
#if defined(__x86_64__)
    enum { AVX512_FP16 = 1 << 23 };
    uint32_t a, b, c, d;
    if (isa == CPU_ISA_avx512_bf16 && __builtin_cpu_is("intel") && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
        (d & AVX512_FP16))
        return "slower than avx512 on this CPU";
#endif
    return NULL;
}

// The tables of ops. Weak symbols: the address is NULL where the compiler does not know an instruction set, and for
// twins in C except in the tests that link them.
#define DECLARE(name, about)                                                                                           \
    extern const OpTable cpu_ops_##name __attribute__((weak)), cpu_ops_##name##_twin __attribute__((weak));
CPU_ISAS(DECLARE)

#define ROW(name, about) {#name, about, &cpu_ops_##name, &cpu_ops_##name##_twin, lacks_##name},
static const struct {
    const char *name, *about;
    const OpTable *ops, *twin;
    const char *(*lacks)(void);
} isas[CPU_ISA_END] = {{"auto", "", NULL, NULL, NULL}, CPU_ISAS(ROW)};

const char *cpu_isa_name(int isa) { return isas[isa].name; }
const char *cpu_isa_about(int isa) { return isas[isa].about; }

const char *cpu_isa_missing(int isa) {
    const char *why = isas[isa].lacks();
    return why || isas[isa].ops ? why : "the compiler of this build does not know it";
}

const char *cpu_isa_slow(int isa) { return cpu_isa_missing(isa) ? NULL : slow_here(isa); }

int cpu_isa_auto(void) {
    const char *name = getenv("GRPO_CPU_ISA");
    int isa = CPU_ISA_END - 1;
    if (name && *name && strcmp(name, isas[CPU_ISA_AUTO].name)) {
        while (isa > CPU_ISA_AUTO && strcmp(name, isas[isa].name) != 0) isa--;
    } else {
        while (cpu_isa_missing(isa) || slow_here(isa)) isa--; // ends at generic, which is never missing
    }
    return isa;
}

const OpTable *cpu_isa_ops(int isa) { return cpu_isa_missing(isa) ? isas[isa].twin : isas[isa].ops; }
