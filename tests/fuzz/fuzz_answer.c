// The answer parser: the first line is gold, the rest a completion, through every reward that reads answers as text.
#include "fuzz.h"
#include "reward.h"
#include <math.h>

static const char *const specs[] = {"accuracy",
                                    "accuracy:extract=any",
                                    "accuracy:gold=latex,extract=latex,variables=free,relations=sets",
                                    "accuracy:extract=numbers",
                                    "gsm8k_strict",
                                    "gsm8k_flexible",
                                    "correctness",
                                    "int",
                                    "xmlcount",
                                    "soft_format",
                                    "strict_format",
                                    "format",
                                    "format:form=old",
                                    "reasoning_steps",
                                    "code_format",
                                    "repetition_penalty:language=zh",
                                    "cosine",
                                    "length",
                                    "language_consistency:language=zh",
                                    "language_consistency:language=de"};
#define SPECS (sizeof specs / sizeof *specs)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static Reward reward[SPECS];
    for (size_t k = 0; k < SPECS && !reward[k].state; k++)
        if (!reward_parse(specs[k], &reward[k], NULL) || !reward_open(&reward[k], NULL)) abort();
    const uint8_t *newline = n ? memchr(data, '\n', n) : NULL;
    size_t cut = newline ? (size_t)(newline - data) : 0;
    char *gold = xstrndup((const char *)data, cut), *text = xstrndup((const char *)data + cut, n - cut);
    Sample s = {.prompt = "", .completion = text, .completion_len = n - cut, .answer = gold};
    for (size_t k = 0; k < SPECS; k++) {
        float once, twice;
        reward[k].info->fn(&reward[k], &s, 1, &once);
        reward[k].info->fn(&reward[k], &s, 1, &twice);
        if (isinf(once) || memcmp(&once, &twice, sizeof once) != 0) abort();
    }
    free(gold);
    free(text);
    return 0;
}
