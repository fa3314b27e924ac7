// Names of kernels. They are static functions, so the dynamic symbols do not have them; the program file's own table
// does.
#include "emu_internal.h"
#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int first_object(dl_phdr_info *info, size_t, void *base) {
    *(uintptr_t *)base = info->dlpi_addr; // the program itself comes first
    return 1;
}

static std::map<uintptr_t, std::string> read_symbols() {
    std::map<uintptr_t, std::string> names;
    uintptr_t base = 0;
    dl_iterate_phdr(first_object, &base);
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        if (fd >= 0) close(fd);
        return names;
    }
    char *file = (char *)mmap(nullptr, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (file == MAP_FAILED) return names;
    const ElfW(Ehdr) *head = (const ElfW(Ehdr) *)file;
    const ElfW(Shdr) *section = (const ElfW(Shdr) *)(file + head->e_shoff);
    for (int i = 0; i < head->e_shnum; i++) {
        if (section[i].sh_type != SHT_SYMTAB) continue;
        const ElfW(Sym) *symbol = (const ElfW(Sym) *)(file + section[i].sh_offset);
        const char *text = file + section[section[i].sh_link].sh_offset;
        for (size_t k = 0; k < section[i].sh_size / sizeof *symbol; k++)
            if ((symbol[k].st_info & 0xf) == STT_FUNC && symbol[k].st_value)
                names[base + symbol[k].st_value] = text + symbol[k].st_name;
    }
    munmap(file, (size_t)st.st_size);
    return names;
}

// "void cast_kernel<float, int>(float*, int)" becomes "cast_kernel<float, int>".
static std::string without_arguments(const std::string &s) {
    int depth = 0;
    size_t end = s.size(), start = 0;
    for (size_t i = 0; i < s.size(); i++) {
        depth += s[i] == '<' ? 1 : s[i] == '>' ? -1 : 0;
        if (depth == 0 && s[i] == ' ') start = i + 1;
        if (depth == 0 && s[i] == '(') {
            end = i;
            break;
        }
    }
    return s.substr(start, end - start);
}

std::string emu_symbol(const void *kernel) {
    static std::map<uintptr_t, std::string> symbols = read_symbols();
    auto symbol = symbols.find((uintptr_t)kernel);
    return symbol == symbols.end() ? "" : symbol->second;
}

std::string emu_kernel_name(const void *kernel) {
    static std::mutex lock;
    static std::map<const void *, std::string> known;
    std::lock_guard<std::mutex> hold(lock);
    auto at = known.find(kernel);
    if (at != known.end()) return at->second;
    std::string name = "a kernel without a name";
    std::string symbol = emu_symbol(kernel);
    if (!symbol.empty()) {
        int status = 0;
        char *plain = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
        name = without_arguments(plain ? plain : symbol);
        free(plain);
    }
    return known[kernel] = name;
}

std::string emu_base_name(const std::string &name) { return name.substr(0, name.find('<')); }
