// grpo config: the effective configuration as YAML, or the reference page.
#include "commands.h"
#include "config.h"
#include "output.h"
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

ExitCode command_config(int argc, char **argv, Error *e) {
    char *text = NULL;
    if (argc == 1 && !strcmp(argv[0], "--reference")) text = config_help(NULL);
    else {
        Config c;
        if (!config_args(&c, "config", argc, argv, e)) return e->code;
        text = config_yaml(&c);
        config_free(&c);
    }
    fputs(text, stdout);
    free(text);
    return output_flush(e) ? EXIT_OK : e->code;
}
