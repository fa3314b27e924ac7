// The instruction set that an object is written for: the Makefile names it (-DISA_NAME), and each has what the weaker ones
// have. What the compiler may use of it is another matter: with ISA_TWIN nothing at all, and C twins (twin.h) stand in, so
// that the code for an instruction set runs, and gives its bits, on any machine.
#pragma once
#if defined(ISA_amx)
#define ISA_avx512_bf16
#endif
#if defined(ISA_avx512_bf16)
#define ISA_avx512
#endif
#if defined(ISA_avx512)
#define ISA_avx2
#endif
