// The version of this build, which the Makefile takes from git.
#include "version.h"

#ifndef GRPO_VERSION
#define GRPO_VERSION "unknown"
#endif

const char grpo_version[] = GRPO_VERSION;
