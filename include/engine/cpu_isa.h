// The CPU instruction sets that ops are compiled for, weakest first. The same source is compiled once for each, with
// flags from the Makefile, and all are in one program. The last bits of an op's results depend on its instruction set.
#pragma once
#include <stdbool.h>

#define CPU_ISAS(ISA)                                                                                                  \
    ISA(generic, "plain C")                                                                                            \
    ISA(avx2, "AVX2")                                                                                                  \
    ISA(avx512, "AVX-512")                                                                                             \
    ISA(avx512_bf16, "AVX-512 with bf16 dot products")                                                                 \
    ISA(amx, "AVX-512 and AMX tiles")

// Their numbers, as the option cpu_isa= has them.
#define CPU_ISA_NUMBER(name, about) CPU_ISA_##name,
enum { CPU_ISA_AUTO, CPU_ISAS(CPU_ISA_NUMBER) CPU_ISA_END };

// The option's choices as a text, "auto|generic|...".
#define CPU_ISA_CHOICE(name, about) "|" #name
#define CPU_ISA_CHOICES             "auto" CPU_ISAS(CPU_ISA_CHOICE)

#ifdef __cplusplus
extern "C" {
#endif
// What auto stands for: the one that GRPO_CPU_ISA names, else the fastest this machine has; CPU_ISA_AUTO where
// GRPO_CPU_ISA is not the name of one.
int cpu_isa_auto(void);
const char *cpu_isa_name(int isa);
// Why this program cannot use an instruction set here; NULL where it can.
const char *cpu_isa_missing(int isa);
// Why auto passes over an instruction set that this program can use here; NULL where it does not.
const char *cpu_isa_slow(int isa);
#ifdef __cplusplus
}
#endif
