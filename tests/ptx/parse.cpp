// Turns words into modules: directives, variables, functions, statements. Names are resolved here, where they are in
// scope; labels when their function has ended.
#include "lex.h"
#include <cstring>
#include <set>
#include <unordered_map>

namespace ptx {
namespace {

constexpr uint64_t MOST_BYTES = (uint64_t)1 << 31; // of one variable

int type_bytes(const std::string &t) {
    static const std::map<std::string, int> known = {
        {".pred", 0},   {".b8", 1},   {".u8", 1},  {".s8", 1},  {".b16", 2}, {".u16", 2},  {".s16", 2},
        {".f16", 2},    {".bf16", 2}, {".b32", 4}, {".u32", 4}, {".s32", 4}, {".f32", 4},  {".f16x2", 4},
        {".bf16x2", 4}, {".b64", 8},  {".u64", 8}, {".s64", 8}, {".f64", 8}, {".b128", 16}};
    auto at = known.find(t);
    return at == known.end() ? -1 : at->second;
}

struct Scope {
    std::unordered_map<std::string, int> regs, variables;
    int id;
};

struct Parser {
    Module &m;
    Lexer lexer;
    Token current, ahead, taken;
    Scope global{{}, {}, -1};
    std::vector<Scope> scopes; // of the function that is being read
    Function *f = nullptr;
    std::set<std::string> bodies; // functions that are defined
    double written_for = 0;       // version
    size_t registers_named = 0, statements = 0, operands = 0;

    Parser(Module &m, const std::string &text) : m(m), lexer{text} {}

    const Token &now() const { return current; }
    const Token &next() { // what is taken, until the next one is
        taken = std::move(current);
        current = std::move(ahead);
        ahead = lexer.read();
        return taken;
    }
    bool is(char mark) const { return now().kind == Token::MARK && now().mark == mark; }
    bool word(const char *text) const { return now().kind == Token::WORD && now().text == text; }
    bool accept(char mark) { return is(mark) && (next(), true); }
    [[noreturn]] void unexpected(const char *wanted) {
        fail(now().line, "%s, where %s should be",
             now().kind == Token::END ? "the end of the file" : ("\"" + now().text + "\"").c_str(), wanted);
    }
    [[noreturn]] void twice(int line, const std::string &what) { fail(line, "%s is there twice", what.c_str()); }
    void expect(char mark) {
        char text[] = {'"', mark, '"', 0};
        if (!accept(mark)) unexpected(text);
    }
    std::string name(const char *what) {
        if (now().kind != Token::WORD) unexpected(what);
        return next().text;
    }
    uint64_t integer(const char *what) {
        bool minus = accept('-');
        if (now().kind != Token::INTEGER) unexpected(what);
        uint64_t v = next().value;
        return minus ? -v : v;
    }
    void skip_statement() {
        while (now().kind != Token::END && !is(';')) next();
        expect(';');
    }
    void skip_line(int line) {
        while (now().kind != Token::END && now().line == line) next();
    }
    void skip_braces() {
        expect('{');
        for (int depth = 1; depth;) {
            if (now().kind == Token::END) unexpected("\"}\"");
            depth += is('{') - is('}');
            next();
        }
    }

    // ---- variables --------------------------------------------------------------------------------------------------
    void value_into(Variable &v, uint64_t &to, int bytes, int depth = 0) {
        if (depth > 8) fail(now().line, "%s: values within values", v.name.c_str());
        if (accept('{')) {
            while (!is('}')) {
                value_into(v, to, bytes, depth + 1);
                if (!accept(',')) break;
            }
            return expect('}');
        }
        if (bytes > 8) fail(now().line, "%s: values of %d bytes are not known", v.name.c_str(), bytes);
        if (to + (uint64_t)bytes > v.size) fail(now().line, "%s: more values than it has room for", v.name.c_str());
        if (v.initial.size() < to + (uint64_t)bytes) v.initial.resize(to + (uint64_t)bytes); // zeros lie behind it
        bool minus = accept('-');
        if (now().kind == Token::INTEGER || now().kind == Token::REAL) {
            const Token &t = next();
            uint64_t x = t.value;
            if (t.kind == Token::REAL && t.bytes == 8 && bytes == 4) {
                double d;
                memcpy(&d, &x, 8);
                float s = (float)d;
                x = 0;
                memcpy(&x, &s, 4);
            }
            if (minus && t.kind == Token::REAL) x ^= (uint64_t)1 << (bytes * 8 - 1);
            else if (minus) x = -x;
            memcpy(&v.initial[to], &x, (size_t)bytes);
        } else if (now().kind == Token::WORD) { // the address of another variable, or generic(it)
            bool generic = word("generic");
            if (generic) next(), expect('(');
            int line = now().line;
            std::string other = name("a variable");
            auto found = global.variables.find(other);
            if (found == global.variables.end() || bytes != 8)
                fail(line, "%s: %s is no variable known here", v.name.c_str(), other.c_str());
            v.address_of.push_back({to, found->second});
            if (accept('+')) fail(line, "%s: an address with an offset as a value is not known", v.name.c_str());
            if (generic) expect(')');
        } else unexpected("a value");
        to += (uint64_t)bytes;
    }

    // Behind .global, .const, .shared, .local: "[.align 16] .b8 name[64] [= {...}] [, name ...];"
    void variables(Space space, bool is_extern) {
        uint64_t align = 0;
        int bytes = -1, vector = 1;
        while (now().kind == Token::WORD && now().text[0] == '.') {
            int line = now().line;
            std::string t = next().text;
            if (t == ".align") align = integer("an alignment");
            else if (t == ".v2") vector = 2;
            else if (t == ".v4") vector = 4;
            else if (t == ".attribute") {
                while (now().kind != Token::END && !is(')')) next();
                expect(')');
            } else if ((bytes = type_bytes(t)) > 0) break;
            else if (t != ".ptr") fail(line, "%s is no type of a variable", t.c_str());
        }
        if (bytes <= 0) unexpected("a type");
        do {
            Variable v;
            int line = now().line;
            v.name = name("a variable's name");
            v.space = space;
            v.align = align ? align : (uint64_t)(bytes * vector);
            v.size = (uint64_t)(bytes * vector);
            if (v.align == 0 || v.align & (v.align - 1) || v.align > 1 << 20)
                fail(line, "%s: an alignment of %llu", v.name.c_str(), (unsigned long long)v.align);
            bool open = false;
            while (accept('[')) {
                if (accept(']')) {
                    open = true;
                    continue;
                }
                uint64_t n = integer("a size");
                expect(']');
                if (n && v.size > MOST_BYTES / n) fail(line, "%s is too large", v.name.c_str());
                v.size *= n;
            }
            if (open && is_extern) v.dynamic = true, v.size = 0;
            else if (open) fail(line, "%s: an array without a size", v.name.c_str());
            if (accept('=')) {
                if (space != GLOBAL && space != CONSTANT)
                    fail(line, "%s: only .global and .const variables have values", v.name.c_str());
                uint64_t to = 0;
                value_into(v, to, bytes);
            }
            if (is_extern && space == SHARED) v.dynamic = true;
            Scope &scope = f && !scopes.empty() ? scopes.back() : global;
            auto added = scope.variables.insert({v.name, (int)m.variables.size()});
            bool again =
                !added.second && v.dynamic && m.variables[(size_t)added.first->second].dynamic; // declared only
            if (!added.second && !again) twice(line, v.name);
            if (!again) m.variables.push_back(v);
        } while (accept(','));
        expect(';');
    }

    // ".reg .b32 %r<12>, a;"
    void registers() {
        std::string t = name("a type");
        int bytes = type_bytes(t);
        if (t == ".v2" || t == ".v4" || bytes < 0) fail(now().line, "%s is no type of a register", t.c_str());
        do {
            int line = now().line;
            std::string stem = name("a register's name");
            uint64_t n = 0;
            bool many = accept('<');
            if (many) n = integer("a number"), expect('>');
            if (n > MOST_REGISTERS || (registers_named += many ? n : 1) > MOST_REGISTERS)
                fail(line, "more than %zu registers", MOST_REGISTERS);
            for (uint64_t k = 0; k < (many ? n : 1); k++) {
                std::string one = many ? stem + std::to_string(k) : stem;
                if (!scopes.back().regs.insert({one, (int)f->regs.size()}).second) twice(line, one);
                f->regs.push_back({one, (uint8_t)bytes, 0});
            }
        } while (accept(','));
        expect(';');
    }

    // ---- operands ---------------------------------------------------------------------------------------------------
    int find_reg(const std::string &text) const {
        for (size_t k = scopes.size(); k--;) {
            auto found = scopes[k].regs.find(text);
            if (found != scopes[k].regs.end()) return found->second;
        }
        return -1;
    }
    int find_variable(const std::string &text) const {
        for (size_t k = scopes.size(); k--;) {
            auto found = scopes[k].variables.find(text);
            if (found != scopes[k].variables.end()) return found->second;
        }
        auto found = global.variables.find(text);
        return found == global.variables.end() ? -1 : found->second;
    }
    // Special registers count as registers; decode_special knows which there are.
    int special(const std::string &text) {
        bool wide = text == "%clock64" || text == "%globaltimer" || text == "%gridid";
        scopes[0].regs[text] = (int)f->regs.size();
        f->regs.push_back({text, (uint8_t)(wide ? 8 : text == "%is_explicit_cluster" ? 0 : 4), now().line});
        return (int)f->regs.size() - 1;
    }
    void named(Operand &o, const std::string &text) {
        if ((o.reg = find_reg(text)) >= 0) o.kind = Operand::REG;
        else if ((o.variable = find_variable(text)) >= 0) o.kind = Operand::VARIABLE;
        else if (text == "_") o.kind = Operand::SINK;
        else if (text == "WARP_SZ") o.kind = Operand::IMM, o.value = 32;
        else if (text[0] == '%' && text.size() > 1 && isalpha((unsigned char)text[1]))
            o.kind = Operand::REG, o.reg = special(text);
        else {
            for (const Parameter &p : f->params)
                if (p.name == text) { // its offset among the parameters
                    o.kind = Operand::VARIABLE, o.variable = -2, o.value = p.offset;
                    return;
                }
            o.kind = Operand::LABEL, o.name = text, o.scope = scopes.back().id;
        }
    }
    Operand operand(int depth = 0) {
        Operand o;
        if (depth > 8) fail(now().line, "operands within operands");
        if (++operands > MOST_OPERANDS) fail(now().line, "more than %zu operands", MOST_OPERANDS);
        if (accept('!')) o.negated = true;
        if (accept('{')) {
            o.kind = Operand::VECTOR;
            while (!is('}')) {
                o.list.push_back(operand(depth + 1));
                if (!accept(',')) break;
            }
            expect('}');
        } else if (accept('[')) {
            Operand base = operand(depth + 1);
            o = base;
            o.kind = Operand::ADDRESS;
            if (base.kind == Operand::LABEL) fail(now().line, "%s is not known here", base.name.c_str());
            while (accept('+')) o.value += integer("an offset");
            if (is('-')) o.value += integer("an offset");
            while (accept(',')) o.list.push_back(operand(depth + 1));
            expect(']');
        } else if (accept('(')) { // of a call
            o.kind = Operand::VECTOR;
            while (!is(')')) {
                o.list.push_back(operand(depth + 1));
                if (!accept(',')) break;
            }
            expect(')');
        } else if (is('-') || now().kind == Token::INTEGER || now().kind == Token::REAL) {
            bool minus = accept('-');
            if (now().kind != Token::INTEGER && now().kind != Token::REAL) unexpected("a number");
            const Token &t = next();
            o.kind = Operand::IMM, o.value = t.value;
            if (t.kind == Token::REAL) {
                o.real = t.bytes;
                if (minus) o.value ^= (uint64_t)1 << (t.bytes * 8 - 1);
            } else if (minus) o.value = -o.value;
        } else if (now().kind == Token::WORD) {
            named(o, next().text);
            if (o.kind == Operand::VARIABLE && depth == 0)
                while (is('+') || is('-')) {
                    accept('+');
                    o.value += integer("an offset");
                }
            if (accept('|')) {
                Operand second = operand(depth + 1);
                if (second.kind != Operand::REG && second.kind != Operand::SINK)
                    fail(now().line, "what follows \"|\" is no register");
                o.second = second.kind == Operand::REG ? second.reg : -1;
                if (o.kind == Operand::SINK) o.kind = Operand::REG, o.reg = -1;
            }
        } else unexpected("an operand");
        return o;
    }

    // ---- functions --------------------------------------------------------------------------------------------------
    std::unordered_map<std::string, int> parameters(bool returned, std::unordered_map<std::string, int> named = {}) {
        expect('(');
        uint64_t offset = f->param_bytes;
        while (!is(')')) {
            int line = now().line;
            if (!word(".param") && !word(".reg")) unexpected(".param");
            next();
            Parameter p{};
            uint64_t align = 0;
            int bytes = -1;
            while (now().kind == Token::WORD && now().text[0] == '.') {
                std::string t = next().text;
                if (t == ".align") {
                    uint64_t a = integer("an alignment");
                    if (bytes < 0 || !align) align = a;
                } else if (type_bytes(t) > 0)
                    bytes = type_bytes(t), p.type = t, align = align ? align : (uint64_t)bytes;
                else if (t == ".ptr") { // its own .align is that of what it points to
                    while (word(".global") || word(".shared") || word(".const") || word(".local")) next();
                    if (word(".align")) next(), integer("an alignment");
                } else if (t != ".global" && t != ".noalias") fail(line, "%s is no type of a parameter", t.c_str());
            }
            if (bytes < 0) unexpected("a type");
            p.name = name("a parameter's name");
            for (const Parameter &other : f->params)
                if (other.name == p.name) twice(line, p.name);
            p.size = (uint64_t)bytes;
            if (accept('[')) {
                uint64_t n = is(']') ? 0 : integer("a size");
                if (n > 65536) fail(line, "%s is too large", p.name.c_str());
                p.size *= n;
                expect(']');
            }
            if (!align || align & (align - 1) || align > 4096)
                fail(line, "%s: an alignment of %llu", p.name.c_str(), (unsigned long long)align);
            p.align = align;
            p.offset = (offset + align - 1) / align * align;
            offset = p.offset + p.size;
            if (!f->entry) { // memory of a thread: st.param and ld.param of a call go there
                std::vector<int> &list = returned ? f->results : f->formals;
                list.push_back((int)m.variables.size());
                if (!named.insert({p.name, list.back()}).second) twice(line, p.name);
                Variable v;
                v.name = p.name, v.space = LOCAL, v.size = p.size, v.align = p.align;
                m.variables.push_back(v);
            } else f->params.push_back(p);
            if (!accept(',')) break;
        }
        expect(')');
        if (offset > 32768) fail(now().line, "%s: more than 32 KB of parameters", f->name.c_str());
        if (!returned) f->param_bytes = offset;
        return named;
    }

    void statement() {
        Statement s;
        s.line = now().line;
        if (++statements > MOST_STATEMENTS) fail(s.line, "more than %zu instructions", MOST_STATEMENTS);
        if (accept('@')) {
            s.guard_negated = accept('!');
            std::string text = name("a predicate");
            s.guard = find_reg(text);
            if (s.guard < 0 || f->regs[(size_t)s.guard].bytes) fail(s.line, "%s is no predicate", text.c_str());
        }
        s.op = name("an instruction");
        while (!is(';')) {
            s.args.push_back(operand());
            if (is('(')) continue;
            if (!accept(',')) break;
        }
        expect(';');
        f->body.push_back(s);
    }

    void open_scope() {
        int parent = scopes.empty() ? -1 : scopes.back().id;
        scopes.push_back({{}, {}, (int)f->label_scopes.size()});
        f->label_scopes.push_back(parent);
    }

    void body(std::unordered_map<std::string, int> parameters) {
        open_scope();
        scopes.back().variables = std::move(parameters);
        for (expect('{');;) {
            const Token &t = now();
            if (t.kind == Token::END) unexpected("\"}\"");
            if (accept('{')) {
                if (scopes.size() > 64) fail(t.line, "too many braces");
                open_scope();
            } else if (accept('}')) {
                scopes.pop_back();
                if (scopes.empty()) return;
            } else if (accept(';')) {
            } else if (t.kind == Token::WORD && ahead.kind == Token::MARK && ahead.mark == ':') {
                std::string label = next().text;
                int line = now().line;
                next();
                if (word(".branchtargets")) {
                    next();
                    std::vector<std::string> &list = f->targets[label];
                    do list.push_back(name("a label"));
                    while (accept(','));
                    expect(';');
                } else if (!f->labels.insert({{scopes.back().id, label}, (int)f->body.size()}).second)
                    twice(line, "the label " + label);
            } else if (t.kind == Token::WORD && t.text[0] == '.') {
                directive_in_body();
            } else {
                statement();
            }
        }
    }
    void directive_in_body() {
        int line = now().line;
        std::string d = next().text;
        if (d == ".reg") registers();
        else if (d == ".shared" || d == ".shared::cta") variables(SHARED, false);
        else if (d == ".local") variables(LOCAL, false);
        else if (d == ".global" || d == ".const") variables(d == ".global" ? GLOBAL : CONSTANT, false);
        else if (d == ".param") variables(LOCAL, false); // of a call
        else if (d == ".loc") skip_line(line);
        else if (d == ".pragma") skip_statement();
        else fail(line, "%s is not known here", d.c_str());
    }

    void function(bool entry) {
        m.functions.emplace_back();
        f = &m.functions.back();
        f->entry = entry;
        std::unordered_map<std::string, int> named; // a .func's parameters and results
        if (is('(')) named = parameters(true);
        f->line = now().line;
        f->name = name("a name");
        if (is('(')) named = parameters(false, std::move(named));
        while (now().kind == Token::WORD) {
            int line = now().line;
            std::string d = next().text;
            int three[3] = {1, 1, 1};
            if (d == ".reqntid" || d == ".maxntid" || d == ".reqnctapercluster" || d == ".maxnctapersm" ||
                d == ".minnctapersm" || d == ".maxnreg" || d == ".maxclusterrank") {
                for (int k = 0; k < 3; k++) {
                    uint64_t v = integer("a number");
                    if (v > 1 << 20) fail(line, "%s %llu", d.c_str(), (unsigned long long)v);
                    three[k] = (int)v;
                    if (!accept(',')) break;
                }
                if (d == ".reqntid") memcpy(f->require_threads, three, sizeof three);
                if (d == ".reqnctapercluster") memcpy(f->cluster, three, sizeof three);
                if (d == ".maxntid")
                    f->most_threads = three[0] > 1024 || three[1] > 1024 || three[2] > 1024
                                          ? 1 << 20
                                          : three[0] * three[1] * three[2];
                if (d == ".maxnreg") f->most_registers = three[0];
            } else if (d != ".explicitcluster" && d != ".noreturn" && d != ".blocksareclusters")
                fail(line, "%s is not known here", d.c_str());
        }
        if (is('{')) {
            f->has_body = true;
            if (!bodies.insert(f->name).second) twice(f->line, f->name);
            body(std::move(named));
        } else expect(';');
        f = nullptr;
        scopes.clear();
    }

    // ".version 8.7", then ".target sm_90a": a file begins with them.
    void version(int line) {
        if (written_for) twice(line, ".version");
        if (now().kind != Token::REAL && now().kind != Token::INTEGER) unexpected("a version");
        written_for = strtod(next().text.c_str(), nullptr);
        if (written_for > 9.4) fail(line, "PTX %g is newer than 9.4, the newest this machine knows", written_for);
        if (written_for < 1) fail(line, "PTX %g: there is no such version", written_for);
    }
    void target() {
        static const struct {
            const char *name;
            int number;
            double since; // version of PTX
        } known[] = {{"sm_70", 70, 6.0}, {"sm_72", 72, 6.1}, {"sm_75", 75, 6.3}, {"sm_80", 80, 7.0},
                     {"sm_86", 86, 7.1}, {"sm_87", 87, 7.4}, {"sm_88", 88, 9.0}, {"sm_89", 89, 7.8},
                     {"sm_90", 90, 7.8}, {"sm_90a", 90, 8.0}};
        do {
            int line = now().line;
            std::string t = name("a target");
            bool found = t == "debug" || t == "texmode_unified" || t == "texmode_independent";
            for (auto &k : known) {
                if (t != k.name) continue;
                found = true;
                if (written_for < k.since)
                    fail(line, "%s is not known to PTX %g; %g is the first", k.name, written_for, k.since);
                if (k.number > m.target) m.target = k.number, m.target_alone = false;
                m.target_alone |= t.back() == 'a';
            }
            if (!found) fail(line, "the target %s is not known to this machine; sm_70 to sm_90a are", t.c_str());
        } while (accept(','));
        if (!m.target) unexpected("a target");
    }

    void run() {
        bool is_extern = false;
        while (now().kind != Token::END) {
            int line = now().line;
            std::string d = name("a directive");
            if (d == ".version") version(line);
            else if (!written_for) fail(line, "%s, where .version should be: PTX begins with it", d.c_str());
            else if (d == ".target") target();
            else if (!m.target) fail(line, "%s, where .target should be: it stands behind .version", d.c_str());
            else if (d == ".address_size") {
                if (integer("a size") != 64) fail(line, "addresses of 64 bits only");
            } else if (d == ".extern") is_extern = true;
            else if (d == ".visible" || d == ".weak" || d == ".common") continue;
            else if (d == ".file" || d == ".loc") skip_line(line);
            else if (d == ".pragma" || d == ".alias") skip_statement();
            else if (d == ".section") {
                while (now().kind != Token::END && !is('{')) next();
                skip_braces();
            } else if (d == ".global" || d == ".const" || d == ".shared" || d == ".shared::cta") {
                variables(d == ".global" ? GLOBAL : d == ".const" ? CONSTANT : SHARED, is_extern);
                is_extern = false;
            } else if (d == ".entry" || d == ".func") {
                function(d == ".entry");
                is_extern = false;
            } else fail(line, "%s is no directive that this machine knows", d.c_str());
        }
        m.lines = now().line;
        if (!m.target) fail(m.lines, "the end of the file, where %s should be", written_for ? ".target" : ".version");
    }
};

} // namespace

void parse_module(Module &m, const std::string &file, const std::string &text) {
    m.file = file;
    Parser parser(m, text);
    parser.next(), parser.next();
    parser.run();
}

} // namespace ptx
