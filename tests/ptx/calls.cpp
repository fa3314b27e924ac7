// Puts the bodies of functions in the place of their calls, each with registers and labels of its own: then a kernel is
// one function, whose paths meet again wherever its branches say.
#include "program.h"

namespace ptx {
namespace {

constexpr size_t DEEPEST = 64; // calls within calls

bool is_call(const Statement &s) { return s.op == "call" || s.op == "call.uni"; }

// call (result), name, (arguments): what stands in parentheses may be missing.
struct Call {
    std::string name;
    std::vector<Operand> results, arguments;
};
Call call_of(const Statement &s) {
    Call c;
    size_t at = 0;
    if (s.args.size() > at && s.args[at].kind == Operand::VECTOR) c.results = s.args[at++].list;
    if (s.args.size() <= at || s.args[at].kind != Operand::LABEL) fail(s.line, "%s: only of a name", s.op.c_str());
    c.name = s.args[at++].name;
    if (s.args.size() > at && s.args[at].kind == Operand::VECTOR) c.arguments = s.args[at++].list;
    if (s.args.size() > at) fail(s.line, "%s: more than a name and its arguments", s.op.c_str());
    return c;
}

struct Inliner {
    const Module &m;
    Function &out;
    std::map<std::string, const Function *> defined;
    std::vector<const Function *> within = {}; // the functions whose bodies are being put
    size_t operands = 0;

    // A body's names where it is put: registers and scopes are counted on, variables may be others'.
    struct Place {
        int registers, scopes;
        const std::map<int, int> *variables;
    };
    void rename(Operand &o, const Place &p) {
        operands++;
        if (o.reg >= 0) o.reg += p.registers;
        if (o.second >= 0) o.second += p.registers;
        auto other = p.variables->find(o.variable);
        if (other != p.variables->end()) o.variable = other->second;
        if (o.kind == Operand::LABEL) o.scope += p.scopes;
        for (Operand &one : o.list) rename(one, p);
    }
    static std::string list_name(const std::string &name, int scopes) {
        return scopes ? name + " " + std::to_string(scopes) : name; // a name that no file holds
    }

    void bind(const Statement &s, const char *what, const std::vector<Operand> &given, const std::vector<int> &wanted,
              std::map<int, int> *variables) {
        if (given.size() != wanted.size())
            fail(s.line, "%s: %zu %s, where the function has %zu", s.op.c_str(), given.size(), what, wanted.size());
        for (size_t k = 0; k < given.size(); k++) {
            if (given[k].kind != Operand::VARIABLE || given[k].variable < 0)
                fail(s.line, "%s: only variables of .param are known as %s", s.op.c_str(), what);
            const Variable &a = m.variables[(size_t)given[k].variable], &b = m.variables[(size_t)wanted[k]];
            if (a.space != LOCAL || a.size != b.size)
                fail(s.line, "%s: %s has %llu bytes, where %s has %llu", s.op.c_str(), a.name.c_str(),
                     (unsigned long long)a.size, b.name.c_str(), (unsigned long long)b.size);
            (*variables)[wanted[k]] = given[k].variable;
        }
    }
    void branch(const Statement &s, bool guarded, const char *label, int scope) {
        Statement b = s;
        Operand to;
        to.kind = Operand::LABEL, to.name = label, to.scope = scope;
        if (!guarded) b.guard = -1;
        b.op = "bra", b.args = {to};
        out.body.push_back(b);
    }
    // s is renamed already. false: the function is not in this file.
    bool call(const Statement &s) {
        Call c = call_of(s);
        auto found = defined.find(c.name);
        if (found == defined.end()) return false;
        for (const Function *f : within)
            if (f == found->second) fail(s.line, "%s: %s calls itself", s.op.c_str(), c.name.c_str());
        if (within.size() >= DEEPEST) fail(s.line, "%s: calls within calls, more than %zu", s.op.c_str(), DEEPEST);
        std::map<int, int> variables;
        bind(s, "results", c.results, found->second->results, &variables);
        bind(s, "arguments", c.arguments, found->second->formals, &variables);
        int scope = (int)out.label_scopes.size();
        if (s.guard >= 0) { // around it
            Statement around = s;
            around.guard_negated = !s.guard_negated;
            branch(around, true, "(end)", scope);
        }
        put(*found->second, variables);
        return true;
    }
    void check_size(int line) {
        if (out.body.size() > MOST_STATEMENTS || out.regs.size() > MOST_REGISTERS || operands > MOST_OPERANDS ||
            out.labels.size() + out.label_scopes.size() + out.targets.size() > MOST_OPERANDS)
            fail(line, "%s is too large with the functions it calls: more than %zu instructions or %zu registers",
                 out.name.c_str(), MOST_STATEMENTS, MOST_REGISTERS);
    }
    void put(const Function &f, const std::map<int, int> &variables) {
        Place p{(int)out.regs.size(), (int)out.label_scopes.size(), &variables};
        within.push_back(&f);
        out.regs.insert(out.regs.end(), f.regs.begin(), f.regs.end());
        check_size(f.line);
        for (int parent : f.label_scopes) out.label_scopes.push_back(parent < 0 ? parent : parent + p.scopes);
        std::vector<int> at;
        for (const Statement &from : f.body) {
            at.push_back((int)out.body.size());
            Statement s = from;
            if (s.guard >= 0) s.guard += p.registers;
            for (Operand &o : s.args) rename(o, p);
            if (s.op.compare(0, 3, "brx") == 0 && s.args.size() > 1)
                s.args[1].name = list_name(s.args[1].name, p.scopes);
            bool returns = within.size() > 1 && (s.op == "ret" || s.op == "ret.uni");
            if (returns) branch(s, true, "(end)", p.scopes);
            else if (!is_call(s) || !call(s)) out.body.push_back(s);
            check_size(s.line);
        }
        at.push_back((int)out.body.size());
        for (auto &l : f.labels) out.labels[{l.first.first + p.scopes, l.first.second}] = at[(size_t)l.second];
        out.labels[{p.scopes, "(end)"}] = at.back();
        for (auto &t : f.targets) out.targets[list_name(t.first, p.scopes)] = t.second;
        within.pop_back();
    }
};

} // namespace

std::unique_ptr<Function> without_calls(const Module &m, const Function &f) {
    bool any = false;
    for (const Statement &s : f.body) any |= is_call(s);
    if (!any) return nullptr;
    std::unique_ptr<Function> out(new Function(f));
    out->body.clear(), out->regs.clear(), out->label_scopes.clear(), out->labels.clear(), out->targets.clear();
    Inliner inliner{m, *out, {}};
    for (const Function &other : m.functions)
        if (!other.entry && other.has_body) inliner.defined[other.name] = &other;
    inliner.put(f, {});
    return out;
}

} // namespace ptx
