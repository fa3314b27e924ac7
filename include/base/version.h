// The version of this build, asked of git by the Makefile.
#pragma once

extern const char grpo_version[];
