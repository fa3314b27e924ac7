// The version of this build, asked of git by the Makefile.
#include "version.h"

#ifndef GRPO_VERSION
#define GRPO_VERSION "unknown"
#endif

const char grpo_version[] = GRPO_VERSION;
