// Pipelines: a file of phases, run one after the other.
#pragma once
#include "error.h"

ExitCode command_run(int argc, char **argv, Error *e); // the command `run`: as command_train
