// Fuzzes tokenizer.json: what is accepted encodes and decodes.
#include "fuzz.h"
#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char path[] = "/dev/shm/grpo-fuzz-XXXXXX.json";
    int fd = mkstemps(path, 5);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
    close(fd);
    Error e = {0};
    Tokenizer *t = tokenizer_load(path, &e);
    if (t) {
        static const char text[] = "Hello, 123 w\xc3\xb6rld \xe4\xb8\xad \xff <|im_end|>\n\n  x";
        Ids ids = {0};
        Str s = {0};
        tokenizer_encode(t, text, sizeof text - 1, true, &ids);
        for (size_t i = 0; i < ids.n; i++)
            if (ids.id[i] < 0 || ids.id[i] >= tokenizer_size(t)) abort();
        tokenizer_decode(t, ids.id, ids.n, false, &s);
        str_free(&s);
        ids_free(&ids);
        tokenizer_free(t);
    } else fuzz_check_error(&e);
    unlink(path);
    return 0;
}
