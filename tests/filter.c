// Linked into every test program: of its tests only those run whose names match the pattern in GRPO_TEST (with * and
// ?).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

__attribute__((constructor)) static void filter_tests(void) {
    const char *pattern = getenv("GRPO_TEST");
    if (pattern && *pattern) cmocka_set_test_filter(pattern);
}
