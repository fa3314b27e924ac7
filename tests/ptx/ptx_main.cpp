// build/ptx FILE.ptx KERNEL grid=X,Y,Z block=X,Y,Z shared=BYTES [seed=N] [units=MODEL] ... ARGUMENT...: runs one
// kernel.
#include "ptx.h"
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sys/stat.h>

using namespace ptx;

static const char usage[] =
    "ptx FILE.ptx KERNEL grid=X,Y,Z block=X,Y,Z shared=BYTES [OPTION...] ARGUMENT...\n"
    "Runs a kernel on this machine for PTX. Options:\n"
    "  grid=X[,Y[,Z]] block=X[,Y[,Z]] cluster=X[,Y[,Z]]   blocks, threads of a block, blocks of a cluster\n"
    "  shared=BYTES     dynamic shared memory\n"
    "  seed=N           the order of blocks and warps, and when copies arrive (1)\n"
    "  units=MODEL      how tensor cores add: ascending, groups8, groups16, unlike (mma.sync groups8, wgmma groups16)\n"
    "  limit=N          instructions of all threads, before it counts as endless (20000000000); a block that begins\n"
    "                   counts as one for every 16 bytes of its registers, local and shared memory\n"
    "  regs=N           registers of a thread, as ptxas -v tells them: checked against a multiprocessor's\n"
    "  early=1          it is launched while the kernel before it may still run: global memory is out of reach before\n"
    "                   griddepcontrol.wait\n"
    "  threads=N        of the CPU, 1 to 64 (2)\n"
    "An argument for each of the kernel's parameters, in order, and of its kind: integers for .u32, .s32, numbers with "
    "a\n"
    "point for .f32, addresses for .u64; for .b32, .b64 and structs whatever has as many bytes:\n"
    "  i32:5 u32:5 i64:5 u64:5 i16:5 u16:5 i8:5 u8:5 f32:0.5 f64:0.5   a number; f32:nan and f32:-inf are such, too\n"
    "  buf:BYTES        a buffer of zeros\n"
    "  in:FILE          a buffer with the file's bytes\n"
    "  inout:FILE       the same, written back\n"
    "  out:BYTES:FILE   a buffer nobody has written, its bytes written to the file\n"
    "  bytes:FILE       a parameter of many bytes (a struct, a tensor map)\n"
    "  map:BUFFER:TYPE:SWIZZLE:D0,D1..:S1,S2..:B0,B1..   a tensor map over the BUFFERth argument (0: the first) that "
    "is a\n"
    "                   buffer: type and swizzle as tensormap.replace numbers them, sizes, strides in bytes, box\n"
    "Exit: 0 and a line of counts; 2 where the command line is wrong, 3 the file, 1 the kernel.\n";

// What is wrong with the command line; `of`: where in the file the kernel is that asks for something else.
static std::string of = "ptx";
[[noreturn]] static void wrong(const std::string &what) {
    fprintf(stderr, "%s: %s\n", of.c_str(), what.c_str());
    exit(2);
}

constexpr uint64_t MOST_WATCHED = 64 << 20;

struct Buffer {
    std::unique_ptr<uint8_t[]> room, written;
    uint8_t *p = nullptr;
    uint64_t bytes = 0;
    std::string file; // to write it to
};

static uint64_t whole(const std::string &text, const std::string &what) {
    char *end;
    errno = 0;
    uint64_t v = strtoull(text.c_str(), &end, 0);
    if (!isdigit((unsigned char)text[0]) || *end || errno) wrong(what + ": \"" + text + "\" is no whole number");
    return v;
}
static std::vector<uint64_t> list(const std::string &text, const std::string &what) {
    std::vector<uint64_t> v;
    for (size_t at = 0; at <= text.size();) {
        size_t comma = std::min(text.find(',', at), text.size());
        v.push_back(whole(text.substr(at, comma - at), what));
        at = comma + 1;
    }
    return v;
}
// "threads=3": from `least` to `most`.
static uint64_t number(const std::string &text, const std::string &key, uint64_t least, uint64_t most) {
    uint64_t v = whole(text, key);
    if (v < least) wrong(key + "=" + text + ": " + std::to_string(least) + " is the least");
    if (v > most) wrong(key + "=" + text + ": " + std::to_string(most) + " is the most");
    return v;
}
static void three(const std::string &text, const std::string &what, uint32_t to[3]) {
    std::vector<uint64_t> v = list(text, what);
    if (v.size() > 3) wrong(what + " has more than three numbers");
    for (size_t k = 0; k < 3; k++) {
        to[k] = k < v.size() ? (uint32_t)std::min<uint64_t>(v[k], UINT32_MAX) : 1;
        if (!to[k]) wrong(what + "=" + text + ": none of its numbers may be 0");
    }
}
static uint64_t file_bytes(const std::string &file) {
    struct stat s;
    if (stat(file.c_str(), &s)) wrong(file + ": cannot be opened");
    if (!S_ISREG(s.st_mode)) wrong(file + ": is no file");
    return (uint64_t)s.st_size;
}
static void read_file(const std::string &file, uint8_t *to, uint64_t bytes) {
    std::ifstream in(file, std::ios::binary);
    if (!in) wrong(file + ": cannot be opened");
    if (!in.read((char *)to, (std::streamsize)bytes)) wrong(file + ": cannot be read");
}
static Buffer &make_buffer(std::vector<Buffer> &buffers, uint64_t bytes) {
    if (bytes > (uint64_t)1 << 36) wrong("a buffer of more than 64 GB");
    Buffer b;
    b.bytes = bytes;
    b.room.reset(new uint8_t[bytes + 512]());
    b.p = (uint8_t *)(((uintptr_t)b.room.get() + 255) / 256 * 256);
    buffers.push_back(std::move(b));
    return buffers.back();
}

// What an argument is: an integer for .u32, a number with a point for .f32; .b32 and structs hold anything.
enum Kind { INTEGER, REAL, BYTES };
static void push(std::vector<uint8_t> &params, const Parameter &p, Kind kind, const void *value, size_t bytes,
                 const std::string &text) {
    bool real = p.type == ".f32" || p.type == ".f64", any = p.type[1] == 'b' || kind == BYTES;
    if (bytes != p.size)
        wrong("\"" + text + "\" is " + std::to_string(bytes) + " bytes, where the parameter " + p.name + " has " +
              std::to_string(p.size));
    if (!any && real != (kind == REAL))
        wrong("\"" + text + "\" is " + (kind == REAL ? "no integer" : "an integer or an address") +
              ", where the parameter " + p.name + " is " + p.type);
    params.resize(p.offset + p.size);
    memcpy(&params[p.offset], value, bytes);
}

static void map_argument(std::vector<Buffer> &buffers, const std::string &text, TensorMap *m) {
    std::vector<std::string> part;
    for (size_t at = 4; at <= text.size();) {
        size_t colon = std::min(text.find(':', at), text.size());
        part.push_back(text.substr(at, colon - at));
        at = colon + 1;
    }
    if (part.size() != 6) wrong("\"" + text + "\": a map has six parts");
    uint64_t buffer = whole(part[0], text);
    if (buffer >= buffers.size()) wrong("\"" + text + "\": there is no such buffer before it");
    std::vector<uint64_t> dim = list(part[3], text),
                          stride = dim.size() > 1 ? list(part[4], text) : std::vector<uint64_t>(),
                          box = list(part[5], text);
    if (dim.empty() || dim.size() > 5 || stride.size() + 1 != dim.size() || box.size() != dim.size())
        wrong("\"" + text + "\": sizes, strides and box do not fit together");
    m->magic = TENSOR_MAP, m->rank = (uint32_t)dim.size(), m->address = (uint64_t)buffers[buffer].p;
    m->type = (uint8_t)std::min<uint64_t>(whole(part[1], text), 255);
    m->swizzle = (uint8_t)std::min<uint64_t>(whole(part[2], text), 255);
    for (size_t k = 0; k < dim.size(); k++) {
        if (dim[k] > UINT32_MAX || box[k] > UINT32_MAX) wrong("\"" + text + "\": sizes of more than 32 bits");
        m->dim[k] = (uint32_t)dim[k], m->box[k] = (uint32_t)box[k], m->step[k] = 1;
        if (k) m->stride[k - 1] = stride[k - 1];
    }
}

static void argument(std::vector<Buffer> &buffers, std::vector<uint8_t> &params, const Parameter &p,
                     const std::string &text) {
    size_t colon = text.find(':');
    std::string kind = text.substr(0, colon), rest = colon == std::string::npos ? "" : text.substr(colon + 1);
    if (kind == "f32" || kind == "f64") {
        char *end;
        errno = 0;
        bool narrow = kind == "f32";
        float f = narrow ? strtof(rest.c_str(), &end) : 0;
        double d = narrow ? (double)f : strtod(rest.c_str(), &end);
        if (rest.empty() || *end) wrong("\"" + text + "\" is no number");
        if (errno == ERANGE && std::isinf(d)) wrong("\"" + text + "\" is beyond " + kind);
        return kind == "f32" ? push(params, p, REAL, &f, 4, text) : push(params, p, REAL, &d, 8, text);
    }
    if (kind.size() >= 2 && (kind[0] == 'i' || kind[0] == 'u') && isdigit((unsigned char)kind[1])) {
        int bits = atoi(kind.c_str() + 1);
        if (bits != 8 && bits != 16 && bits != 32 && bits != 64)
            wrong("\"" + text + "\": integers have 8, 16, 32 or 64 bits");
        bool minus = !rest.empty() && rest[0] == '-';
        uint64_t v = whole(minus ? rest.substr(1) : rest, text);
        uint64_t most = minus ? (uint64_t)1 << (bits - 1) : UINT64_MAX >> (64 - bits);
        if (v > most) wrong("\"" + text + "\" has more than " + std::to_string(bits) + " bits");
        v = minus ? -v : v;
        return push(params, p, INTEGER, &v, (size_t)bits / 8, text);
    }
    if (kind == "buf") make_buffer(buffers, whole(rest, text));
    else if (kind == "in" || kind == "inout") {
        Buffer &b = make_buffer(buffers, file_bytes(rest));
        read_file(rest, b.p, b.bytes);
        if (kind == "inout") b.file = rest;
    } else if (kind == "out") {
        size_t second = rest.find(':');
        if (second == std::string::npos || second + 1 == rest.size())
            wrong("\"" + text + "\" names no file: out:BYTES:FILE");
        Buffer &b = make_buffer(buffers, whole(rest.substr(0, second), text));
        b.file = rest.substr(second + 1);
        static uint64_t watched; // as many bytes again are taken for that
        if (b.bytes <= MOST_WATCHED - watched) b.written.reset(new uint8_t[b.bytes]()), watched += b.bytes;
    } else if (kind == "bytes") {
        std::vector<uint8_t> bytes(std::min<uint64_t>(file_bytes(rest), p.size + 1));
        read_file(rest, bytes.data(), bytes.size());
        return push(params, p, BYTES, bytes.data(), bytes.size(), text);
    } else if (kind == "map") {
        TensorMap m;
        map_argument(buffers, text, &m);
        return push(params, p, BYTES, &m, sizeof m, text);
    } else wrong("\"" + text + "\" is no argument (i32: u64: f32: buf: in: inout: out: ...)");
    uint64_t at = (uint64_t)buffers.back().p;
    push(params, p, INTEGER, &at, 8, text);
}

static void write_back(const std::vector<Buffer> &buffers) {
    for (const Buffer &b : buffers) {
        if (b.file.empty()) continue;
        std::ofstream out(b.file, std::ios::binary | std::ios::trunc);
        out.write((const char *)b.p, (std::streamsize)b.bytes);
        out.close();
        if (!out) wrong(b.file + ": cannot be written");
    }
}

// Sorts the command line into options and arguments.
static void options(int argc, char **argv, Launch &launch, std::vector<std::string> &arguments) {
    std::set<std::string> given;
    for (int k = 3; k < argc; k++) {
        std::string text = argv[k];
        size_t equals = text.find('=');
        std::string key = text.substr(0, equals), value = equals == std::string::npos ? "" : text.substr(equals + 1);
        if (equals == std::string::npos || text.find(':') < equals) {
            arguments.push_back(text);
            continue;
        }
        given.insert(key);
        if (key == "grid") three(value, key, launch.grid);
        else if (key == "block") three(value, key, launch.block);
        else if (key == "cluster") three(value, key, launch.cluster);
        else if (key == "shared") launch.shared = whole(value, key);
        else if (key == "seed") launch.seed = whole(value, key);
        else if (key == "limit") launch.limit = number(value, key, 1, UINT64_MAX);
        else if (key == "early") launch.early = number(value, key, 0, 1);
        else if (key == "regs") launch.registers = (int)number(value, key, 1, 255);
        else if (key == "threads") launch.threads = (int)number(value, key, 1, 64);
        else if (key == "units") {
            if (!find_units(value, &launch.units)) wrong("units=" + value + ": ascending, groups8, groups16 or unlike");
        } else
            wrong("\"" + text +
                  "\" is no option (grid, block, shared, cluster, seed, units, limit, regs, early, threads)");
    }
    for (const char *key : {"grid", "block"})
        if (!given.count(key)) wrong(std::string(key) + "=X,Y,Z is missing");
}

int main(int argc, char **argv) {
    if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc < 3)
        wrong(std::string(argc < 2 ? "a FILE.ptx and a KERNEL are" : "a KERNEL of that file is") +
              " missing: ptx FILE.ptx KERNEL grid=X,Y,Z block=X,Y,Z shared=BYTES ARGUMENT... (--help tells more)");
    std::string file = argv[1], name = argv[2], where;
    Launch launch;
    std::vector<std::string> arguments;
    std::unique_ptr<Program> program;
    const Kernel *kernel;
    try {
        program = load_program(file);
        kernel = &find_kernel(*program, name);
    } catch (Fault &f) {
        fprintf(stderr, "%s\n", describe(file, "", f, "").c_str());
        return 3;
    } catch (std::exception &) {
        fprintf(stderr, "%s: no memory for what it says\n", file.c_str());
        return 3;
    }
    const std::vector<Parameter> &params = kernel->function->params;
    of = file + ":" + std::to_string(kernel->function->line) + ": kernel " + name;
    options(argc, argv, launch, arguments);
    if (arguments.size() != params.size())
        wrong("it has " + std::to_string(params.size()) + " parameters, " + std::to_string(arguments.size()) +
              " arguments are given");
    std::vector<Buffer> buffers;
    try {
        for (size_t k = 0; k < params.size(); k++) argument(buffers, launch.params, params[k], arguments[k]);
        std::vector<Range> ranges = program->ranges;
        for (Buffer &b : buffers)
            if (b.bytes) ranges.push_back({(uint64_t)b.p, b.bytes, false, b.written.get()});
        std::sort(ranges.begin(), ranges.end(), [](const Range &a, const Range &b) { return a.start < b.start; });
        auto start = std::chrono::steady_clock::now();
        Counts n = run_grid(*kernel, launch, ranges, &where);
        double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        write_back(buffers);
        printf("%s: %llu instructions, %llu of warps, %llu warps, %llu barriers; %.3f s, %.0f million instructions/s",
               name.c_str(), (unsigned long long)n.instructions, (unsigned long long)n.warp_instructions,
               (unsigned long long)n.warps, (unsigned long long)n.barriers, seconds,
               (double)n.instructions / seconds / 1e6);
        if (n.flops) printf(", %.2f GFLOP/s in tensor cores", (double)n.flops / seconds / 1e9);
        printf("\n");
    } catch (Fault &f) {
        fprintf(stderr, "%s\n", describe(file, name, f, where.empty() ? "its launch" : where).c_str());
        return 1;
    } catch (std::exception &) {
        wrong("no memory for the buffers");
    }
    return 0;
}
