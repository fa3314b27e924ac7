// Whether two values of an option mean the same to what a run makes, though they are written differently.
#include "config.h"
#include "reward.h"
#include <stdlib.h>
#include <string.h>

static bool specs_alike(const char *a, const char *b) {
    Reward x, y;
    return reward_parse(a, &x, NULL) && reward_parse(b, &y, NULL) && reward_alike(&x, &y);
}

static bool lists_alike(const TextList *a, const TextList *b) {
    bool alike = a->n == b->n;
    for (int i = 0; alike && i < a->n; i++) alike = specs_alike(a->item[i], b->item[i]);
    return alike;
}

static bool files_alike(const FileList *a, const FileList *b) {
    bool alike = a->n == b->n;
    for (int i = 0; alike && i < a->n; i++) {
        const DataFile *x = &a->item[i], *y = &b->item[i];
        alike = !strcmp(x->path, y->path) && x->weight == y->weight && lists_alike(&x->rewards, &y->rewards);
    }
    return alike;
}

static bool read_value(Config *c, const char *name, const char *value) {
    char *override = xasprintf("%s=%s", name, value);
    Error e = {0};
    bool ok = config_read(c, NULL, &override, 1, &e);
    free(override);
    return ok;
}

bool config_alike(const char *name, const char *a, const char *b) {
    static const char *const scoring[] = {"rewards", "eval_grader", "train_file"};
    bool alike = !strcmp(a, b), scores = false;
    for (int i = 0; i < 3; i++) scores = scores || !strcmp(name, scoring[i]);
    Config x, y;
    if (alike || !scores || !read_value(&x, name, a)) return alike;
    if (read_value(&y, name, b)) {
        alike = lists_alike(&x.rewards, &y.rewards) && files_alike(&x.train_file, &y.train_file) &&
                (!strcmp(x.eval_grader, y.eval_grader) || specs_alike(x.eval_grader, y.eval_grader));
        config_free(&y);
    }
    config_free(&x);
    return alike;
}
