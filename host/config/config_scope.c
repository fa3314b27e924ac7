// Whether an option may differ in a resumed run, and between the ranks of a run.
#include "config_table.h"
#include <string.h>

#define SAVED(name) {#name, offsetof(Config, name), false},
#define LOCAL(name) {#name, offsetof(Config, name), true},
static const struct {
    const char *name;
    size_t at; // offset in Config, so that a name that is no option does not compile
    bool local;
} harmless[] = {CONFIG_CHANGES_NOTHING(SAVED, LOCAL)};
#define HARMLESS (sizeof harmless / sizeof *harmless)

bool config_may_change(const char *name, size_t n) {
    for (size_t i = 0; i < HARMLESS; i++)
        if (strlen(harmless[i].name) == n && !memcmp(harmless[i].name, name, n)) return true;
    return false;
}

bool config_is_local(const char *name, size_t n) {
    for (size_t i = 0; i < HARMLESS; i++)
        if (strlen(harmless[i].name) == n && !memcmp(harmless[i].name, name, n)) return harmless[i].local;
    return false;
}
