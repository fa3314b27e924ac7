// The table of the ops compiled for one instruction set: the only name that is visible outside this object (see the
// Makefile).
#include "ops.h"

#define OP_ENTRY(name, args) .name = cpu_##name,
extern const OpTable CPU_TABLE;
const OpTable CPU_TABLE = {OPS(OP_ENTRY)};
