# shellcheck shell=sh
# Mutants of the host's files, as list.sh has those of the kernels. TEST runs on the CPU.

# ---- a group's prompt once, on the host -------------------------------------------------------------------------------
mutant plan_counts_prompts_alone host/learn/shape.c train \
    'int group = c->share_prompts ? (int)c->num_generations : 1,' 'int group = 1,'
mutant plan_shuffles_never host/learn/shape.c train \
    'if (shuffled) return' 'if (false) return'
mutant reference_as_the_steps_are host/train/grpo.c train \
    'grpo_order(t->generation.order, b->n, 1, 0, 0); // groups' 'grpo_order(t->generation.order, b->n, t->generation.steps_per_pass, 1, 0); // groups'
mutant rows_of_rank_0 host/train/grpo.c ranks \
    '!comm_all_reduce(l->engine.comm, "rows", rows, 2, e)' 'false'
mutant groups_cut_where_full host/learn/micro.c train \
    'return 1 + pieces(all - room, size) == pieces(all, size) ? size : taken;' 'return size;'
mutant suffix_begins_at_zero host/learn/micro.c train \
    'add_token(p, ids[j], before + j);' 'add_token(p, ids[j], j);'
mutant suffix_has_no_prefix host/learn/micro.c train \
    'end_part(p, p->shared);' 'end_part(p, -1);'
mutant scored_a_row_early host/learn/micro.c train \
    'p->rows[p->N] = (int32_t)p->T - 1;' 'p->rows[p->N] = (int32_t)p->T - (p->T > 1 ? 2 : 1);'
mutant groups_of_one_apart host/train/grpo.c train \
    'c->share_prompts ? b->group : 1' 'c->share_prompts ? b->group / 2 : 1'

# ---- gradients over ranks while the backward pass goes on ---------------------------------------------------------------
mutant embedding_told_early models/transformer.c model \
    'if (present(grad->embedding)) d->embed_bwd(' 'tell(told, -1), told = NULL; if (present(grad->embedding)) d->embed_bwd('
mutant layers_run_into_each_other models/model.c model \
    's.end = t.params[i].offset;' 's.end = s.end;'
mutant embedding_is_of_the_head models/model.c model \
    '? m->dims.L : -1' '? m->dims.L : m->dims.L'
mutant first_micro_batch_for_the_last host/train/grpo.c overlap \
    'at + count == own.end' 'at == own.first'
mutant what_does_not_decay_stays host/learn/optim.c overlap \
    '(layer >= 0 || reduce_span' '(true || reduce_span'
mutant parts_within_the_pass_alone host/learn/optim.c overlap \
    'while (ok && l->reduced < l->grad.dims.L + 2)' 'while (ok && l->reduced && l->reduced < l->grad.dims.L + 2)'
