// The ops of the instruction set that this object is compiled for, under the one name that leaves the object.
#include "ops.h"

#define OP_ENTRY(name, args) .name = cpu_##name,
extern const OpTable CPU_TABLE;
const OpTable CPU_TABLE = {OPS(OP_ENTRY)};
