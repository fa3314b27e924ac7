// The ops of one instruction set (cpu_isa.h), as the CPU device takes them.
#pragma once
#include "ops.h"

const char *cpu_isa_about(int isa);
const OpTable *cpu_isa_ops(int isa); // its twin in C where it is missing; NULL where there is none
