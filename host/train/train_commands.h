// The commands of this room: their arguments after the name; an exit code, *e filled where it is not 0.
#pragma once
#include "error.h"

ExitCode command_train(int argc, char **argv, Error *e);
ExitCode command_sft(int argc, char **argv, Error *e);
ExitCode command_reward_model(int argc, char **argv, Error *e);
ExitCode command_eval(int argc, char **argv, Error *e);
ExitCode command_select(int argc, char **argv, Error *e);
ExitCode command_run(int argc, char **argv, Error *e);
