// Code rewards: the forms of test cases, and verdicts; test_code_sandbox.c has what the sandbox must hold.
#include "clock.h"
#include "code_fixture.h"
#include "str.h"

static void outputs(void **state) {
    Reward r = need("outputs", "code");
    static const char gold[] =
        "{\"language\": \"python\", \"test_cases\": ["
        "{\"type\": \"stdin_stdout\", \"fn_name\": null, \"input\": \"3 4\\n\", \"output\": \"7\\n\"},"
        "{\"input\": \"-1 1\", \"output\": \"0\"}]}";
    assert_near(run_python(&r, "a, b = map(int, input().split())\nprint(a + b)", gold), 1, 0);
    assert_near(run_python(&r, "print(7)", gold), 0.5, 0);
    assert_near(run_python(&r, "print(8)", gold), 0, 0);
    assert_near(run_python(&r, "print(' 7  \\n')", gold), 0.5, 0); // stripped
    assert_near(run_python(&r, "print(7)\nprint(7)", gold), 0, 0); // as many lines
    assert_near(run_python(&r, "pass", gold), 0, 0);
    assert_near(run_python(&r, "print(7)\nraise ValueError", gold), 0, 0);
    assert_near(run_python(&r, "print(7)\nimport sys; sys.exit(3)", gold), 0, 0);
    assert_near(run_python(&r, "print(7", gold), 0, 0);
    assert_near(run_python(&r, "import os\nos.kill(os.getpid(), 9)", gold), 0, 0);
    static const char lines[] = "{\"inputs\": [\"\"], \"outputs\": [\"a \\n b\\n\\nc\\n\"]}";
    assert_near(run_python(&r, "print('a\\nb \\n\\n c')", lines), 1, 0);
    assert_near(run_python(&r, "print('a\\nb\\nc')", lines), 0, 0);
    assert_near(run_python(&r, "print('é', end='')", "{\"inputs\": [\"\"], \"outputs\": [\"é\"]}"), 1, 0);
    assert_near(run_python(&r, "import sys\nprint(len(sys.stdin.read()), sys.argv[1:], __name__)",
                           "{\"inputs\": [\"äöü\\n\"], \"outputs\": [\"4 [] __main__\"]}"),
                1, 0);
    reward_close(&r);
    r = need("outputs", "code:credit=all");
    assert_near(run_python(&r, "print(7)", gold), 0, 0);
    reward_close(&r);
    r = need("outputs", "binary_code");
    assert_near(run_python(&r, "print(7)", gold), 0, 0);
    assert_near(run_python(&r, "a, b = map(int, input().split())\nprint(a + b)", gold), 1, 0);
    reward_close(&r);
}

static void calls(void **state) {
    Reward r = need("calls", "code");
    static const char gold[] =
        "{\"fn_name\": \"f\", \"inputs\": [[1, [2, 3]], \"1\\n[2, 3]\\n\"], \"outputs\": [[3, 4], "
        "\"[3, 4]\"]}";
    assert_near(run_python(&r, "def f(a, b):\n    return [a + x for x in b]", gold), 1, 0);
    assert_near(run_python(&r, "def f(a, b):\n    return tuple(a + x for x in b)", gold), 1, 0);
    assert_near(
        run_python(&r, "class Solution:\n    def f(self, a, b):\n        print('hi')\n        return [3.0000000001, 4]",
                   gold),
        1, 0);
    assert_near(run_python(&r, "def f(a, b):\n    return [3, 5]", gold), 0, 0);
    assert_near(run_python(&r, "def f(a, b):\n    return '[3, 4]'", gold), 0, 0);
    assert_near(run_python(&r, "def g(a, b):\n    return [3, 4]", gold), 0, 0);
    assert_near(run_python(&r, "def f(a, b):\n    return object()", gold), 0, 0);
    static const char typed[] =
        "{\"test_cases\": [{\"type\": \"function_call\", \"fn_name\": \"f\", \"input\": [], \"output\": "
        "%s}]}";
    static const struct {
        const char *output, *code;
        float score;
    } values[] = {
        {"{\"a\": 1}", "{'a': 1}", 1},
        {"{\"a\": 1}", "{'a': 1, 'b': 2}", 0},
        {"true", "True", 1},
        {"true", "1", 0},
        {"1", "True", 0},
        {"null", "None", 1},
        {"1", "1.0", 1},
        {"\"x\"", "'x'", 1},
        {"[1]", "1", 1},
        {"1", "[1]", 0},
        {"[]", "None", 0},
        {"0.1", "0.1 + 1e-12", 1},
        // A text is a text, though it may look like another value.
        {"\"21\"", "'12'[::-1]", 1},
        {"\"21\"", "21", 0},
        {"21", "'21'", 0},
        {"\"1e-07\"", "'1e-07'", 1},
        {"\"1e-07\"", "1e-07", 0},
        {"1e-07", "1e-07", 1},
        {"\"true\"", "'true'", 1},
        {"\"true\"", "True", 0},
        {"\"null\"", "'null'", 1},
        {"\"null\"", "None", 0},
        {"\"\"", "''", 1},
        {"\"\"", "None", 0},
        {"\"[1, 2]\"", "'[1, 2]'", 1},
        {"\"[1, 2]\"", "[1, 2]", 0},
        {"[\"21\"]", "'21'", 1},
        {"[\"21\"]", "['21']", 1},
        {"[[1, [2, \"3\"]], null]", "((1, (2, '3')), None)", 1},
        {"[[1, [2, \"3\"]], null]", "((1, (2, 3)), None)", 0},
        {"[1, 2]", "{1, 2}", 0},
        {"[]", "()", 1},
        // Integers of any size, to the last digit.
        {"18446744073709551616", "2 ** 64", 1},
        {"18446744073709551616", "2 ** 64 + 1", 0},
        {"-9223372036854775809", "-2 ** 63 - 1", 1},
        {"9223372036854775807", "2 ** 63 - 1", 1},
        {"9223372036854775808", "2 ** 63 - 1", 0},
        {"[[100000000000000000000000, \"100000000000000000000000\"]]", "[10 ** 23, str(10 ** 23)]", 1},
        {"[100000000000000000000000]", "str(10 ** 23)", 0},
        {"\"100000000000000000000000\"", "10 ** 23", 0},
        {"1e23", "10 ** 23", 1},
        {"100000000000000000000000", "1e23", 1},
        {"\"a\\\\u0000\"", "'a' + chr(92) + 'u0000'", 1},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char *answer = xasprintf(typed, values[i].output), *code = xasprintf("def f():\n    return %s", values[i].code);
        float score = run_python(&r, code, answer);
        if (score != values[i].score) fail_msg("%s for %s: %g", values[i].code, values[i].output, (double)score);
        free(answer);
        free(code);
    }
    static const char wide[] =
        "{\"fn_name\": \"f\", \"inputs\": [[36893488147419103232, {\"a\": [-36893488147419103232, \"x\"]}], "
        "\"36893488147419103232\\n{\\\"a\\\": [1]}\"], \"outputs\": [18446744073709551616, \"18446744073709551616\"]}";
    assert_near(run_python(&r, "def f(a, b):\n    return a // 2 if b['a'][0] in (-a, 1) else 0", wide), 1, 0);
    assert_near(run_python(&r, "def f(a, b):\n    return float(a) / 2", wide), 1, 0);
    assert_near(run_python(&r, "def f(a, b):\n    return a // 2 + 1", wide), 0, 0);
    Str digits = {0};
    for (int i = 0; i < 5000; i++) str_puts(&digits, "7");
    char *long_one = xasprintf(typed, digits.s);
    assert_near(run_python(&r, "def f():\n    return (10 ** 5000 - 1) // 9 * 7", long_one), 1, 0);
    assert_near(run_python(&r, "def f():\n    return (10 ** 5000 - 1) // 9 * 7 + 1", long_one), 0, 0);
    free(long_one);
    str_free(&digits);
    reward_close(&r);
}

static void assertions(void **state) {
    Reward r = need("assertions", "code");
    static const char list[] =
        "[\"assert f(1) == 2\", \"assert f(2) == 3\", \"assert f(3) == 4\", \"assert f(4) == 5\"]";
    assert_near(run_python(&r, "def f(x):\n    return x + 1", list), 1, 0);
    assert_near(run_python(&r, "def f(x):\n    return 3 if x == 2 else 5", list), 0.5, 0);
    assert_near(run_python(&r, "def f(x):\n    while x != 4: pass\n    return 5",
                           "[\"assert f(4) == 5\", \"assert f(4) == 5\"]"),
                1, 0);
    static const char mbpp[] = "{\"test_setup_code\": \"y = 10\", \"test_imports\": [\"import math\"], \"test_list\": "
                               "[\"assert f(math.floor(1.5)) == y\"]}";
    assert_near(run_python(&r, "def f(x):\n    return 10 * x", mbpp), 1, 0);
    assert_near(run_python(&r, "def f(x):\n    return x", mbpp), 0, 0);
    static const char leetcode[] =
        "{\"entry_point\": \"Solution().twice\", \"prompt\": \"from typing import *\\n\", \"test\": "
        "\"def check(candidate):\\n    assert candidate(x=[2]) == [4]\\n\"}";
    assert_near(run_python(&r, "class Solution:\n    def twice(self, x: List[int]):\n        return [2 * v for v in x]",
                           leetcode),
                1, 0);
    assert_near(run_python(&r, "class Solution:\n    def twice(self, x: List[int]):\n        return x", leetcode), 0,
                0);
    // The test's code stands for itself.
    assert_near(run_python(&r, "def f(x):\n    return 7", "assert f(0) == 7"), 1, 0);
    assert_near(run_python(&r, "def f(x):\n    return 7", "f(0) == 8 or 1 / 0"), 0, 0);
    // What runs as a script does not run here.
    assert_near(run_python(&r, "def f(x):\n    return 7\nif __name__ == '__main__':\n    f = None", "assert f(0) == 7"),
                1, 0);
    assert_near(
        run_python(&r,
                   "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x):\n    return P(x).x",
                   "assert f(7) == 7"),
        1, 0);
    reward_close(&r);
}

static void blocks(void **state) {
    Reward r = need("blocks", "code");
    static const char gold[] = "{\"inputs\": [\"\"], \"outputs\": [\"2\"]}";
    assert_near(score_by(&r, "```python\nprint(1)\n```\n```python\nprint(2)\n```", gold), 1, 0); // the last
    assert_near(score_by(&r, "```python\nprint(2)\n```\n```python\nprint(1)\n```", gold), 0, 0);
    assert_near(score_by(&r, "```python\nprint(2)\n```\n```c\nprint(1)\n```\n```\nprint(1)\n```", gold), 1, 0);
    assert_near(score_by(&r, "```py\nprint(2)\n```", gold), 1, 0);
    // A fence with the language's name opens a block, whatever was left open before it.
    assert_near(score_by(&r, "```\nfirst a plan\n```python\nprint(2)\n```", gold), 1, 0);
    assert_near(score_by(&r, "```text\na\n```json\n{}\n```\n```python\nprint(2)\n```", gold), 1, 0);
    assert_near(score_by(&r, "```python\nprint(1\n\nbetter:\n```python\nprint(2)\n```", gold), 1, 0);
    assert_near(score_by(&r, "```python\nprint(2)\n```\n```python\nprint(1", gold), 1, 0);
    assert_near(score_by(&r, "```\nprint(2)\n```", gold), 0, 0);
    assert_near(score_by(&r, "print(2)", gold), 0, 0);
    assert_near(score_by(&r, "```python\nprint(2)", gold), 0, 0);
    assert_near(score_by(&r, "", gold), 0, 0);
    assert_near(score_by(&r, "```python\n\n```", gold), 0, 0);
    // Gold that is no test abstains and is counted.
    static const char *const bad[] = {"",
                                      "  ",
                                      "{}",
                                      "[]",
                                      "[1]",
                                      "{\"test_cases\": []}",
                                      "{\"test_cases\": [{\"input\": 1, \"output\": \"x\"}]}",
                                      "{\"inputs\": [\"a\"], \"outputs\": []}",
                                      "{\"fn_name\": \"f\", \"inputs\": [\"{\"], \"outputs\": [1]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        float score = score_by(&r, "```python\nprint(2)\n```", bad[i]);
        if (!isnan(score)) fail_msg("gold %s gives %g", bad[i], (double)score);
        assert_int_equal(reward_faults(&r, REWARD_BAD_GOLD), i + 1);
    }
    reward_close(&r);
}

static void compiled(void **state) {
    static const char sum[] = "{\"inputs\": [\"3 4\", \"1 1\"], \"outputs\": [\"7\", \"2\"]}";
    Reward r = need("compiled", "code:language=c");
    static const char add[] =
        "#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }";
    assert_near(run_code(&r, "c", add, sum), 1, 0);
    assert_near(run_code(&r, "cpp", add, sum), 0, 0); // another language's block
    assert_near(run_code(&r, "c", "int main(void) { return puts(\"7\") < 0; }", sum), 0.5, 0);
    assert_near(run_code(&r, "c", "int main(void) { return 1 }", sum), 0, 0);
    assert_near(run_code(&r, "c", "#include \"/etc/passwd\"\nint main(void) { }", sum), 0, 0);
    assert_near(run_code(&r, "c", "int main(void) { return *(volatile int *)0; }", sum), 0, 0);
    static const char test[] = "int main(void) { assert(f(1) == 2); assert(f(2) == 3); }";
    assert_near(run_code(&r, "c", "int f(int x) { return x + 1; }", test), 1, 0);
    assert_near(run_code(&r, "c", "int f(int x) { return 2; }", test), 0, 0);
    assert_near(run_code(&r, "c", "int f(int x) { return x + 1; }\nint main(void) { return 3; }", test), 1, 0);
    assert_near(run_code(&r, "c", "#define NDEBUG\nint f(int x) { return 2; }", test), 0, 0);
    assert_near(run_code(&r, "c", "#include <stdlib.h>\nint f(int x) { exit(0); }", test), 0, 0);
    assert_near(run_code(&r, "c", "#include <unistd.h>\nint f(int x) { _exit(0); }", test), 0, 0);
    assert_near(run_code(&r, "c", "int f(int x) { return x + 1; }", "int main(void) { return f(1) != 3; }"), 0, 0);
    reward_close(&r);
    r = need("compiled", "code:language=cpp");
    static const char cpp[] =
        "#include <bits/stdc++.h>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }";
    assert_near(run_code(&r, "cpp", cpp, sum), 1, 0);
    assert_near(run_code(&r, "c++", "#include <vector>\nstd::vector<int> f(int x) { return {x}; }",
                         "int main() { assert(f(1)[0] == 1); }"),
                1, 0);
    reward_close(&r);
}

static void time_limits(void **state) {
    Reward r = need("time_limits", "code:timeout=2,total_timeout=5");
    static const char gold[] = "{\"inputs\": [\"1\", \"2\"], \"outputs\": [\"1\", \"2\"]}";
    static const char *const hang[] = {
        "import time\ntime.sleep(1000)",
        "while True: pass",
        "import signal, time\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except Exception: "
        "pass\n"
        "while True: time.sleep(1)",
        "import os\nos.close(1)\nos.close(2)\nwhile True: pass",
        "import threading\nfor i in range(8): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    };
    for (size_t i = 0; i < sizeof hang / sizeof *hang; i++) {
        double from = clock_seconds();
        assert_near(run_python(&r, hang[i], gold), 0, 0);
        if (clock_seconds() - from > 20) fail_msg("%s: took %g s", hang[i], clock_seconds() - from);
    }
    // The first case hangs, the second does not, and must have the time to start on a busy machine.
    Reward later = need("time_limits", "code:timeout=4");
    assert_near(run_python(&later, "x = input()\nwhile x == '1': pass\nprint(x)", gold), 0.5, 0);
    reward_close(&later);
    // All cases together.
    static const char ten[] =
        "[\"f()\", \"f()\", \"f()\", \"f()\", \"f()\", \"f()\", \"f()\", \"f()\", \"f()\", \"f()\"]";
    double from = clock_seconds();
    assert_near(run_python(&r, "def f():\n    while True: pass", ten), 0, 0);
    assert_true(clock_seconds() - from < 16);
    // What is left of the time for all may be too short for a sandbox to begin.
    for (int ms = 5; ms <= 45; ms += 20) {
        char *spec = xasprintf("code:timeout=2,total_timeout=2.0%02d", ms);
        Reward little = need("time_limits", spec);
        assert_near(run_python(&little, "def f():\n    while True: pass", ten), 0, 0);
        reward_close(&little);
        free(spec);
    }
    // Output without end is cut off, long before the time is up.
    from = clock_seconds();
    Reward patient = need("time_limits", "code:timeout=100,total_timeout=100");
    assert_near(run_python(&patient, "while True: print('x' * 10000)", gold), 0, 0);
    assert_true(clock_seconds() - from < 60);
    reward_close(&patient);
    reward_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs), cmocka_unit_test(calls),    cmocka_unit_test(assertions),
        cmocka_unit_test(blocks),  cmocka_unit_test(compiled), cmocka_unit_test(time_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
