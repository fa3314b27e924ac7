// The ops of one instruction set (cpu_isa.h), as the CPU device takes them.
#pragma once
#include "ops.h"

const char *cpu_isa_about(int isa);
// The ops of an instruction set. Where it is missing: NULL, or in a test program those whose instructions are C twins of the
// real ones, to the bit, and *emulated is set.
const OpTable *cpu_isa_ops(int isa, bool *emulated);
