// Configurations: the YAML reader alone, and a whole file.
#include "config.h"
#include "fuzz.h"
#include "yaml_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    YamlReader *y = yaml_open((const char *)data, n);
    for (YamlNode node = yaml_next(y); node.kind != YAML_DONE && node.kind != YAML_BAD; node = yaml_next(y))
        if (node.depth > YAML_MAX_DEPTH || node.line < 1) abort();
    yaml_close(y);
    FuzzFile f = fuzz_file(data, n);
    Config c;
    Error e = {0};
    if (config_read(&c, f.path, NULL, 0, &e)) config_free(&c);
    else fuzz_check_error(&e);
    fuzz_file_close(&f);
    return 0;
}
