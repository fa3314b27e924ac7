// Which instruction set this object is compiled for. The Makefile names it (-DISA_NAME), and it includes the weaker
// ones. With -DISA_TWIN as well, the code takes the same paths but calls C twins (twin.h) in place of the instructions,
// so that the code of every instruction set runs, and gives its bits, on any machine.
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
