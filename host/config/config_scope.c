// What an option's value means to a run that is resumed, and to its ranks.
#include "config_table.h"
#include <string.h>

#define SAVED(name) {#name, offsetof(Config, name), false},
#define LOCAL(name) {#name, offsetof(Config, name), true},
static const struct {
    const char *name;
    size_t at; // a name that is no option does not compile
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
