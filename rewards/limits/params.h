// The places of a reward's parameters: of a text among its texts, of a choice among the choices.
#pragma once
#include "reward.h"

// Which of the reward's texts its parameter i is.
int param_text_place(const RewardInfo *info, int i);
// The place of `text` among "a|b|c", or -1.
int param_choice_place(const char *choices, const char *text);
