// What a PTX file says, as parsed: modules, functions, registers, statements. No meaning yet: decode.h gives that.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ptx {

// What is wrong with a file, an instruction or a running kernel; everything ends here.
struct Fault {
    std::string what;
    int line = 0;       // of the PTX file; 0: none
    uint32_t lanes = 0; // that are concerned
    int warp = -1;
};
[[noreturn]] void fail(int line, const char *format, ...) __attribute__((format(printf, 2, 3)));
std::string format(const char *text, ...) __attribute__((format(printf, 1, 2)));

enum Space : uint8_t { GENERIC, GLOBAL, SHARED, LOCAL, PARAM, CONSTANT };

// A variable: where it lies in its space, or (.extern .shared) behind all others.
struct Variable {
    std::string name;
    Space space;
    uint64_t size, align, offset = 0;
    bool dynamic = false;
    std::vector<uint8_t> initial;                     // .global and .const
    std::vector<std::pair<uint64_t, int>> address_of; // 8 bytes at an offset hold the address of a variable
    uint8_t *memory = nullptr;                        // .global and .const: where they are
};

struct Register {
    std::string name;
    uint8_t bytes;   // 0: a predicate
    int special = 0; // the line that names it first, where it is one of the machine's own (%tid.x)
};

struct Operand {
    enum Kind : uint8_t { REG, IMM, ADDRESS, VECTOR, VARIABLE, LABEL, SINK } kind = SINK;
    bool negated = false;      // !p
    uint8_t real = 0;          // IMM: 4 or 8 where it was written as 0f... or 0d...
    int reg = -1;              // REG, and an address's base
    int second = -1;           // p|q
    int variable = -1;         // VARIABLE, and an address's base
    uint64_t value = 0;        // IMM, and an address's offset
    std::string name;          // LABEL
    int scope = 0;             // LABEL: where it was named
    std::vector<Operand> list; // VECTOR; ADDRESS: what follows a comma ([map, {x, y}])
};

struct Statement {
    int line;
    int guard = -1; // register, or none
    bool guard_negated = false;
    std::string op; // with all modifiers: "ld.global.v4.f32"
    std::vector<Operand> args;
};

struct Parameter {
    std::string name, type; // ".u64"; of an array, of its elements
    uint64_t size, align, offset;
};

struct Function {
    std::string name;
    int line = 0;
    bool entry = false, has_body = false;
    std::vector<Parameter> params;
    uint64_t param_bytes = 0;
    std::vector<int> formals, results; // of a .func: the variables that its caller's are put in the place of
    std::vector<Register> regs;
    std::vector<Statement> body;
    std::vector<int> label_scopes;                           // parent of each scope; 0 is the body
    std::map<std::pair<int, std::string>, int> labels;       // (scope, name) -> index in body
    std::map<std::string, std::vector<std::string>> targets; // .branchtargets
    int require_threads[3] = {0, 0, 0}, most_threads = 0;    // .reqntid, .maxntid
    int most_registers = 0;                                  // .maxnreg
    int cluster[3] = {0, 0, 0};                              // .reqnctapercluster
};

// Of all functions together, and of one with those it calls: what a file may make this machine take.
constexpr size_t MOST_REGISTERS = 1 << 18, MOST_STATEMENTS = 1 << 17, MOST_OPERANDS = 1 << 19;

struct Module {
    std::string file;
    int target = 0;                  // 80 of sm_80
    bool target_alone = false;       // sm_90a: instructions of that generation alone
    int lines = 0;                   // of the file
    std::vector<Variable> variables; // of the module and of all functions
    std::vector<Function> functions;
};

// Parses a file's text, of any content.
void parse_module(Module &m, const std::string &file, const std::string &text);
// calls.cpp: f with the bodies of the functions it calls in the place of the calls; NULL where it calls none. Throws
// Fault.
std::unique_ptr<Function> without_calls(const Module &m, const Function &f);

} // namespace ptx
