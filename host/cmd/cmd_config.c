// grpo config: prints the effective configuration as YAML, or the reference page, or converts a configuration of TRL.
#include "commands.h"
#include "config.h"
#include "trl.h"
#include "output.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ExitCode command_config(int argc, char **argv, Error *e) {
    char *text = NULL;
    if (argc == 1 && !strcmp(argv[0], "--reference")) text = config_help(NULL);
    else if (argc >= 1 && !strcmp(argv[0], "--from-trl")) {
        if (argc != 2)
            error_set(e, EXIT_CONFIG, "config: --from-trl wants one file, a YAML or JSON of TRL's GRPOConfig");
        else text = config_from_trl(argv[1], e);
        if (!text) return e->code;
    } else {
        Config c;
        if (!config_args(&c, "config", argc, argv, e)) return e->code;
        text = config_yaml(&c);
        config_free(&c);
    }
    output_write(STDOUT_FILENO, text, strlen(text));
    free(text);
    return output_flush(e) ? EXIT_OK : e->code;
}
