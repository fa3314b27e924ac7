// Fuzzes the JSON-lines protocol of scorers, test cases in answer fields, blocks of code, and reward selections.
#include "code.h"
#include "fuzz.h"
#include "ask.h"
#include "worker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char *text = xstrndup((const char *)data, n);
    json_t *answer = worker_answer(text, n, 7);
    float score[3] = {0};
    for (int k = 0; k <= 3; k++)
        if (external_scores(answer, k, score))
            for (int i = 0; i < k; i++)
                if (isinf(score[i])) abort();
    json_decref(answer);
    CodeTask task;
    if (code_task_read(text, "def f(x):\n", &task)) {
        if (task.n < 1) abort();
        code_task_free(&task);
    }
    for (int language = LANGUAGE_PYTHON; language <= LANGUAGE_CPP; language++) {
        Text block = code_block((Text){text, n}, (CodeLanguage)language);
        if (block.s && (block.s < text || block.s + block.n > text + n)) abort();
    }
    Reward r;
    Error e = {0};
    if (!reward_parse(text, &r, &e)) fuzz_check_error(&e);
    free(text);
    return 0;
}
