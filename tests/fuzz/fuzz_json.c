// Strict JSON.
#include "fuzz.h"
#include "json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Error e = {0};
    json_t *j = json_parse_unique((const char *)data, n, "input", &e);
    if (!j) fuzz_check_error(&e);
    json_decref(j);
    return 0;
}
