// The commands that have a file each in this room; those of host/train are declared in its headers.
#pragma once
#include "error.h"

// Each gets argc/argv after its own name and returns an exit code, having filled *e where it is not 0.
typedef ExitCode CommandRun(int argc, char **argv, Error *e);
CommandRun command_sample, command_tokenize, command_reward, command_plan, command_config, command_doctor,
    command_report, command_watch, command_merge;
