// The reward `plugin`: calls a user's own shared object (include/reward_plugin.h).
#include "reward_plugin.h"
#include "ask.h"
#include "file.h"
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

// Whether every part of the library that will be mapped is in the file. dlopen maps what the headers promise: of a file
// that was cut short, as by a copy that did not end, the rest is no error but the signal SIGBUS, here or at a later
// call. What is no ELF file of this machine is left to dlopen to say.
static bool is_whole(const char *path, Error *e) {
    typedef ElfW(Ehdr) Header;
    typedef ElfW(Phdr) Segment;
    int fd = file_open(path, e);
    if (fd < 0) return false;
    struct stat st;
    Header h;
    uint64_t size = fstat(fd, &st) ? 0 : (uint64_t)st.st_size, end = sizeof h;
    ssize_t n = pread(fd, &h, sizeof h, 0);
    bool elf = n >= SELFMAG && !memcmp(h.e_ident, ELFMAG, SELFMAG);
    bool ours = elf && n == sizeof h && h.e_ident[EI_CLASS] == (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) &&
                h.e_phentsize == sizeof(Segment);
    if (ours) {
        end = (uint64_t)h.e_phoff + (uint64_t)h.e_phnum * sizeof(Segment);
        for (int i = 0; i < h.e_phnum && end <= size; i++) {
            Segment s;
            off_t at = (off_t)((uint64_t)h.e_phoff + (uint64_t)i * sizeof s);
            if (pread(fd, &s, sizeof s, at) != sizeof s) end = UINT64_MAX;
            else if (s.p_type == PT_LOAD && s.p_filesz > UINT64_MAX - s.p_offset) end = UINT64_MAX;
            else if (s.p_type == PT_LOAD && s.p_offset + s.p_filesz > end) end = s.p_offset + s.p_filesz;
        }
    }
    close(fd);
    bool whole = !elf || (n == sizeof h && (!ours || end <= size));
    return whole || error_set(e, EXIT_CONFIG,
                              "%s: has %llu bytes and its headers promise more: it was cut short, or is still being "
                              "written; build or copy it again",
                              path, (unsigned long long)size);
}

void *open_plugin(const Reward *r, Error *e) {
    const char *path = reward_text(r, "path");
    char why[256] = "";
    if (!*path) return error_set(e, EXIT_CONFIG, "needs a shared object: plugin:path=..."), NULL;
    Plugin *p = xcalloc(1, sizeof *p);
    char *file = xasprintf("%s%s", strchr(path, '/') ? "" : "./", path); // a bare name would be searched for elsewhere
    bool good = file_regular(file, e) && is_whole(file, e);              // dlopen would wait for a pipe's writer
    p->library = good ? dlopen(file, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!good && e) e->code = EXIT_CONFIG;
    else if (good && !p->library) error_set(e, EXIT_CONFIG, "cannot be loaded: %s", dlerror());
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
