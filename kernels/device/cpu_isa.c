// Which instruction sets this program holds, this CPU has, and the kernel permits.
#include "cpu_ops.h"
#include <stdlib.h>
#include <string.h>

static bool has_generic(void) { return true; }
#if defined(__x86_64__)
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static bool has_avx512_bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#else
static bool has_avx2(void) { return false; }
static bool has_avx512(void) { return false; }
static bool has_avx512_bf16(void) { return false; }
#endif

// Weak: what the compiler cannot make is NULL.
#define DECLARE(name, about) extern const OpTable cpu_ops_##name __attribute__((weak));
CPU_ISAS(DECLARE)

#define ROW(name, about) {#name, about, &cpu_ops_##name, has_##name},
static const struct {
    const char *name, *about;
    const OpTable *ops;
    bool (*has)(void);
} isas[CPU_ISA_END] = {{"auto", "", NULL, NULL}, CPU_ISAS(ROW)};

const char *cpu_isa_name(int isa) { return isas[isa].name; }
const char *cpu_isa_about(int isa) { return isas[isa].about; }

const char *cpu_isa_missing(int isa) {
    if (!isas[isa].has()) return "this CPU does not have it";
    return isas[isa].ops ? NULL : "the compiler of this build does not know it";
}

int cpu_isa_auto(void) {
    const char *name = getenv("GRPO_CPU_ISA");
    int isa = CPU_ISA_END - 1;
    if (name && *name) {
        while (isa > CPU_ISA_AUTO && strcmp(name, isas[isa].name) != 0) isa--;
    } else {
        while (cpu_isa_missing(isa)) isa--; // generic ends it
    }
    return isa;
}

const OpTable *cpu_isa_ops(int isa) { return cpu_isa_missing(isa) ? NULL : isas[isa].ops; }
