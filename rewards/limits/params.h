// A reward's parameters in its table: where a value stands that is known by its name.
#pragma once
#include "reward.h"

// Which of the reward's texts its parameter i is.
int param_text_place(const RewardInfo *info, int i);
// The place of `text` among "a|b|c", or -1.
int param_choice_place(const char *choices, const char *text);
