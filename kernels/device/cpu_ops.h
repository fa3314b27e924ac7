// How the CPU device finds the ops of an instruction set (cpu_isa.h).
#pragma once
#include "ops.h"

const char *cpu_isa_about(int isa);
const OpTable *cpu_isa_ops(int isa); // on a machine that lacks it: its twin in C, or NULL where none is linked
