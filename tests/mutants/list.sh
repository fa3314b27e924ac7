# shellcheck shell=sh
# mutant NAME FILE TEST FROM TO: FROM, which is in FILE exactly once, becomes TO, and TEST must notice. A header is written
# HEADER>FILE.cu, the object it is tried in. TEST is a program (rollout is test_rollout), or ops:NAME, one op of test_ops.

# ---- moving memory ---------------------------------------------------------------------------------------------------
mutant fill_blocks_overlap kernels/ops/elementwise.cu ops:cast \
    'blockIdx.x * THREADS * TURNS + threadIdx.x' 'blockIdx.x * THREADS + threadIdx.x'
mutant lerp_adds_all kernels/ops/elementwise.cu ops:lerp \
    'fmaf(alpha, g[j], (1 - alpha) * f[j])' 'fmaf(alpha, g[j], f[j])'
mutant group_reads_past_row 'kernels/gpu/memory.cuh>kernels/ops/rmsnorm.cu' ops:rmsnorm \
    'if (j < left) g.x[j] = p[j];' 'g.x[j] = p[j];'
mutant groups_across_rows 'kernels/gpu/memory.cuh>kernels/ops/rmsnorm.cu' ops:rmsnorm \
    '% alignof(Group<T, E>) == 0 && width % E == 0;' '% alignof(Group<T, E>) == 0;'
mutant sumsq_chunk_too_long kernels/ops/reduce.cu ops:sumsq \
    'n - begin < CHUNK ? n - begin : CHUNK' 'n - begin'
mutant column_sums_no_barrier kernels/ops/reduce.cu ops:rmsnorm_bwd \
    '    __syncthreads();
    if (slice > 0 || column >= n) return;' '    if (slice > 0 || column >= n) return;'
mutant column_sums_set kernels/ops/reduce.cu ops:rmsnorm_bwd \
    'float total = to_float(out[column]);' 'float total = 0;'
mutant embed_rank_off_by_one kernels/ops/embed.cu ops:embed_bwd \
    'u < b; u++) rank += bin' 'u <= b; u++) rank += bin'
mutant embed_gradient_set kernels/ops/embed.cu ops:embed_bwd \
    'group_floats<E>(sum, old);' 'for (int j = 0; j < E; j++) sum[j] = 0;'
mutant embed_count_no_barrier kernels/ops/embed.cu ops:embed_bwd \
    'count[b] = 0;
    __syncthreads();' 'count[b] = 0;'
mutant copy_waits_for_no_host kernels/device/cuda.cu ops:fill \
    'if (to.type != cudaMemoryTypeDevice || from.type != cudaMemoryTypeDevice)' \
    'if (to.type != cudaMemoryTypeDevice && from.type != cudaMemoryTypeDevice)'

# ---- the block's small ops -------------------------------------------------------------------------------------------
mutant rmsnorm_one_room kernels/ops/rmsnorm.cu ops:rmsnorm \
    't += gridDim.x, turn ^= 1)' 't += gridDim.x)'
mutant rmsnorm_norm_of_x 'kernels/gpu/row_norm.cuh>kernels/ops/rmsnorm.cu' ops:rmsnorm \
    'f[j] += a[j];' 'f[j] += 0 * a[j];'
mutant rmsnorm_no_eps 'kernels/gpu/row_norm.cuh>kernels/ops/rmsnorm.cu' ops:rmsnorm \
    '(float)D + eps);' '(float)D);'
mutant rmsnorm_bwd_forgets_residual kernels/ops/rmsnorm.cu ops:rmsnorm_bwd \
    'if (dres) d[j] += through[j];' ''
mutant rmsnorm_bwd_set kernels/ops/rmsnorm.cu ops:rmsnorm_bwd \
    'dw[k][j] = fmaf(d, v, dw[k][j]);' 'dw[k][j] = d * v;'
mutant rmsnorm_bwd_one_room kernels/ops/rmsnorm.cu ops:rmsnorm_bwd \
    'row_sum(dots, room[turn] +' 'row_sum(dots, room[0] +'
mutant qk_norm_keys_as_queries kernels/ops/qk_norm.cu ops:qk_norm \
    '*key = head >= h.queries;' '*key = head > h.queries;'
mutant qk_norm_bwd_mixes_weights kernels/ops/qk_norm.cu ops:qk_norm_bwd \
    'else dw[0][k] += g' 'dw[0][k] += g'
mutant qk_norm_bwd_no_barrier kernels/ops/qk_norm.cu ops:qk_norm_bwd \
    '        lane_store<d>(sums[warp] + lane, dw[which], h);
        __syncthreads();' '        lane_store<d>(sums[warp] + lane, dw[which], h);'
mutant rope_turns_values kernels/ops/rope.cu ops:rope \
    'if (p.head < r.rotated) rotate<E, plain, false>' 'if (p.head < r.heads) rotate<E, plain, false>'
mutant rope_writes_hidden_rows kernels/ops/rope.cu ops:rope \
    'in_cache >= 0 ? kv_row[first + t] : -1' 'in_cache >= 0 ? abs(kv_row[first + t]) : -1'
mutant rope_no_barrier kernels/ops/rope.cu ops:rope \
    'make_angles(angles, p, r, pos + first, rows);
        __syncthreads();' 'make_angles(angles, p, r, pos + first, rows);'
mutant rope_bwd_turns_on kernels/ops/rope.cu ops:rope_bwd \
    'rotate<E, plain, true>(x, y' 'rotate<E, plain, false>(x, y'
mutant rope_bwd_loses_a_lane kernels/ops/rope.cu ops:rope_bwd \
    'for (int k = 1; k < s.lanes; k++)' 'for (int k = 1; k < s.lanes - 1; k++)'
mutant rope_bwd_angles_no_barrier kernels/ops/rope.cu ops:rope_bwd \
    'end - row0 < each ? end - row0 : each);
        __syncthreads();' 'end - row0 < each ? end - row0 : each);'
mutant lora_down_scale kernels/ops/lora.cu ops:lora_down \
    '= p.scale * s;' '= s;'
mutant lora_up_no_bare_parts kernels/ops/lora.cu ops:lora_up \
    'p.low[k] ? p.rank : 0, p.scale}' 'p.rank, p.scale}'
mutant lora_grad_blocks_overlap kernels/ops/lora.cu ops:lora_grad \
    'int64_t first = (int64_t)blockIdx.y * chunk,' 'int64_t first = 0,'
mutant lora_parts_in_place kernels/ops/lora.cu ops:lora_down \
    'low += p.rank, element' 'element'
mutant swiglu_bwd_slope kernels/ops/swiglu.cu ops:swiglu_bwd \
    '(1.0f + x[j] * (1.0f - s))' '(1.0f + x[j] * s)'
mutant swiglu_wrong_half kernels/ops/swiglu.cu ops:swiglu \
    'u = group_load<E, plain>(from + F, F - i, whole);
        float x[E], y[E];' 'u = group_load<E, plain>(from, F - i, whole);
        float x[E], y[E];'

# ---- products --------------------------------------------------------------------------------------------------------
mutant matmul_counter_left 'kernels/gpu/chunks.cuh>kernels/ops/matmul.cu' matmul \
    'if (thread == 0) *arrived = 0;' ''
mutant matmul_last_block_no_barrier 'kernels/gpu/chunks.cuh>kernels/ops/matmul.cu' matmul \
    '    barrier();
    if (*before != (unsigned)chunks - 1) return false;' '    if (*before != (unsigned)chunks - 1) return false;'
mutant matmul_swiglu_halves kernels/ops/matmul.cu matmul/swiglu \
    'w + (up ? all + row : row) * K' 'w + (first_w + i) * K'
mutant matmul_swiglu_up_in_place 'kernels/gpu/outputs.cuh>kernels/ops/matmul.cu' matmul \
    'to.y + row * N + width + column' 'to.y + row * N + column'
mutant tile_early_weights_twice 'kernels/gpu/tile.cuh>kernels/ops/matmul.cu' matmul \
    'any, k_begin + s * STEP, k_end' 'any, k_begin, k_end'
mutant tile_waits_too_little 'kernels/gpu/tile.cuh>kernels/ops/matmul.cu' ops:matmul \
    'cp_async_wait<Tile::STAGES - 2>();' 'cp_async_wait<Tile::STAGES - 1>();'
mutant tile_one_long_chunk 'kernels/gpu/tile.cuh>kernels/ops/matmul.cu' matmul \
    '(step % (K_CHUNK<T> / STEP) == 0 || step == steps)' '(step == steps)'
mutant tile_swizzle_differs 'kernels/gpu/tile.cuh>kernels/ops/matmul.cu' ops:matmul \
    '(lane / 8 % 2 ^ swizzle) * 16' '(lane / 8 % 2) * 16'
mutant norm_matmul_sum_of_none kernels/ops/norm_matmul.cu matmul/norm \
    'r % gridDim.x == blockIdx.x' 'r == -1'
mutant norm_matmul_norm_of_x kernels/ops/norm_matmul.cu matmul/norm \
    'if (pack < end) *place(r, pack) = v[s][i];' 'if (pack < end) *place(r, pack) = load(in.x + (int64_t)(first + r) * in.K, pack, r < left);'
mutant norm_matmul_lanes_over_strips kernels/ops/norm_matmul.cu matmul/norm \
    'squares[i] += warp_sum(group_squares<E>(0, v[s][i]));' 'squares[i] = warp_sum(group_squares<E>(squares[i] / WARP, v[s][i]));'
mutant norm_matmul_reads_past_row kernels/ops/norm_matmul.cu matmul/norm \
    'there && pack * E < in.K ?' 'there ?'
mutant norm_matmul_first_tokens_again kernels/ops/norm_matmul.cu matmul/norm \
    '(int)blockIdx.y * Tile::X' '0 * (int)blockIdx.y'
mutant norm_matmul_norms_for_long kernels/ops/norm_matmul.cu matmul/norm \
    'Tile::X * K > NORMED)' 'Tile::X * K < 0 * NORMED)'
mutant norm_matmul_second_wave kernels/ops/norm_matmul.cu matmul/norm \
    'w_tiles * x_tiles) < w_tiles * x_tiles)' 'w_tiles) < w_tiles)'
mutant norm_matmul_keeps_no_gate kernels/ops/norm_matmul.cu matmul/norm \
    '{data_of<Bf16>(y), data_of<Bf16>(h), false}' '{GATED ? NULL : data_of<Bf16>(y), data_of<Bf16>(h), false}'
mutant norm_matmul_row_beside kernels/ops/norm_matmul.cu matmul/norm \
    '*place(r, pack) = group_normed' '*place(r ^ 1, pack) = group_normed'
mutant tile_tokens_go_on 'kernels/gpu/tile.cuh>kernels/ops/norm_matmul.cu' matmul/norm \
    'tokens = tokens == end ? first : tokens' 'tokens'
mutant hopper_one_long_chunk 'kernels/gpu/hopper_tile.cuh>kernels/ops/matmul_hopper.cu' matmul/hopper \
    'Tile::CHUNKS && step + CHUNK_STEPS < last ? step + CHUNK_STEPS : last' 'last + 0 * CHUNK_STEPS'
mutant hopper_early_weights_twice 'kernels/gpu/hopper_tile.cuh>kernels/ops/matmul_hopper.cu' matmul/hopper \
    'copy_w(i, first.w, first.begin + i);' 'copy_w(i, first.w, first.begin);'
mutant hopper_up_is_gate 'kernels/gpu/hopper_tile.cuh>kernels/ops/matmul_hopper.cu' matmul/hopper \
    'w, row + apart, step' 'w, row, step'
mutant hopper_rest_of_a_row 'kernels/gpu/hopper_tile.cuh>kernels/ops/matmul_hopper.cu' matmul/hopper \
    'pack_bf16(sum[j], sum[j + 1]);' 'pack_bf16(sum[j + 1], sum[j]);'
mutant hopper_counts_of_one_group kernels/ops/matmul_hopper.cu matmul/hopper \
    'split.arrived + half' 'split.arrived + at.tile'
mutant hopper_pieces_from_the_start kernels/ops/matmul_hopper.cu matmul/hopper \
    'at.begin = at.chunk * CHUNK_STEPS,' 'at.begin = 0,'
mutant hopper_gate_not_rounded kernels/ops/matmul_hopper.cu matmul/hopper \
    'gated(to_float(from_float<U>(sum[j])),' 'gated(sum[j],'
mutant hopper_frees_the_stage_in_use 'kernels/gpu/hopper_tile.cuh>kernels/ops/matmul_hopper.cu' matmul/hopper \
    'mbarrier_arrive(empty + before);
                before = slot;' 'mbarrier_arrive(empty + slot);
                before = slot;'
mutant hopper_overwrites_stages 'kernels/gpu/hopper_tile.cuh>kernels/ops/matmul_hopper.cu' matmul/hopper \
    'mbarrier_wait(empty + slot, phase ^ 1);' ''
mutant hopper_phase 'kernels/gpu/hopper_tile.cuh>kernels/ops/matmul_hopper.cu' matmul/hopper \
    'if (++slot == STAGES) slot = 0, phase ^= 1;' 'if (++slot == STAGES) slot = 0;'
mutant hopper_quad_pairs 'kernels/gpu/hopper_tile.cuh>kernels/ops/matmul_hopper.cu' matmul/hopper \
    'if (odd) v[0] = a, v[2] = b;' 'if (odd) v[0] = b, v[2] = a;'
mutant hopper_trusts_the_card 'kernels/gpu/hopper_check.cuh>kernels/ops/matmul_hopper.cu' matmul/hopper \
    'return !d->error[0] && !count;' 'return !d->error[0];'
mutant matmul_bwd_set kernels/gpu/product.cu ops:matmul_bwd \
    'beta = add ? 1 : 0' 'beta = 0'
mutant product_hopper_first_part_lost kernels/ops/matmul_bwd_hopper.cu matmul/gradients_ \
    'for (int p = 0; p < parts; p++,' 'for (int p = 1; p < parts; p++,'
mutant product_hopper_counts_on kernels/ops/matmul_bwd_hopper.cu matmul/gradients_ \
    'if (threadIdx.x % WARP == 0) *arrived = 0;' ''
mutant product_hopper_any_rest kernels/ops/matmul_bwd_hopper.cu matmul/gradients_ \
    'arrived + at.rest * WARPS' 'arrived + 0 * WARPS'
mutant product_hopper_one_box 'kernels/gpu/hopper_tile.cuh>kernels/ops/matmul_bwd_hopper.cu' matmul/gradients_ \
    'step * BOX_COLUMNS, row + i * 64, b)' 'step * BOX_COLUMNS, row, b)'
mutant product_hopper_takes_all kernels/ops/matmul_bwd_hopper.cu matmul/gradients_ \
    'best.floor < RATE * .01 * best.cost' 'best.floor < 0'
mutant product_hopper_keeps_scratch kernels/ops/matmul_bwd_hopper.cu matmul/gradients_ \
    '           ((CudaDevice *)d->backend)->arrived);
    arena_rewind(&d->scratch, mark);' '           ((CudaDevice *)d->backend)->arrived);
    (void)mark;'

# ---- attention -------------------------------------------------------------------------------------------------------
mutant attention_sees_the_next kernels/ops/attention.cu ops:attention \
    'sees[i] = sees_of(min(own + i * 8 + lane / 4, rows - 1));' \
    'sees[i] = sees_of(min(own + i * 8 + lane / 4, rows - 1)) + 1;'
mutant attention_chunk_not_waited_for kernels/ops/attention.cu ops:attention \
    'cp_async_wait<0>();
        __syncthreads(); // this chunk is here' '__syncthreads(); // this chunk is here'
mutant attention_chunk_no_barrier kernels/ops/attention.cu ops:attention \
    '__syncthreads(); // this chunk is here, the one before no longer needed' ''
mutant attention_leaves_the_rest 'kernels/gpu/attention.cuh>kernels/ops/attention.cu' ops:attention \
    'for (int64_t i = (int)threadIdx.x; i < width; i += blockDim.x) y[t * width + i] = from_float<T>(0.0f);' ''
mutant attention_looks_once 'kernels/gpu/attention.cuh>kernels/ops/attention.cu' ops:attention \
    'while (high - low > 1) {' 'if (high - low > 1) {'
mutant softmax_mask_off_by_one 'kernels/gpu/attention.cuh>kernels/ops/attention.cu' ops:attention \
    '>= n[m][i / 2 % 2])' '> n[m][i / 2 % 2])'
mutant merge_forgets_scale 'kernels/gpu/attention.cuh>kernels/ops/attention.cu' ops:attention \
    'fmaf(chunk_l, s.add, *l * s.old)' 'fmaf(chunk_l, s.add, *l)'
mutant hopper_attention_forgets_seams kernels/ops/attention_hopper.cu attention/hopper_ \
    'chunk < w.at.before && w.at.before < chunk + CHUNK' 'chunk > INT32_MAX - 1'
mutant hopper_attention_overwrites_stages kernels/ops/attention_hopper.cu attention/hopper_ \
    'mbarrier_wait(room->empty + ring.slot(), ring.phase() ^ 1);' ''
mutant hopper_attention_overwrites_work kernels/ops/attention_hopper.cu attention/hopper_ \
    'mbarrier_wait(room->taken + works.slot(), works.phase() ^ 1);' ''
mutant hopper_attention_keeps_what_is_odd kernels/ops/attention_hopper.cu attention/hopper_ \
    'if (whole || !__ballot_sync(FULL, odd)) {' 'if (whole || odd || !odd) {'
mutant hopper_attention_masks_by_one_row kernels/ops/attention_hopper.cu attention/hopper_ \
    '!__ballot_sync(FULL, n[0][0] < CHUNK)' '!__ballot_sync(FULL, n[0][1] < CHUNK)'
mutant hopper_attention_ends_early kernels/ops/attention_hopper.cu attention/hopper_ \
    'min(group + 63, last)' 'min(group + 31, last)'
mutant hopper_attention_low_parts_twice kernels/ops/attention_hopper.cu attention/hopper_ \
    'p.high[0][i], v' 'p.low[0][i], v'
mutant hopper_attention_next_queries kernels/ops/attention_hopper.cu attention/hopper_ \
    'room->queries[works.turn % 2][own / 16] + r' 'room->queries[0][own / 16] + r'
mutant hopper_attention_reads_the_next_head kernels/ops/attention_hopper.cu attention/hopper_ \
    '&& half + i < h.d;' ';'
mutant hopper_attention_stores_too_many kernels/ops/attention_hopper.cu attention/hopper_ \
    'if (row < w.rows && column < h.d)' 'if (column < h.d)'
mutant hopper_attention_counts_on kernels/ops/attention_hopper.cu attention/hopper_ \
    'next[0] = next[1] = 0;' 'next[0] = 0;'
mutant dq_mask_off_by_one kernels/ops/attention_bwd.cu ops:attention_bwd \
    'ds[0][i / 4][i % 4] = key < sees[half] ? x : 0;' 'ds[0][i / 4][i % 4] = key <= sees[half] ? x : 0;'
mutant dq_forgets_delta kernels/ops/attention_bwd.cu ops:attention_bwd \
    'p * (ds[0][i / 4][i % 4] - row_delta[half])' 'p * (ds[0][i / 4][i % 4] - 0 * row_delta[half])'
mutant dkv_no_barrier kernels/ops/attention_bwd.cu ops:attention_bwd \
    '__syncthreads(); // these rows are here, those before no longer needed' ''
mutant attention_bwd_leaves_the_rest kernels/ops/attention_bwd.cu ops:attention_bwd \
    'for (int64_t t = from + block; t < T_all; t += blocks)' 'for (int64_t t = from + block; t < from; t += blocks)'
mutant rope_decode_value_of_the_cache kernels/ops/decode.cu attention/rope_decode \
    'else if constexpr (Before::ROTATES) {' 'else if constexpr (false) {'
mutant rope_decode_stores_nothing kernels/ops/decode.cu attention/rope_decode \
    'in_group == 0 && place == 0, h)' 'false, h)'
mutant rope_decode_key_of_the_first kernels/ops/decode.cu attention/rope_decode \
    'fresh[second * Tile::FRESH * D + i]' 'fresh[i]'
mutant rope_decode_angle_of_the_first kernels/ops/decode.cu attention/rope_decode \
    'angle[sequence_of(r) * (D / 2) + pair]' 'angle[pair]'
mutant rope_decode_idle_rows_store kernels/ops/decode.cu attention/rope_decode \
    'if (!stores || at < 0) continue;' 'if (!stores) continue;'
mutant rope_decode_queries_as_they_are kernels/ops/decode.cu attention/rope_decode \
    'if (own.q_norm) {' 'if (false) {'
mutant rope_decode_key_of_the_query_norm kernels/ops/decode.cu attention/rope_decode \
    'own.k_norm, h.d' 'own.q_norm, h.d'
mutant rope_decode_bias_of_the_first kernels/ops/decode.cu attention/rope_decode \
    'in_group + r - sequence_of(r) * of_one) * h.d + pair' 'in_group + r) * h.d + pair'
mutant gradients_hopper_sees_the_next 'kernels/gpu/attention_bwd_hopper.cuh>kernels/ops/attention_bwd_hopper.cu' attention_bwd/gradients_by \
    'limit = own ? row + 1 - w.first : keys' 'limit = own ? row + 2 - w.first : keys'
mutant gradients_hopper_others_rows 'kernels/gpu/attention_bwd_hopper.cuh>kernels/ops/attention_bwd_hopper.cu' attention_bwd/gradients_by \
    'if (step.n - row < ROWS) {' 'if (step.n - row < 0) {'
mutant gradients_hopper_others_keys 'kernels/gpu/attention_bwd_hopper.cuh>kernels/ops/attention_bwd_hopper.cu' attention_bwd/gradients_by \
    'if (keys < KEYS) {' 'if (keys < 0) {'
mutant gradients_hopper_one_part 'kernels/gpu/attention_bwd_hopper.cuh>kernels/ops/attention_bwd_hopper.cu' attention_bwd/gradients_by \
    'if (part > 0) {' 'if (part > 1) {'
mutant gradients_hopper_adds_to_nothing 'kernels/gpu/attention_bwd_hopper.cuh>kernels/ops/attention_bwd_hopper.cu' attention_bwd/gradients_by \
    'if (before) bulk_add' 'if (true) bulk_add'
mutant gradients_hopper_prefix_has_no_turn 'kernels/gpu/attention_bwd_hopper.cuh>kernels/ops/attention_bwd_hopper.cu' attention_bwd/gradients_by \
    'if (step.b != w.owner) prefix = -1;' 'prefix = -1;'
mutant gradients_hopper_shortest_first kernels/ops/attention_bwd_hopper.cu attention_bwd/gradients_by \
    'place += length[i] > length[own]' 'place += length[i] < length[own]'
mutant gradients_hopper_half_of_ds 'kernels/gpu/attention_bwd_hopper.cuh>kernels/ops/attention_bwd_hopper.cu' attention_bwd/gradients_by \
    'both_groups();
        float dq[32];' 'float dq[32];'
mutant gradients_hopper_boxes_too_early 'kernels/gpu/attention_bwd_hopper.cuh>kernels/ops/attention_bwd_hopper.cu' attention_bwd/gradients_by \
    'mbarrier_wait(empty + slot, phase ^ 1);
        mbarrier_expect' 'mbarrier_expect'
mutant gradients_hopper_leaves_the_rest kernels/ops/attention_bwd_hopper.cu attention_bwd/gradients_by \
    'i < p.T * packs; i += threads) store_pack' 'i < 0; i += threads) store_pack'
mutant prefix_a_row_late 'kernels/gpu/attention.cuh>kernels/ops/attention.cu' ops:attention \
    'prefix + pos : start' 'prefix + pos + 1 : start'
mutant prefix_seam_off_by_one 'kernels/gpu/attention.cuh>kernels/ops/attention.cu' ops:attention \
    'return pos < before' 'return pos <= before'
mutant prefix_loses_a_key 'kernels/gpu/attention.cuh>kernels/ops/attention_bwd.cu' ops:attention_bwd \
    'before = p < 0 ? 0 : seq[p + 1] - seq[p];' 'before = p < 0 ? 0 : seq[p + 1] - seq[p] - 1;'
mutant dkv_seam_off_by_one kernels/ops/attention_bwd.cu ops:attention_bwd \
    'int pos0 = owner.places.before + key0;' 'int pos0 = owner.places.before + key0 + 1;'
mutant dkv_loses_the_last_sequence kernels/ops/attention_bwd.cu ops:attention_bwd \
    '(prefix && b < B && prefix[b] == of)' '(prefix && b < B - 1 && prefix[b] == of)'
mutant dkv_counts_one_twice kernels/ops/attention_bwd.cu ops:attention_bwd \
    'Rows r = {Places(seq, prefix, b), (int)blockIdx.y, h};
        int rows = min((seq[b + 1] - seq[b])' 'int c = b == tile.b + 2 ? b - 1 : b;
        Rows r = {Places(seq, prefix, c), (int)blockIdx.y, h};
        int rows = min((seq[c + 1] - seq[c])'
mutant dkv_begins_with_the_last kernels/ops/attention_bwd.cu attention \
    'Rows r = {Places(seq, prefix, b), (int)blockIdx.y, h};
        int rows = min((seq[b + 1] - seq[b])' 'int c = tile.b, last = tile.b;
        while (sees_keys(last + 1, tile.b, prefix, B)) last++;
        c = b == tile.b ? b : last + tile.b + 1 - b;
        Rows r = {Places(seq, prefix, c), (int)blockIdx.y, h};
        int rows = min((seq[c + 1] - seq[c])'
mutant decode_suffix_row_shifted kernels/ops/decode.cu ops:decode \
    's.suffix_row - s.prefix_len)' 's.suffix_row)'
mutant decode_keys_not_waited_for kernels/ops/decode.cu ops:decode \
    '            cp_async_wait<1>();
        } else' '        } else'
mutant decode_shares_half_a_chunk kernels/ops/decode.cu attention \
    '? s0.prefix_len / CHUNK : 0' '? (s0.prefix_len + CHUNK - 1) / CHUNK : 0'
mutant decode_takes_the_neighbours_chunks kernels/ops/decode.cu attention \
    '(done >= first_end) == (row >= of_one)' 'done >= shared'
mutant decode_counter_left kernels/ops/decode.cu ops:decode \
    'if (thread == 0) p.arrived[tile()] = 0;' ''

# ---- the head --------------------------------------------------------------------------------------------------------
mutant logprob_entropy_sign 'kernels/gpu/head.cuh>kernels/ops/logprob.cu' ops:logprob_bwd \
    'slope - dentropy' 'slope + dentropy'
mutant logprob_bwd_rows_of_the_first_pass kernels/ops/logprob.cu head \
    'f32(dlogp) + first,' 'f32(dlogp),'
mutant logprob_bwd_last_pass_only kernels/ops/logprob.cu head \
    'F32, stride, D), v > 0, g' 'F32, stride, D), false, g'
mutant logprob_targets_of_the_first_pass kernels/ops/logprob.cu head \
    'Summaries to = {summary, f32(logp) + first, i32(target) + first, n, chunks};' \
    'Summaries to = {summary, f32(logp) + first, i32(target), n, chunks};'
mutant logprob_target_of_other_chunk kernels/ops/logprob.cu ops:logprob \
    'if (y >= 0 && y < len)' 'if (y >= 0)'
mutant head_no_barrier 'kernels/gpu/head.cuh>kernels/ops/logprob.cu' ops:logprob \
    'sum[j] * h.scale : -INFINITY; });
            __syncthreads();' 'sum[j] * h.scale : -INFINITY; });'
mutant head_counts_padding 'kernels/gpu/head.cuh>kernels/ops/logprob.cu' ops:logprob \
    'v < len ? sum[j] * h.scale : -INFINITY' 'sum[j] * h.scale'
mutant head_hopper_counts_padding kernels/ops/head_hopper.cu head/hopper \
    'token_of(i) >= left' 'token_of(i) > left'
mutant head_hopper_two_lanes_of_four kernels/ops/head_hopper.cu head/hopper \
    'apart < 4; apart *= 2' 'apart < 2; apart *= 2'
mutant head_hopper_other_tree kernels/ops/head_hopper.cu head/hopper \
    'quad[i] = z[quad_at(2 * k + e, i)]' 'quad[i] = z[quad_at(k + 4 * e, i)]'
mutant head_hopper_target_of_other_row kernels/ops/head_hopper.cu head/hopper \
    'const int y = target[row] - token;' 'const int y = target[row ^ 1] - token;'
mutant head_hopper_rows_past_the_end kernels/ops/head_hopper.cu head/hopper \
    'if (row >= p.n) return;' ''
mutant head_hopper_gradient_past_the_end kernels/ops/head_hopper.cu head/hopper \
    'row < stride && n < width' 'row < stride'
mutant head_hopper_slope_of_the_first_half kernels/ops/head_hopper.cu head/hopper \
    'slope = slope_of(row)' 'slope = slope_of(at.x + Tile::x_of(0))'
mutant head_hopper_quad_of_two kernels/ops/head_hopper.cu sample/hopper \
    'for (int j = 1; j < EACH / 4; j++)' 'for (int j = 1; j < EACH / 8; j++)'
mutant head_hopper_trusts_the_card kernels/ops/head_hopper.cu head/hopper \
    'return same ? HOPPER_USED : HOPPER_DIFFERS;' 'return same || true ? HOPPER_USED : HOPPER_DIFFERS;'
mutant sample_draws_idle_rows kernels/ops/sample.cu sample \
    'if (key[blockIdx.x] < 0) return; // the whole block' ''
mutant sample_one_number_a_row 'kernels/gpu/draw.cuh>kernels/ops/sample.cu' sample \
    '(uint32_t)(first + id_of(k))' '(uint32_t)id_of(k)'
mutant draw_keeps_the_first_quad 'kernels/gpu/draw.cuh>kernels/ops/sample.cu' sample \
    'if (bound > most) most = bound, at = k;' 'if (bound < most) most = bound, at = k;'
mutant draw_highest_id_of_a_tie 'kernels/gpu/draw.cuh>kernels/ops/sample.cu' sample \
    'id < other_id' 'id > other_id'
mutant sample_entropy_of_one_row kernels/ops/sample.cu sample \
    'to.entropy[n] = l.entropy;' 'to.entropy[0] = l.entropy;'
mutant sample_lse_of_the_first_pass kernels/ops/sample.cu sample \
    'present(out.lse) ? f32(out.lse) + first : NULL' 'f32(out.lse)'
mutant penalty_upside_down 'kernels/gpu/filter.cuh>kernels/ops/sample.cu' sample \
    'z < 0 ? z * r.penalty : z / r.penalty' 'z < 0 ? z / r.penalty : z * r.penalty'
mutant top_k_keeps_one_more 'kernels/gpu/filter.cuh>kernels/ops/sample.cu' sample \
    'uint64_t under = (uint64_t)room->count - (uint64_t)p.top_k;' \
    'uint64_t under = (uint64_t)room->count - (uint64_t)p.top_k - 1;'

# ---- the loss, the optimizer, decode's rows, ranks -------------------------------------------------------------------
mutant grpo_group_stride kernels/ops/grpo_loss.cu grpo \
    '(row - i) * c.n_rewards' 'row - i'
mutant grpo_counts_masked kernels/ops/grpo_loss.cu grpo \
    'bool counts = c.n > 0 && all.mask[b];' 'bool counts = c.n > 0;'
mutant grpo_moments_of_a_lane kernels/ops/grpo_loss.cu grpo \
    'm.n = (int64_t)warp_sum((double)m.n), m.sum = warp_sum(m.sum);' ''
mutant grpo_loses_a_segment kernels/ops/grpo_loss.cu grpo \
    'k < segments; k++) token_join' 'k < segments - 1; k++) token_join'
mutant grpo_counter_left kernels/ops/grpo_loss.cu grpo \
    'all.arrived[b] = 0;' ''
mutant grpo_segments_overlap kernels/ops/grpo_loss.cu grpo \
    'first + SEGMENT < c.n ? first + SEGMENT : c.n;' 'c.n;'
mutant grpo_ratio_no_barrier kernels/ops/grpo_loss.cu grpo \
    '    __syncthreads();
    sum = room[0];' '    sum = room[0];'
mutant grpo_clip_count_of_a_lane kernels/ops/grpo_loss.cu grpo \
    'sum.low | sum.high << 21 | sum.policy_tokens << 42' 'sum.low | sum.policy_tokens << 42'
mutant adamw_moment_set kernels/ops/adamw.cu ops:adamw \
    'fmaf(gradient - m1, s.new1, m1)' 'gradient'
mutant adamw_same_noise_for_two kernels/ops/adamw.cu adamw \
    'int half = element % 2 ? 16 : 0;' 'int half = 0;'
mutant adamw_noise_of_the_slice kernels/ops/adamw.cu adamw \
    'first + (uint64_t)(i + j), pair' '(uint64_t)(i + j), pair'
mutant adamw_split_forgets_it_went_up kernels/ops/adamw.cu adamw \
    'if (home == SPLIT) m2 = signed_by(m2, p);' ''
mutant adamw_split_ties_go_up kernels/ops/adamw.cu adamw \
    'u + 0x7fffu + (u >> 16 & 1u)' 'u + 0x8000u'
mutant fetch_does_not_wait kernels/device/cuda.cu cuda \
    'cuda_failed(d, cudaStreamWaitEvent(c->fetches, c->asked, 0), "waiting for an event") ||' ''
mutant advance_length_off_by_one kernels/ops/advance.cu rollout \
    'r.place >= rule.max_completion' 'r.place > rule.max_completion'
mutant advance_rows_no_barrier kernels/ops/advance.cu rollout \
    'if (lane == 0) going[warp] = __popc(vote);
        __syncthreads();' 'if (lane == 0) going[warp] = __popc(vote);'
mutant advance_entropy_for_lse kernels/ops/advance.cu rollout \
    'to[DRAWN_LSE * c.slots + i] = in.lse[i];' 'to[DRAWN_LSE * c.slots + i] = in.entropy[i];'
mutant advance_entropy_of_another_row kernels/ops/advance.cu rollout \
    'in.entropy[i];' 'in.entropy[0];'
mutant comm_part_of_wrong_rank kernels/comm/comm.cu comm \
    'got[(r - (r > self)) * stride + i]' 'got[(r - (r > 0)) * stride + i]'
mutant comm_sends_the_first_part_again kernels/comm/comm.cu comm \
    'now = {theirs.first + at, theirs.first + at + most};' 'now = {theirs.first, theirs.first + most};'
mutant comm_adds_to_the_first_part kernels/comm/comm.cu comm \
    'Range now = both(own, {own.first + at, own.first + at + most});' 'Range now = both(own, {own.first, own.first + most});'
mutant comm_loses_the_sums_of_others kernels/comm/comm.cu comm \
    'in, place(x, in.first));' 'in, (char *)of(c)->room);'
mutant comm_hands_over_to_the_next kernels/comm/comm.cu comm \
    'both(piece, slice_of(c, all, r))' 'both(piece, slice_of(c, all, (r + 1) % c->world))'
mutant comm_part_before_it_is_final kernels/comm/comm.cu comm \
    '!cuda_failed(n->d, cudaStreamWaitEvent(n->beside, n->final, 0), "waiting for an event")' 'true'
mutant comm_ends_before_its_parts kernels/comm/comm.cu comm \
    'finish(c, name, of(c)->beside, clock_seconds(), e);' 'true;'
