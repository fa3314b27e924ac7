// The instruction sets that the CPU's ops are compiled for, weakest first: the same text once for each, with the compiler's
// flags that the Makefile gives it, and all of them in one program. An op's last bits belong to its instruction set.
#pragma once
#include <stdbool.h>

#define CPU_ISAS(ISA)                                                                                                  \
    ISA(generic, "plain C")                                                                                            \
    ISA(avx2, "AVX2")                                                                                                  \
    ISA(avx512, "AVX-512")                                                                                             \
    ISA(avx512_bf16, "AVX-512 with bf16 dot products")                                                                 \
    ISA(amx, "AVX-512 and AMX tiles")

// As the option cpu_isa= counts them.
#define CPU_ISA_NUMBER(name, about) CPU_ISA_##name,
enum { CPU_ISA_AUTO, CPU_ISAS(CPU_ISA_NUMBER) CPU_ISA_END };

// The option's choices.
#define CPU_ISA_CHOICE(name, about) "|" #name
#define CPU_ISA_CHOICES             "auto" CPU_ISAS(CPU_ISA_CHOICE)

#ifdef __cplusplus
extern "C" {
#endif
// What auto stands for: the one that GRPO_CPU_ISA names, else the best there is; CPU_ISA_AUTO where GRPO_CPU_ISA is none.
int cpu_isa_auto(void);
const char *cpu_isa_name(int isa);
// Why this program cannot use it here; NULL: it can.
const char *cpu_isa_missing(int isa);
#ifdef __cplusplus
}
#endif
