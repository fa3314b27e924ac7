// The header of a safetensors file: what is accepted lies within the file.
#include "fuzz.h"
#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    FuzzFile f = fuzz_file(data, n);
    SafeTensors s;
    Error e = {0};
    if (safetensors_open(&s, f.path, &e)) {
        for (int i = 0; i < s.n; i++)
            if (safetensors_find(&s, s.tensor[i].name) != &s.tensor[i]) abort();
        safetensors_close(&s);
    } else fuzz_check_error(&e);
    fuzz_file_close(&f);
    return 0;
}
