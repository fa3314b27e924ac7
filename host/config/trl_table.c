// TRL's fields looked up, and as the reference page's table.
#include "trl.h"
#include <string.h>

const TrlField *trl_field(const char *name) {
    for (int i = 0; i < trl_field_count; i++)
        if (!strcmp(trl_fields[i].name, name)) return &trl_fields[i];
    return NULL;
}

void trl_table(Str *out) {
    static const char *const source[] = {"", " (earlier)", " (scripts)"};
    str_puts(out,
             "\n## Coming from TRL\n\n"
             "Every field of TRL 1.16's `GRPOConfig`, some of earlier versions, and those of its scripts. `grpo config "
             "--from-trl FILE` reads a\nYAML or JSON file of them, prints ours, and names what it could not carry "
             "over.\n\n| field | TRL's default | here |\n|---|---|---|\n");
    for (int i = 0; i < trl_field_count; i++) {
        const TrlField *f = &trl_fields[i];
        str_printf(out, "| `%s`%s | `%s` | ", f->name, source[f->source], f->value);
        if (f->how == TRL_SAME) str_puts(out, "the same");
        if (f->how == TRL_NAMED) str_printf(out, "`%s`", f->ours);
        if (f->how == TRL_TURNED && *f->ours) str_printf(out, "`%s`: ", f->ours);
        if (f->how == TRL_NEEDLESS) str_puts(out, "not needed: ");
        if (f->how == TRL_ABSENT) str_puts(out, "not there: ");
        str_printf(out, "%s |\n", f->words);
    }
}
