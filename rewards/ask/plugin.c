// The reward `plugin`: calls a user's own shared object (include/reward_plugin.h).
#include "reward_plugin.h"
#include "ask.h"
#include "file.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    void *library;
    const RewardPlugin *plugin;
    void *opened;
} Plugin;

void close_plugin(void *data) {
    Plugin *p = data;
    if (p->plugin && p->plugin->close) p->plugin->close(p->opened);
    if (p->library) dlclose(p->library);
    free(p);
}

static const RewardPlugin *find_plugin(void *library, const char *path, Error *e) {
    const RewardPlugin *plugin = dlsym(library, "reward_plugin");
    if (!plugin) error_set(e, EXIT_CONFIG, "%s defines no `reward_plugin`; see include/reward_plugin.h", path);
    else if (plugin->abi != REWARD_PLUGIN_ABI)
        error_set(e, EXIT_CONFIG, "%s was built for interface %d, this program has %d: build it again", path,
                  plugin->abi, REWARD_PLUGIN_ABI);
    else if (!plugin->score) error_set(e, EXIT_CONFIG, "%s: its `reward_plugin` has no score function", path);
    else return plugin;
    return NULL;
}

void *open_plugin(const Reward *r, Error *e) {
    const char *path = reward_text(r, "path");
    char why[256] = "";
    if (!*path) return error_set(e, EXIT_CONFIG, "needs a shared object: plugin:path=..."), NULL;
    Plugin *p = xcalloc(1, sizeof *p);
    char *file = xasprintf("%s%s", strchr(path, '/') ? "" : "./", path); // a bare name would be searched for elsewhere
    bool regular = file_regular(file, e);                                // dlopen would wait for a pipe's writer
    p->library = regular ? dlopen(file, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!regular && e) e->code = EXIT_CONFIG;
    else if (!p->library) error_set(e, EXIT_CONFIG, "cannot be loaded: %s", dlerror());
    free(file);
    const RewardPlugin *plugin = p->library ? find_plugin(p->library, path, e) : NULL;
    if (plugin && plugin->open) p->opened = plugin->open(reward_text(r, "argument"), why, sizeof why);
    why[sizeof why - 1] = 0;
    if (*why) error_set(e, EXIT_CONFIG, "%s refuses: %s", path, why);
    if (plugin && !*why) {
        p->plugin = plugin;
        return p;
    }
    close_plugin(p);
    return NULL;
}

void reward_plugin_score(const Reward *r, const Sample *samples, int n, float *score) {
    const Plugin *p = reward_data(r);
    RewardPluginSample *sample = xcalloc((size_t)n, sizeof *sample);
    for (int i = 0; i < n; i++)
        sample[i] = (RewardPluginSample){.prompt = samples[i].prompt,
                                         .completion = samples[i].completion,
                                         .completion_bytes = samples[i].completion_len,
                                         .answer = samples[i].answer,
                                         .ids = samples[i].ids,
                                         .n_ids = samples[i].n_ids,
                                         .group = samples[i].group};
    for (int i = 0; i < n; i++) score[i] = REWARD_ABSTAINS;
    p->plugin->score(p->opened, sample, n, score);
    for (int i = 0; i < n; i++) {
        if (!isinf(score[i])) continue;
        score[i] = REWARD_ABSTAINS;
        reward_fault(r, REWARD_BAD_REPLY, 1);
    }
    free(sample);
}
