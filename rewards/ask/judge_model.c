// The reward `judge_model`: what a model on the engine's device is asked, and what its reply is worth. The engine asks
// it (host/learn/reply_model.c).
#include "ask.h"
#include "judging.h"

void *open_judge_model(const Reward *r, Error *e) { return judging_open(r, e); }
void close_judge_model(void *data) { judging_close(data); }
