#!/bin/sh
# Breaks the kernels as nvcc compiled them, one kind of place at a time, and sees whether the machine for PTX notices: `make mutants-ptx`.
#
# A mutant is a file of PTX (or what ptxas said of it) changed by sed. test_ptx_ops runs the rows of one op with it; it is killed where
# the machine stops it or a result is wrong. The last line is "N killed, N survived"; a survivor, or one that changes nothing, fails.
#
# Environment, from the Makefile: FOLDER (of the .ptx and .told files), PROGRAM (test_ptx_ops), MUTANTS (a pattern: only those).
set -u
limit=${MUTANT_TIMEOUT:-300}

# mutant NAME FILE OP SED
mutants() {
    # Hopper's products: wgmma, its descriptors, mbarriers, bulk copies, registers that change hands.
    mutant wgmma_fence_gone matmul_hopper.ptx matmul 's/wgmma\.fence[^;]*;//'
    mutant wgmma_commit_gone matmul_hopper.ptx matmul 's/wgmma\.commit_group[^;]*;//'
    mutant wgmma_wait_too_late matmul_hopper.ptx matmul 's/(wgmma\.wait_group[^;]*) [0-9]+;/\1 7;/'
    mutant descriptor_other_swizzle matmul_hopper.ptx matmul 's/, 4611686293305360384;/, -9223371743549415424;/'
    mutant descriptor_other_stride matmul_hopper.ptx matmul 's/, 4611686293305360384;/, 4611686151571439616;/'
    mutant accumulates_never matmul_hopper.ptx matmul 's/setp\.ne\.b32 add, [^;]*;/setp.ne.b32 add, 0, 0;/'
    mutant phase_not_flipped matmul_hopper.ptx matmul 's/selp\.u32(.*), 1, 0, (%p[0-9]+);/selp.u32\1, 0, 0, \2;/'
    mutant parity_of_the_other_phase matmul_hopper.ptx matmul 's/xor\.b32(.*), 1;/xor.b32\1, 0;/'
    mutant waits_for_no_phase matmul_hopper.ptx matmul 's/@!done bra again;//'
    mutant room_is_never_given_back matmul_hopper.ptx matmul 's/mbarrier\.arrive\.shared::cta\.b64[^;]*;//'
    mutant mbarrier_of_one_less matmul_hopper.ptx matmul 's/(mov\.u32 .*), 8;/\1, 7;/'
    mutant mbarrier_not_made matmul_hopper.ptx matmul 's/mbarrier\.init[^;]*;//'
    mutant more_bytes_expected matmul_hopper.ptx matmul 's/(arrive\.expect_tx[^;]*), %r[0-9]+;/\1, 65536;/'
    mutant coordinates_swapped matmul_hopper.ptx matmul 's/\{(%r[0-9]+), (%r[0-9]+)\}\]/{\2, \1}]/'
    mutant setmaxnreg_lost matmul_hopper.ptx matmul 's/setmaxnreg\.dec[^;]*;//'
    mutant setmaxnreg_takes_more matmul_hopper.ptx matmul 's/setmaxnreg\.inc([^;]*) 240;/setmaxnreg.inc\1 256;/'
    mutant launch_bound_lost matmul_hopper.told matmul 's/Used [0-9]+ registers/Used 255 registers/'
    # Its gradients: operands across, sums in parts.
    mutant gradients_as_if_along matmul_bwd_hopper.ptx matmul_bwd 's/(wgmma\.mma_async.*, 0), 1;/\1, 0;/'
    mutant gradients_boxes_too_near matmul_bwd_hopper.ptx matmul_bwd 's/, 4611686293338849280;/, 4611686293322072064;/'
    mutant gradients_wait_too_late matmul_bwd_hopper.ptx matmul_bwd 's/(wgmma\.wait_group[^;]*) [0-9]+;/\1 7;/'
    mutant gradients_parts_not_counted matmul_bwd_hopper.ptx matmul_bwd 's/(atom\.global\.add\.u32.*), 1;/\1, 0;/'
    # Hopper's attention: operands in registers, and what threads write that products read.
    mutant seam_fence_gone attention_hopper.ptx attention 's/fence\.proxy\.async[^;]*;//'
    mutant attention_fence_gone attention_hopper.ptx attention 's/wgmma\.fence[^;]*;//'
    mutant attention_wait_too_late attention_hopper.ptx attention 's/(wgmma\.wait_group[^;]*) [0-9]+;/\1 7;/'
    mutant attention_queries_not_waited_for attention_hopper.ptx attention 's/cp\.async\.wait_group [0-9]+;/cp.async.wait_group 6;/'
    mutant attention_takes_more_registers attention_hopper.ptx attention 's/setmaxnreg\.inc([^;]*) 160;/setmaxnreg.inc\1 192;/'
    mutant head_room_is_never_given_back head_hopper.ptx sample 's/mbarrier\.arrive\.shared::cta\.b64[^;]*;//'
    mutant head_begins_too_early head_hopper.ptx sample 's/griddepcontrol\.wait;//'
    # Attention's gradients: operands that the block itself wrote, sums that blocks add to in turn.
    mutant ds_not_made_visible attention_bwd_hopper.ptx attention_bwd 's/fence\.proxy\.async\.shared::cta;//'
    mutant across_is_along attention_bwd_hopper.ptx attention_bwd 's/(m64n64k16[^;]*add, 1, 1), 1, 1;/\1, 1, 0;/'
    mutant dq_never_read attention_bwd_hopper.ptx attention_bwd 's/cp\.async\.bulk\.wait_group\.read 0;//; s/cp\.async\.bulk\.wait_group 0;//'
    # mma.sync, ldmatrix, cp.async.
    mutant mma_b_swapped matmul.ptx matmul 's/(mma\.sync[^{]*\{[^}]*\}, \{[^}]*\}, )\{(%r[0-9]+),(%r[0-9]+)\}/\1{\3,\2}/'
    mutant mma_a_swapped attention.ptx attention 's/(mma\.sync[^{]*\{[^}]*\}, )\{(%r[0-9]+),(%r[0-9]+),/\1{\3,\2,/'
    mutant ldmatrix_not_transposed attention.ptx attention 's/\.trans\.shared/.shared/'
    mutant copies_not_waited_for attention.ptx attention 's/cp\.async\.wait_group [0-9]+;/cp.async.wait_group 6;/'
    mutant copies_no_barrier attention.ptx attention 's/(cp\.async\.wait_group 0;)/\1 DROP/; /DROP/,/bar\.sync/s/bar\.sync[^;]*;//; s/ DROP//'
    mutant copies_past_the_end attention_bwd.ptx attention_bwd 's/(cp\.async\.cg[^;]*, 16), %r[0-9]+;/\1;/'
    mutant commit_gone decode.ptx decode 's/cp\.async\.commit_group;//'
    # Warps, blocks, launches.
    mutant shuffle_from_below rmsnorm.ptx rmsnorm 's/shfl\.sync\.bfly/shfl.sync.up/'
    mutant shuffle_of_half_a_warp rmsnorm.ptx rmsnorm 's/(shfl\.sync\.bfly[^;]*), %r[0-9]+;/\1, 65535;/'
    mutant barrier_gone reduce.ptx rmsnorm_bwd 's/bar\.sync[^;]*;//'
    mutant products_begin_too_early matmul.ptx matmul 's/griddepcontrol\.wait;//'
    mutant hopper_begins_too_early matmul_hopper.ptx matmul 's/griddepcontrol\.wait;//'
    mutant begins_too_early swiglu.ptx swiglu 's/griddepcontrol\.wait;//'
    mutant count_not_added embed.ptx embed_bwd 's/atom\.shared\.add/atom.shared.max/'
    mutant threads_too_many rope.ptx rope 's/\.maxntid [0-9]+/.maxntid 32/'
}

# One mutant: its verdict goes to $work/NAME.verdict.
mutate() {
    dir=$work/$1
    mkdir -p "$dir"
    for file in "$FOLDER"/*.ptx "$FOLDER"/*.told; do ln -s "$(realpath "$file")" "$dir/"; done
    rm -f "$dir/$2"
    sed -E "$4" "$FOLDER/$2" >"$dir/$2"
    if cmp -s "$dir/$2" "$FOLDER/$2"; then
        verdict="not made: sed changes nothing in $2"
    elif EMU_PTX=$dir GRPO_TEST_OP=$3 timeout -k 5 "$limit" "$PROGRAM" </dev/null >"$work/$1.log" 2>&1; then
        verdict=survived
    else
        why=$(grep -aE '^emu: |error [0-9.e+-]+ above' "$work/$1.log" | tail -n 1 | sed -E 's/^emu: [^:]*:([0-9]+): kernel [^,]*, /line \1: /')
        verdict="killed by $3: $(printf %.110s "${why:-it did not end}")"
    fi
    printf '%-28s %-20s %s\n' "$1" "$2" "$verdict"
    echo "$verdict" >"$work/$1.verdict"
    rm -rf "$dir"
}

if [ "${1-}" = --one ]; then
    work=$2 wanted=$3
    mutant() { [ "$1" != "$wanted" ] || mutate "$@"; }
    mutants
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mutant() { case $1 in ${MUTANTS:-*}) echo "$1" ;; esac; }
mutants >"$work/list"
if [ ! -s "$work/list" ]; then
    echo "mutants-ptx: none is called $MUTANTS; $0 names them" >&2
    exit 1
fi
xargs -P "$(nproc)" -I '{}' "$0" --one "$work" '{}' <"$work/list"
killed=$(cat "$work"/*.verdict | grep -c '^killed')
survived=$(($(wc -l <"$work/list") - killed))
echo "$killed killed, $survived survived"
[ "$survived" -eq 0 ]
