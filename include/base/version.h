// The version of this build, which the Makefile takes from git.
#pragma once

extern const char grpo_version[];
