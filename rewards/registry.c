// The registry of rewards: their names, functions, parameters and sources.
#include "accuracy.h"
#include "ask.h"
#include "code.h"
#include "judging.h"
#include "rules.h"

#define RECIPE "ModelScope's GSM8K recipe"

// "Score: 7", "**Score** = 7.5", and with the range that a template asks for: "Score (0-10): 7", "Score (out of 10):
// 7".
#define JUDGE_RANGE   "\\W{0,9}(?:out of|/|\\d+\\s*(?:-|–|to))\\s*\\d+\\s*(?:[)\\]]|\\W{0,3}?[:=])"
#define JUDGE_PATTERN "(?i)score(?:" JUDGE_RANGE ")?\\W{0,9}?(-?\\d+(?:\\.\\d+)?)"

// Each reward has a line. Its parameters, if any, are in PARAMS: REAL and WHOLE(name, default, min, max, help);
// CHOICE(name, names, help), whose default is the first name; TEXTUAL and URL(name, default, help). NEEDS(open, close,
// faults) is for a reward that must be opened before it can score.
#define ANSWER REWARD_READS_ANSWER
#define IDS    REWARD_READS_IDS
#define GROUP  REWARD_READS_GROUP
#define REWARD(NAME, SOURCE, FN, READS, HELP, ...)                                                                     \
    { .name = NAME, .source = SOURCE, .fn = FN, .reads = READS, .help = HELP, ##__VA_ARGS__ }
#define PARAMS(...)                .params = {__VA_ARGS__}, .n_params = sizeof((RewardParam[]){__VA_ARGS__}) / sizeof(RewardParam)
#define BATCHES                    .batches = true
#define BY_MODEL(KIND)             .by_model = MODEL_##KIND
#define PROGRAM(NAME)              .program = NAME
#define CHECKED(FN)                .check = FN
#define NEEDS(OPEN, CLOSE, FAULTS) .open = OPEN, .close = CLOSE, .faults = FAULTS
#define FAULT(NAME)                (1u << REWARD_##NAME)
#define REAL(NAME, VALUE, MIN, MAX, HELP)                                                                              \
    { .kind = PARAM_REAL, .name = NAME, .value = VALUE, .min = MIN, .max = MAX, .help = HELP }
#define WHOLE(NAME, VALUE, MIN, MAX, HELP)                                                                             \
    { .kind = PARAM_WHOLE, .name = NAME, .value = VALUE, .min = MIN, .max = MAX, .help = HELP }
// Numbers that say how scores are asked for.
#define HOW_REAL(NAME, VALUE, MIN, MAX, HELP)                                                                          \
    { .kind = PARAM_REAL, .name = NAME, .value = VALUE, .min = MIN, .max = MAX, .help = HELP, .how = true }
#define HOW_WHOLE(NAME, VALUE, MIN, MAX, HELP)                                                                         \
    { .kind = PARAM_WHOLE, .name = NAME, .value = VALUE, .min = MIN, .max = MAX, .help = HELP, .how = true }
#define TEXTUAL(NAME, VALUE, HELP)                                                                                     \
    { .kind = PARAM_TEXT, .name = NAME, .choices = VALUE, .help = HELP }
#define URL(NAME, VALUE, HELP)                                                                                         \
    { .kind = PARAM_URL, .name = NAME, .choices = VALUE, .help = HELP }
#define CHOICE(NAME, NAMES, HELP)                                                                                      \
    { .kind = PARAM_CHOICE, .name = NAME, .choices = NAMES, .help = HELP }

#define CODE_PARAMS                                                                                                    \
    CHOICE("language", "python|c|cpp", "of the program; c and cpp are compiled"),                                      \
        REAL("timeout", 5, 0.1, 3600, "seconds for a test case"),                                                      \
        REAL("total_timeout", 60, 0.1, 86400, "seconds for all test cases of a program"),                              \
        WHOLE("memory", 512, 64, 1048576, "MiB of address space")

// The parameters that all judges have, however they are asked.
#define JUDGE_PARAMS                                                                                                   \
    TEXTUAL("template",                                                                                                \
            "Rate from 0 to 10 how well the response answers the question.\n\nQuestion:\n{prompt}\n\n"                 \
            "Response:\n{summary}\n\nEnd with one line: Score: N",                                                     \
            "the prompt, with {prompt}, {completion}, {summary} (behind the thoughts), {answer}; or @FILE"),           \
        TEXTUAL("template_file", "", "file with the template"),                                                        \
        TEXTUAL("pattern", JUDGE_PATTERN, "the last match's group is the score"),                                      \
        REAL("min_score", 0, -1e9, 1e9, "gives 0"), REAL("max_score", 10, -1e9, 1e9, "gives 1"),                       \
        WHOLE("max_tokens", 1024, 1, 1048576, "of a reply"), REAL("temperature", 0, 0, 100, "of replies; 0: greedy"),  \
        WHOLE("seed", 0, 0, 9007199254740991, "of replies that are not greedy"),                                       \
        HOW_WHOLE("max_unmatched", 0, 0, 1e9,                                                                          \
                  "completions in a row whose reply has no score, or does not come, that end the run; 0: it goes on")

const RewardInfo reward_registry[] = {
    REWARD("xmlcount", RECIPE, reward_xmlcount, 0,
           "0.125 for each of four tags on lines of their own, less 0.001 a character after the answer"),
    REWARD("soft_format", RECIPE, reward_soft_format, 0, "0.5 for `<think>` then `<answer>`, bodies of one line"),
    REWARD("strict_format", RECIPE, reward_strict_format, 0,
           "0.5 for the four tags on lines of their own, bodies of one line"),
    REWARD("int", RECIPE, reward_int, 0, "0.5 where the extracted answer is digits only"),
    REWARD("correctness", RECIPE, reward_correctness, ANSWER, "2 where the extracted answer equals gold as a string"),
    REWARD("completion_length", RECIPE, reward_completion_length, 0, "characters / 100"),
    REWARD("think_answer_format", RECIPE, reward_think_answer_format, 0, "soft_format by its other name"),

    REWARD(
        "accuracy", "Open R1, Math-Verify", reward_accuracy, ANSWER,
        "1 where the answer means the same as gold, else 0; abstains where gold cannot be read",
        PARAMS(CHOICE("extract", "anchored|any|latex|numbers", "anchored: LaTeX in a box or behind \"answer\"; or any"),
               CHOICE("gold", "text|latex", "text: found as in a completion; latex: the whole field is one formula"),
               CHOICE("unreadable_gold", "abstain|one", "what gold that cannot be read gives"),
               WHOLE("precision", 6, 0, 12, "decimals that floats are compared to"),
               CHOICE("variables", "strict|free", "free: a sole variable may have another name"),
               CHOICE("relations", "strict|sets", "sets: 1 < x < 2 is right where gold is the interval"))),
    REWARD("reasoning_accuracy", "TRL", reward_reasoning_accuracy, ANSWER,
           "accuracy of what follows the last delimiter; 0 where there is none",
           PARAMS(TEXTUAL("delimiter", "", "what ends the reasoning; empty: the second of think_markers"))),
    REWARD("length", "Open R1 (Kimi k1.5)", reward_length, ANSWER | GROUP,
           "0.5 to -0.5 from the group's shortest to its longest completion, wrong answers at most 0"),
    REWARD("cosine", "Open R1, TRL", reward_cosine, ANSWER,
           "falls (right answers) or rises (wrong ones) along a cosine with the length",
           PARAMS(REAL("min_value_wrong", -1, -1e9, 1e9, "of a short wrong answer"),
                  REAL("max_value_wrong", -0.5, -1e9, 1e9, "of a long wrong answer"),
                  REAL("min_value_correct", 0.5, -1e9, 1e9, "of a long right answer"),
                  REAL("max_value_correct", 1, -1e9, 1e9, "of a short right answer"),
                  WHOLE("max_len", 1000, 1, 1e9, "length at which the cosine ends"),
                  CHOICE("clamp", "no|yes", "no: beyond max_len it turns back; yes: it stays"),
                  CHOICE("unit", "characters|tokens", "what the length counts"))),
    REWARD(
        "format", "Open R1", reward_format, 0,
        "1 for `<think>` ... `</think>` then `<answer>` ... `</answer>` at the end of a line",
        PARAMS(CHOICE("form", "new|old|summary",
                      "new: tags on lines of their own; old: tags anywhere in a line; summary: no answer tags, but a "
                      "text behind the thoughts"))),
    REWARD("tag_count", "Open R1", reward_tag_count, 0, "0.25 for each of the four tags that occurs once"),
    REWARD("reasoning_steps", "Open R1", reward_reasoning_steps, 0,
           "a third for each sign of a step (Step 1:, 1., -, *, First, ...), at most 1"),
    REWARD("code_format", "Open R1", reward_code_format, 0, "1 for format with a fenced block of code in the answer",
           PARAMS(TEXTUAL("language", "python", "of the block"))),
    REWARD("code", "Open R1", reward_code, ANSWER,
           "test cases that the last block of code passes / test cases; it runs in a sandbox",
           PARAMS(CODE_PARAMS, CHOICE("credit", "share|all", "share: passed / cases; all: 1 where all pass, else 0")),
           NEEDS(open_code, close_code, FAULT(BAD_GOLD) | FAULT(NO_SANDBOX))),
    REWARD("binary_code", "Open R1", reward_binary_code, ANSWER,
           "1 where the last block of code passes every test case", PARAMS(CODE_PARAMS),
           NEEDS(open_code, close_code, FAULT(BAD_GOLD) | FAULT(NO_SANDBOX))),
    REWARD("think_format", "TRL", reward_think_format, 0, "1 for one `<think>` at the start, closed later"),
    REWARD("language_consistency", "DeepSeek-R1", reward_language, 0,
           "share of the words of the chain of thought that are in the target language",
           PARAMS(CHOICE("language", "en|zh|ja|ko|ru|ar|fr|de|es", "the target"),
                  CHOICE("part", "think|all", "think: what stands between the tags, where they are; all: everything")),
           NEEDS(open_language, close_language, FAULT(REGEX_LIMIT))),
    REWARD("regex", "a user's pattern", reward_regex, ANSWER, "1 where the pattern matches, else 0",
           PARAMS(TEXTUAL("pattern", "", "PCRE2, with Unicode classes; `\\,` stands for a comma"),
                  CHOICE("want", "found|whole|gold",
                         "found: anywhere; whole: the first match is the whole text; gold: the first match's first "
                         "group equals the answer")),
           NEEDS(open_regex, close_regex, FAULT(REGEX_LIMIT))),
    REWARD("repetition_penalty", "Open R1, TRL", reward_repetition_penalty, 0,
           "share of n-grams seen before x max_penalty",
           PARAMS(WHOLE("ngram_size", 3, 1, 1000, "words of an n-gram"),
                  REAL("max_penalty", -1, -1e9, 0, "score of a text that only repeats"),
                  CHOICE("language", "en|zh|ids",
                         "en: words between white space; zh: Han characters two by two; ids: tokens"))),
    REWARD("soft_overlong", "Open R1, TRL", reward_soft_overlong, IDS,
           "0 up to max_completion_len - soft_punish_cache tokens, then down to -1",
           PARAMS(WHOLE("max_completion_len", 16384, 1, 1e9, "tokens that give -1"),
                  WHOLE("soft_punish_cache", 4096, 0, 1e9, "tokens before it where the punishment begins"))),
    REWARD("gsm8k_strict", "verl", reward_gsm8k_strict, ANSWER,
           "1 where the last number after `#### ` in the last 300 characters equals gold, commas left out; a full stop "
           "after the number makes it wrong"),
    REWARD(
        "gsm8k_flexible", "verl", reward_gsm8k_flexible, ANSWER,
        "1 where the last number in the last 300 characters equals gold; commas in the number or a full stop after it "
        "make it wrong"),

    REWARD("external", "a user's program", reward_external, ANSWER,
           "what a program answers: lines of JSON over its standard input and output (rewards/README.md)",
           PARAMS(TEXTUAL("command", "", "program and arguments, cut at white space; no shell"),
                  HOW_WHOLE("workers", 1, 1, 256, "copies of it that run side by side"),
                  WHOLE("batch", 64, 1, 4096, "most completions of a request, which are answers to one prompt"),
                  HOW_REAL("timeout", 30, 0.01, 86400, "seconds for a request"),
                  HOW_REAL("start_timeout", 120, 0.01, 86400, "seconds from its start to its first answer")),
           NEEDS(open_external, close_external, FAULT(TIMEOUT) | FAULT(CRASH) | FAULT(FLOOD) | FAULT(BAD_REPLY)),
           PROGRAM("command"), BATCHES),
    REWARD("plugin", "a user's library", reward_plugin_score, ANSWER,
           "what a shared object computes (include/reward_plugin.h)",
           PARAMS(TEXTUAL("path", "", "the shared object"), TEXTUAL("argument", "", "a text for it")),
           NEEDS(open_plugin, close_plugin, FAULT(BAD_REPLY)), PROGRAM("path")),
    REWARD("judge", "a model (DeepSeek-R1)", reward_judge, ANSWER,
           "0 to 1, as a model behind an OpenAI-compatible endpoint judges; a key is read from GRPO_JUDGE_KEY, "
           "user:password from "
           "GRPO_JUDGE_USER",
           PARAMS(URL("url", "http://localhost:8000/v1", "of the server, up to /chat/completions"),
                  TEXTUAL("model", "default", "its name for the model"), JUDGE_PARAMS,
                  HOW_WHOLE("workers", 8, 1, 64, "processes that ask, started as they are needed"),
                  HOW_WHOLE("parallel", 8, 1, 256, "requests of each under way at a time"),
                  HOW_REAL("timeout", 60, 0.01, 3600, "seconds for a request"),
                  HOW_WHOLE("retries", 3, 0, 20, "of a request that failed and may pass")),
           NEEDS(open_judge, close_judge,
                 FAULT(REGEX_LIMIT) | FAULT(TIMEOUT) | FAULT(CRASH) | FAULT(FLOOD) | FAULT(BAD_REPLY)),
           CHECKED(judging_check), BATCHES),
    REWARD(
        "judge_model", "a model (DeepSeek-R1)", NULL, ANSWER,
        "0 to 1, as a model on this machine judges; without `model` that is the one the run begins with, which stays "
        "as it was",
        PARAMS(TEXTUAL("model", "", "its directory; none: the run's own"), JUDGE_PARAMS,
               TEXTUAL("chat_template", "auto", "auto: the model's own, or one by its name; raw: the prompt alone"),
               WHOLE("max_prompt", 2048, 1, 1048576, "tokens of a prompt; a longer one abstains"),
               HOW_WHOLE("parallel", 16, 1, 4096, "replies under way at a time")),
        NEEDS(open_judge_model, close_judge_model, FAULT(REGEX_LIMIT) | FAULT(BAD_REPLY) | FAULT(TOO_LONG)),
        CHECKED(judging_check), BY_MODEL(WRITES)),
    REWARD("reward_model", "a reward model (DeepSeek-R1)", NULL, 0,
           "the score of a ForSequenceClassification model of one label, which reads question and answer as a "
           "conversation",
           PARAMS(TEXTUAL("model", "", "its directory, or that of a LoRA adapter with its score head"),
                  CHOICE("part", "summary|completion", "summary: what follows the thoughts; completion: all of it"),
                  REAL("scale", 1, -1e9, 1e9, "the score is multiplied by it"),
                  TEXTUAL("chat_template", "auto",
                          "auto: the model's own, or one by its name; raw: question and text one after the other, then "
                          "the token that ends a text"),
                  WHOLE("batch_tokens", 8192, 16, 1048576,
                        "tokens of one forward pass; a longer question and answer abstain")),
           .faults = FAULT(TOO_LONG), BY_MODEL(SCORES)),
};
const int reward_count = sizeof reward_registry / sizeof *reward_registry;
