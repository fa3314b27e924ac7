// Decodes a statement: its modifiers are taken one by one, its operands become offsets. A decoder for a family of
// instructions stands beside the code that runs them; decode.cpp lists them all.
#pragma once
#include "machine.h"
#include <algorithm>

namespace ptx {

enum Type : uint8_t {
    NO_TYPE,
    PRED,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16X2,
    BF16,
    BF16X2,
    F32,
    F64,
    TF32,
    E4M3,
    E5M2,
    E4M3X2,
    E5M2X2,
    B1024,
};
Type type_named(const std::string &text); // without its dot; NO_TYPE
int bytes_of(Type t);                     // 0 for PRED
inline bool is_signed(Type t) { return t >= S8 && t <= S64; }
inline bool is_float(Type t) { return t >= F16 && t <= TF32; }

struct Decoder {
    const Module &m;
    const Function &f;
    Kernel &k;
    const Statement *s = nullptr;
    Instr i;
    std::map<std::pair<int, uint64_t>, int32_t> constants; // (bytes, value) -> where it is
    std::vector<std::string> mods;                         // that nobody has taken yet

    // ---- modifiers
    bool take(const char *modifier);
    // The first of these that is there; its index, or -1.
    int take_one(std::initializer_list<const char *> modifiers);
    Type take_type(); // the first type; NO_TYPE
    bool op(const char *base) const { return name == base; }
    std::string name;                  // the instruction before its first dot
    [[noreturn]] void unknown() const; // not an instruction this machine knows
    [[noreturn]] void bad(const char *text, ...) const __attribute__((format(printf, 2, 3)));

    // ---- operands
    size_t args() const { return s->args.size(); }
    const Operand &arg(size_t n) const;
    void need(size_t least, size_t most = 0) const; // operands
    int32_t in(size_t n, int bytes) { return in(arg(n), bytes); }
    int32_t in(const Operand &o, int bytes);
    int32_t out(size_t n, int bytes) { return out(arg(n), bytes); }
    int32_t out(const Operand &o, int bytes); // "_": a register nobody reads
    int32_t in_pred(size_t n) { return in_pred(arg(n)); }
    int32_t in_pred(const Operand &o); // !p: flip() says so
    bool flip(size_t n) const { return arg(n).negated; }
    int bytes(const Operand &o) const; // of a register; -1
    uint64_t immediate(size_t n) const;
    int32_t constant(uint64_t value, int bytes);
    // An address: i.a, i.imm, and 1 in i.z where its base has 32 bits.
    void address(size_t n, Space space);
    void address(const Operand &o, Space space, int32_t *base, uint64_t *offset, bool *narrow);
    void vector(const Operand &o, int bytes, std::vector<int32_t> *to, bool written);
    int32_t scratch(int bytes); // a register of nobody's
    uint64_t variable_address(const Operand &o);

    // Decides where "ld.shared::cta" and so on go; GENERIC where nothing is said.
    Space take_space(bool *cluster = nullptr);
    // Hints that change nothing: eviction priorities, prefetch sizes, cache operators.
    void take_hints();
};

typedef bool (*Decode)(Decoder &d); // false: not one of its instructions
bool decode_integer(Decoder &d);
bool decode_logic(Decoder &d);
bool decode_float(Decoder &d);
bool decode_half(Decoder &d);
bool decode_compare(Decoder &d);
bool decode_convert(Decoder &d);
bool decode_move(Decoder &d);
bool decode_memory(Decoder &d);
bool decode_atomic(Decoder &d);
bool decode_control(Decoder &d);
bool decode_collective(Decoder &d);
bool decode_matrix(Decoder &d);
bool decode_mma(Decoder &d);
bool decode_wgmma(Decoder &d);
bool decode_async(Decoder &d);
bool decode_mbarrier(Decoder &d);
bool decode_bulk(Decoder &d);
bool decode_tensor_map(Decoder &d);

} // namespace ptx
