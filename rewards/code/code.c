// The rewards `code` and `binary_code`: run the model's program against the question's test cases in a sandbox.
#include "code.h"
#include <stdlib.h>

void *open_code(const Reward *r, Error *e) {
    CodeRunner *runner = xcalloc(1, sizeof *runner);
    runner->language = (CodeLanguage)(int)reward_number(r, "language");
    runner->timeout = reward_number(r, "timeout");
    runner->total = reward_number(r, "total_timeout");
    runner->memory = (int64_t)reward_number(r, "memory") << 20;
    if (code_runner_open(runner, e)) return runner;
    free(runner);
    return NULL;
}

void close_code(void *data) { free(data); }

static double run_sample(const Reward *r, const Sample *s, bool all) {
    const CodeRunner *runner = reward_data(r);
    CodeTask task;
    if (!code_task_read(s->answer, s->prompt, &task)) {
        reward_fault(r, REWARD_BAD_GOLD, 1);
        return REWARD_ABSTAINS;
    }
    Text program = code_block(sample_text(s), runner->language);
    int passed = program.s ? code_run(runner, program, &task, all) : 0, n = task.n;
    code_task_free(&task);
    if (passed < 0) {
        reward_fault(r, REWARD_NO_SANDBOX, 1);
        return REWARD_ABSTAINS;
    }
    return all ? passed == n : (double)passed / n;
}

static double code(const Reward *r, const Sample *s) { return run_sample(r, s, reward_chose(r, "credit", "all")); }
static double binary_code(const Reward *r, const Sample *s) { return run_sample(r, s, true); }

REWARD_EACH(reward_code, code)
REWARD_EACH(reward_binary_code, binary_code)
