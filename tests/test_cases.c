// The table of cases against the list of ops: every op has shapes of every kind, in every type that its arguments can
// have.
#include "cases.h"
#include "str.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

// What a row of the op's tensors is: its last dimension, or all of it where there is one only.
static int64_t row_length(CaseShape s) { return s.D ? s.D : s.F ? s.F : s.d ? s.d : s.T; }

static bool few_rows(CaseShape s) { return s.T == 1 || s.T == 2; }
static bool many_rows(CaseShape s) { return s.T > 32; }
static bool whole_vectors(CaseShape s) { return row_length(s) > 0 && row_length(s) % 8 == 0; }
static bool ragged_row(CaseShape s) { return row_length(s) > 8 && row_length(s) % 8 != 0; }
static bool bare(CaseShape s) { return !s.opt; }
static bool optional(CaseShape s) { return s.opt; }
static const struct {
    const char *name;
    bool (*has)(CaseShape s);
} kinds[] = {{"a row or two", few_rows},
             {"more rows than a warp has threads", many_rows},
             {"rows of whole vectors", whole_vectors},
             {"rows with a rest", ragged_row},
             {"no optional arguments", bare},
             {"all optional arguments", optional}};

// Whether two cases of an op declare the same arguments, in the same types. Closes both.
static bool same_arguments(Case a, Case b) {
    bool same = a.n_args == b.n_args;
    for (int i = 0; i < a.n_args && same; i++)
        same = !strcmp(a.arg[i].name, b.arg[i].name) && a.arg[i].t.dtype == b.arg[i].t.dtype;
    case_close(&a);
    case_close(&b);
    return same;
}

// Whether optional arguments appear where the row's shape asks for them.
static bool takes_optional(const CaseRow *row) {
    CaseShape with = row->s;
    with.opt = true;
    return !same_arguments(case_open_shapes(row->op, row->s, F32, F32), case_open_shapes(row->op, with, F32, F32));
}

// Adds to `faults` what is wrong with the cases of op `name`: none at all, a kind that lacks, a type that is not asked
// for.
static void look(Str *faults, const char *name) {
    bool seen[sizeof kinds / sizeof *kinds] = {0}, has_optional = false, by_type = false, by_grad = false;
    const CaseRow *first = NULL;
    for (int i = 0; i < CASE_ROWS; i++) {
        const CaseRow *row = &case_table[i];
        if (strcmp(row->op->name, name) != 0) continue;
        has_optional |= row->s.opt;
        if (row->bench) continue;
        if (!first) first = row;
        Case plain = case_open_shapes(row->op, row->s, F32, F32), grad = case_open_shapes(row->op, row->s, BF16, BF16);
        by_type |= !same_arguments(plain, case_open_shapes(row->op, row->s, BF16, F32));
        by_grad |= !same_arguments(grad, case_open_shapes(row->op, row->s, BF16, F32));
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) seen[k] |= kinds[k].has(row->s);
    }
    if (!first) {
        str_printf(faults, "\n%s: no case", name);
        return;
    }
    const CaseOp *op = first->op;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (!seen[k] && (kinds[k].has != optional || has_optional || takes_optional(first)))
            str_printf(faults, "\n%s: no shape with %s", name, kinds[k].name);
    if (by_type && op->one_type) str_printf(faults, "\n%s: no bf16, yet its arguments have it (.one_type)", name);
    if (!by_type && !op->one_type) str_printf(faults, "\n%s: bf16 is f32 once more: .one_type lacks", name);
    if (by_grad && !op->grads)
        str_printf(faults, "\n%s: no bf16 gradients, yet its arguments have them: .grads lacks", name);
    if (!by_grad && op->grads) str_printf(faults, "\n%s: bf16 gradients are f32 ones once more (.grads)", name);
}

static void every_op_has_cases(void **state) {
#define OP_NAME(name, args) #name,
    static const char *const names[] = {OPS(OP_NAME)};
#undef OP_NAME
    Str faults = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) look(&faults, names[i]);
    if (faults.n) fail_msg("tests/cases.h:%s", faults.s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_op_has_cases)};
    return cmocka_run_group_tests_name("cases", tests, NULL, NULL);
}
