// Every field of TRL 1.16's GRPOConfig, some of earlier versions and of TRL's scripts, and what each is here.
//
//   ROW(source, field, default, how, ours, words)
//
// default: TRL's own, as text, null for None. ours: our option; words: what becomes of the value, why the field is not
// needed, or what to use instead. tools/check_trl.py compares the list with the class itself.
#pragma once

// clang-format off
#define TRL_FIELDS(ROW) \
    ROW(CONFIG,  output_dir,                                  "null",                TURNED,   "output_dir",                  "not set: trainer_output") \
    ROW(CONFIG,  per_device_train_batch_size,                 "8",                   SAME,     "per_device_train_batch_size", "") \
    ROW(CONFIG,  num_train_epochs,                            "3.0",                 SAME,     "num_train_epochs",            "") \
    ROW(CONFIG,  max_steps,                                   "-1",                  TURNED,   "max_steps",                   "-1 is 0 here") \
    ROW(CONFIG,  learning_rate,                               "1e-06",               SAME,     "learning_rate",               "") \
    ROW(CONFIG,  lr_scheduler_type,                           "linear",              TURNED,   "lr_scheduler_type",           "cosine, linear, constant; constant_with_warmup is constant") \
    ROW(CONFIG,  lr_scheduler_kwargs,                         "null",                ABSENT,   "",                            "the schedules have no parameters but the warm-up") \
    ROW(CONFIG,  warmup_steps,                                "0",                   TURNED,   "warmup_steps",                "below 1 a share: warmup_ratio") \
    ROW(CONFIG,  optim,                                       "adamw_torch_fused",   TURNED,   "",                            "AdamW is the one optimizer; optim_dtype chooses its state") \
    ROW(CONFIG,  optim_args,                                  "null",                ABSENT,   "",                            "AdamW is the one optimizer; adam_beta1, adam_beta2 and adam_epsilon are its parameters") \
    ROW(CONFIG,  weight_decay,                                "0.0",                 SAME,     "weight_decay",                "") \
    ROW(CONFIG,  adam_beta1,                                  "0.9",                 SAME,     "adam_beta1",                  "") \
    ROW(CONFIG,  adam_beta2,                                  "0.999",               SAME,     "adam_beta2",                  "") \
    ROW(CONFIG,  adam_epsilon,                                "1e-08",               SAME,     "adam_epsilon",                "") \
    ROW(CONFIG,  optim_target_modules,                        "null",                ABSENT,   "",                            "AdamW takes all parameters") \
    ROW(CONFIG,  gradient_accumulation_steps,                 "1",                   SAME,     "gradient_accumulation_steps", "") \
    ROW(CONFIG,  average_tokens_across_devices,               "true",                NEEDLESS, "",                            "losses are always normalised over all ranks") \
    ROW(CONFIG,  max_grad_norm,                               "1.0",                 SAME,     "max_grad_norm",               "") \
    ROW(CONFIG,  label_smoothing_factor,                      "0.0",                 NEEDLESS, "",                            "GRPO has no labels to smooth") \
    ROW(CONFIG,  bf16,                                        "null",                TURNED,   "dtype",                       "not set or true: bf16; false: f32") \
    ROW(CONFIG,  fp16,                                        "false",               ABSENT,   "",                            "dtype is bf16 or f32") \
    ROW(CONFIG,  bf16_full_eval,                              "false",               NEEDLESS, "",                            "evaluation computes as training does") \
    ROW(CONFIG,  fp16_full_eval,                              "false",               NEEDLESS, "",                            "evaluation computes as training does") \
    ROW(CONFIG,  tf32,                                        "null",                NEEDLESS, "",                            "arithmetic is f32, never TF32") \
    ROW(CONFIG,  activation_checkpointing,                    "null",                ABSENT,   "",                            "gradient_checkpointing, or recompute for norms and SwiGLU alone") \
    ROW(CONFIG,  activation_checkpointing_kwargs,             "null",                ABSENT,   "",                            "gradient_checkpointing has no parameters") \
    ROW(CONFIG,  gradient_checkpointing,                      "true",                SAME,     "gradient_checkpointing",      "") \
    ROW(CONFIG,  gradient_checkpointing_kwargs,               "null",                ABSENT,   "",                            "gradient_checkpointing has no parameters") \
    ROW(CONFIG,  torch_compile,                               "false",               NEEDLESS, "",                            "the kernels are compiled by the build") \
    ROW(CONFIG,  torch_compile_backend,                       "null",                NEEDLESS, "",                            "the kernels are compiled by the build") \
    ROW(CONFIG,  torch_compile_mode,                          "null",                NEEDLESS, "",                            "the kernels are compiled by the build") \
    ROW(CONFIG,  use_liger_kernel,                            "false",               NEEDLESS, "",                            "the kernels are fused") \
    ROW(CONFIG,  liger_kernel_config,                         "null",                NEEDLESS, "",                            "the kernels are fused") \
    ROW(CONFIG,  use_cache,                                   "false",               NEEDLESS, "",                            "sampling always has its cache, training never") \
    ROW(CONFIG,  neftune_noise_alpha,                         "null",                ABSENT,   "",                            "there is no noise on embeddings") \
    ROW(CONFIG,  torch_empty_cache_steps,                     "null",                NEEDLESS, "",                            "memory is planned before the run and never freed in it") \
    ROW(CONFIG,  auto_find_batch_size,                        "false",               NEEDLESS, "",                            "`grpo plan` says what fits; TRL refuses it for GRPO") \
    ROW(CONFIG,  logging_strategy,                            "steps",               TURNED,   "logging_steps",               "steps; no and epoch are not there") \
    ROW(CONFIG,  logging_steps,                               "10",                  TURNED,   "logging_steps",               "whole steps") \
    ROW(CONFIG,  logging_first_step,                          "false",               NEEDLESS, "",                            "the first step is logged where logging_steps is 1") \
    ROW(CONFIG,  log_on_each_node,                            "true",                NEEDLESS, "",                            "rank 0 logs") \
    ROW(CONFIG,  logging_nan_inf_filter,                      "true",                NEEDLESS, "",                            "a step that is not finite is skipped and logged as skipped") \
    ROW(CONFIG,  include_num_input_tokens_seen,               "no",                  NEEDLESS, "",                            "num_tokens is always logged") \
    ROW(CONFIG,  log_level,                                   "passive",             NEEDLESS, "",                            "progress says how much is shown") \
    ROW(CONFIG,  log_level_replica,                           "warning",             NEEDLESS, "",                            "rank 0 speaks") \
    ROW(CONFIG,  disable_tqdm,                                "null",                NEEDLESS, "",                            "progress says what is shown") \
    ROW(CONFIG,  report_to,                                   "none",                TURNED,   "report_to",                   "tensorboard; of other trackers none is there, and report.html is written anyway") \
    ROW(CONFIG,  run_name,                                    "null",                NEEDLESS, "",                            "output_dir names a run") \
    ROW(CONFIG,  project,                                     "huggingface",         NEEDLESS, "",                            "output_dir names a run") \
    ROW(CONFIG,  trackio_space_id,                            "null",                NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  trackio_bucket_id,                           "null",                NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  trackio_static_space_id,                     "null",                NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  eval_strategy,                               "no",                  TURNED,   "",                            "write eval_file, the test split as JSONL, and eval_steps") \
    ROW(CONFIG,  eval_steps,                                  "null",                TURNED,   "",                            "counts where eval_strategy is steps") \
    ROW(CONFIG,  eval_delay,                                  "0",                   ABSENT,   "",                            "evaluations begin after eval_steps") \
    ROW(CONFIG,  per_device_eval_batch_size,                  "8",                   NEEDLESS, "",                            "rollout_batch sequences are sampled at a time") \
    ROW(CONFIG,  prediction_loss_only,                        "false",               NEEDLESS, "",                            "an evaluation is of answers") \
    ROW(CONFIG,  eval_on_start,                               "false",               ABSENT,   "",                            "run `grpo eval` on the model before training") \
    ROW(CONFIG,  eval_do_concat_batches,                      "true",                NEEDLESS, "",                            "an evaluation is of answers") \
    ROW(CONFIG,  eval_use_gather_object,                      "false",               NEEDLESS, "",                            "an evaluation is of answers") \
    ROW(CONFIG,  eval_accumulation_steps,                     "null",                NEEDLESS, "",                            "an evaluation is of answers") \
    ROW(CONFIG,  include_for_metrics,                         "[]",                  NEEDLESS, "",                            "an evaluation is of answers") \
    ROW(CONFIG,  batch_eval_metrics,                          "false",               NEEDLESS, "",                            "an evaluation is of answers") \
    ROW(CONFIG,  save_only_model,                             "false",               ABSENT,   "",                            "checkpoints hold what a resume needs; their top is the model") \
    ROW(CONFIG,  save_strategy,                               "steps",               TURNED,   "save_steps",                  "no is 0; steps; epoch and best are not there") \
    ROW(CONFIG,  save_steps,                                  "500",                 TURNED,   "save_steps",                  "whole steps") \
    ROW(CONFIG,  save_on_each_node,                           "false",               NEEDLESS, "",                            "all ranks see one output_dir") \
    ROW(CONFIG,  save_total_limit,                            "null",                TURNED,   "save_total_limit",            "not set: 1000000") \
    ROW(CONFIG,  enable_jit_checkpoint,                       "false",               NEEDLESS, "",                            "SIGTERM always saves") \
    ROW(CONFIG,  push_to_hub,                                 "false",               NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  hub_token,                                   "null",                NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  hub_private_repo,                            "null",                NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  hub_model_id,                                "null",                NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  hub_strategy,                                "every_save",          NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  hub_always_push,                             "false",               NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  hub_revision,                                "null",                NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  load_best_model_at_end,                      "false",               ABSENT,   "",                            "compare eval/accuracy in metrics.jsonl and take that step_N") \
    ROW(CONFIG,  metric_for_best_model,                       "null",                ABSENT,   "",                            "compare eval/accuracy in metrics.jsonl") \
    ROW(CONFIG,  greater_is_better,                           "null",                ABSENT,   "",                            "compare eval/accuracy in metrics.jsonl") \
    ROW(CONFIG,  ignore_data_skip,                            "false",               NEEDLESS, "",                            "a resumed run goes on at its question") \
    ROW(CONFIG,  restore_callback_states_from_checkpoint,     "false",               NEEDLESS, "",                            "there are no callbacks") \
    ROW(CONFIG,  full_determinism,                            "false",               NEEDLESS, "",                            "a run is always a function of its seed") \
    ROW(CONFIG,  seed,                                        "42",                  SAME,     "seed",                        "") \
    ROW(CONFIG,  data_seed,                                   "null",                ABSENT,   "",                            "seed decides the order of questions too") \
    ROW(CONFIG,  use_cpu,                                     "false",               TURNED,   "device",                      "true: cpu") \
    ROW(CONFIG,  accelerator_config,                          "null",                NEEDLESS, "",                            "one process and no framework: there is nothing to set") \
    ROW(CONFIG,  parallelism_config,                          "null",                ABSENT,   "",                            "ranks share the data, nothing else") \
    ROW(CONFIG,  dataloader_drop_last,                        "false",               NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  dataloader_num_workers,                      "0",                   NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  dataloader_pin_memory,                       "true",                NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  dataloader_persistent_workers,               "false",               NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  dataloader_prefetch_factor,                  "null",                NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  dataloader_multiprocessing_context,          "null",                NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  dataloader_in_order,                         "true",                NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  remove_unused_columns,                       "false",               NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  label_names,                                 "null",                NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  train_sampling_strategy,                     "random",              ABSENT,   "",                            "questions come at random, or in the order of the file with shuffle=false") \
    ROW(CONFIG,  length_column_name,                          "length",              NEEDLESS, "",                            "questions are read by the trainer itself") \
    ROW(CONFIG,  ddp_find_unused_parameters,                  "null",                NEEDLESS, "",                            "gradients are reduced in fixed chunks") \
    ROW(CONFIG,  ddp_bucket_cap_mb,                           "null",                NEEDLESS, "",                            "gradients are reduced in fixed chunks") \
    ROW(CONFIG,  ddp_broadcast_buffers,                       "null",                NEEDLESS, "",                            "gradients are reduced in fixed chunks") \
    ROW(CONFIG,  ddp_static_graph,                            "null",                NEEDLESS, "",                            "gradients are reduced in fixed chunks") \
    ROW(CONFIG,  ddp_backend,                                 "null",                NEEDLESS, "",                            "NCCL on GPUs, shared memory on CPUs") \
    ROW(CONFIG,  ddp_timeout,                                 "1800",                NAMED,    "comm_timeout",                "") \
    ROW(CONFIG,  fsdp,                                        "null",                ABSENT,   "",                            "optimizer state is divided among ranks, weights are not") \
    ROW(CONFIG,  fsdp_config,                                 "null",                ABSENT,   "",                            "optimizer state is divided among ranks, weights are not") \
    ROW(CONFIG,  deepspeed,                                   "null",                ABSENT,   "",                            "optimizer state is divided among ranks as by ZeRO stage 1") \
    ROW(CONFIG,  debug,                                       "",                    NEEDLESS, "",                            "one process and no framework: there is nothing to set") \
    ROW(CONFIG,  skip_memory_metrics,                         "true",                NEEDLESS, "",                            "`grpo plan` says what memory a run takes") \
    ROW(CONFIG,  do_train,                                    "false",               NEEDLESS, "",                            "the command says what is done") \
    ROW(CONFIG,  do_eval,                                     "false",               NEEDLESS, "",                            "the command says what is done") \
    ROW(CONFIG,  do_predict,                                  "false",               NEEDLESS, "",                            "the command says what is done") \
    ROW(CONFIG,  resume_from_checkpoint,                      "null",                NEEDLESS, "",                            "the same command goes on: resume") \
    ROW(CONFIG,  local_rank,                                  "-1",                  NEEDLESS, "",                            "the launcher says it") \
    ROW(CONFIG,  model_init_kwargs,                           "null",                ABSENT,   "",                            "model, dtype and load say how a model is read") \
    ROW(CONFIG,  trust_remote_code,                           "false",               NEEDLESS, "",                            "no code is ever loaded with a model") \
    ROW(CONFIG,  router_aux_loss_coef,                        "null",                ABSENT,   "",                            "there are no mixtures of experts") \
    ROW(CONFIG,  disable_dropout,                             "false",               NEEDLESS, "",                            "there is no dropout") \
    ROW(CONFIG,  cast_lm_head_to_fp32,                        "false",               NEEDLESS, "",                            "logits are f32 sums of products") \
    ROW(CONFIG,  num_generations,                             "8",                   SAME,     "num_generations",             "") \
    ROW(CONFIG,  num_generations_eval,                        "null",                ABSENT,   "",                            "eval_samples completions are taken in an evaluation by `grpo eval`") \
    ROW(CONFIG,  max_completion_length,                       "512",                 SAME,     "max_completion_length",       "") \
    ROW(CONFIG,  ds3_gather_for_generation,                   "true",                NEEDLESS, "",                            "the sampler has the weights") \
    ROW(CONFIG,  shuffle_dataset,                             "true",                NAMED,    "shuffle",                     "") \
    ROW(CONFIG,  pad_to_multiple_of,                          "auto",                NEEDLESS, "",                            "sequences are packed, not padded") \
    ROW(CONFIG,  generation_batch_size,                       "null",                TURNED,   "steps_per_generation",        "divided by per_device_train_batch_size; with gpus=N divide by N too") \
    ROW(CONFIG,  steps_per_generation,                        "null",                TURNED,   "steps_per_generation",        "not set: 0") \
    ROW(CONFIG,  temperature,                                 "1.0",                 SAME,     "temperature",                 "") \
    ROW(CONFIG,  top_p,                                       "1.0",                 SAME,     "top_p",                       "") \
    ROW(CONFIG,  top_k,                                       "0",                   TURNED,   "top_k",                       "-1, which is vLLM's all, is 0") \
    ROW(CONFIG,  min_p,                                       "null",                TURNED,   "min_p",                       "not set: 0") \
    ROW(CONFIG,  generation_kwargs,                           "null",                ABSENT,   "",                            "write temperature, top_p, top_k, min_p, repetition_penalty and stop themselves") \
    ROW(CONFIG,  chat_template_kwargs,                        "null",                ABSENT,   "",                            "chat_template chooses a template, which has no parameters") \
    ROW(CONFIG,  repetition_penalty,                          "1.0",                 SAME,     "repetition_penalty",          "") \
    ROW(CONFIG,  cache_implementation,                        "null",                NEEDLESS, "",                            "there is one cache, planned before the run") \
    ROW(CONFIG,  use_vllm,                                    "false",               NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_mode,                                   "colocate",            NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_model_impl,                             "vllm",                NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_enable_sleep_mode,                      "false",               NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_structured_outputs_regex,               "null",                ABSENT,   "",                            "completions are free text; a reward can hold them to a pattern: regex") \
    ROW(CONFIG,  vllm_server_base_url,                        "null",                NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_server_host,                            "0.0.0.0",             NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_server_port,                            "8000",                NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_server_timeout,                         "240.0",               NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_group_port,                             "51216",               NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_gpu_memory_utilization,                 "0.3",                 NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_max_model_length,                       "null",                NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  vllm_tensor_parallel_size,                   "1",                   NEEDLESS, "",                            "no second engine samples: the trainer samples itself") \
    ROW(CONFIG,  beta,                                        "0.0",                 SAME,     "beta",                        "") \
    ROW(CONFIG,  num_iterations,                              "1",                   SAME,     "num_iterations",              "") \
    ROW(CONFIG,  epsilon,                                     "0.2",                 SAME,     "epsilon",                     "") \
    ROW(CONFIG,  delta,                                       "null",                TURNED,   "delta",                       "not set: -1") \
    ROW(CONFIG,  epsilon_high,                                "null",                TURNED,   "epsilon_high",                "not set: -1; for cispo epsilon, as TRL has it") \
    ROW(CONFIG,  sapo_temperature_neg,                        "1.05",                SAME,     "sapo_temperature_neg",        "") \
    ROW(CONFIG,  sapo_temperature_pos,                        "1.0",                 SAME,     "sapo_temperature_pos",        "") \
    ROW(CONFIG,  vespo_k_pos,                                 "2.0",                 SAME,     "vespo_k_pos",                 "") \
    ROW(CONFIG,  vespo_lambda_pos,                            "3.0",                 SAME,     "vespo_lambda_pos",            "") \
    ROW(CONFIG,  vespo_k_neg,                                 "3.0",                 SAME,     "vespo_k_neg",                 "") \
    ROW(CONFIG,  vespo_lambda_neg,                            "2.0",                 SAME,     "vespo_lambda_neg",            "") \
    ROW(CONFIG,  importance_sampling_level,                   "token",               SAME,     "importance_sampling_level",   "") \
    ROW(CONFIG,  reward_weights,                              "null",                TURNED,   "rewards",                     "each reward has its weight: {name: NAME, weight: W}") \
    ROW(CONFIG,  multi_objective_aggregation,                 "sum_then_normalize",  SAME,     "multi_objective_aggregation", "") \
    ROW(CONFIG,  scale_rewards,                               "group",               TURNED,   "scale_rewards",               "true: group; false: none") \
    ROW(CONFIG,  loss_type,                                   "dapo",                SAME,     "loss_type",                   "") \
    ROW(CONFIG,  mask_truncated_completions,                  "false",               SAME,     "mask_truncated_completions",  "") \
    ROW(CONFIG,  sync_ref_model,                              "false",               SAME,     "sync_ref_model",              "") \
    ROW(CONFIG,  ref_model_mixup_alpha,                       "0.6",                 SAME,     "ref_model_mixup_alpha",       "") \
    ROW(CONFIG,  ref_model_sync_steps,                        "512",                 SAME,     "ref_model_sync_steps",        "") \
    ROW(CONFIG,  top_entropy_quantile,                        "1.0",                 SAME,     "top_entropy_quantile",        "") \
    ROW(CONFIG,  entropy_coef,                                "0.0",                 SAME,     "entropy_coef",                "") \
    ROW(CONFIG,  use_adaptive_entropy,                        "false",               SAME,     "use_adaptive_entropy",        "") \
    ROW(CONFIG,  entropy_coef_min,                            "0.0",                 SAME,     "entropy_coef_min",            "") \
    ROW(CONFIG,  entropy_coef_max,                            "1.0",                 SAME,     "entropy_coef_max",            "") \
    ROW(CONFIG,  entropy_coef_delta,                          "0.005",               SAME,     "entropy_coef_delta",          "") \
    ROW(CONFIG,  entropy_target,                              "0.2",                 SAME,     "entropy_target",              "") \
    ROW(CONFIG,  max_tool_calling_iterations,                 "null",                ABSENT,   "",                            "there are no tools in a rollout") \
    ROW(CONFIG,  vllm_importance_sampling_correction,         "true",                NEEDLESS, "",                            "sampled and trained log-probs are one number, so there is nothing to correct") \
    ROW(CONFIG,  vllm_importance_sampling_mode,               "sequence_mask",       NEEDLESS, "",                            "sampled and trained log-probs are one number, so there is nothing to correct") \
    ROW(CONFIG,  vllm_importance_sampling_clip_max,           "3.0",                 NEEDLESS, "",                            "sampled and trained log-probs are one number, so there is nothing to correct") \
    ROW(CONFIG,  vllm_importance_sampling_clip_min,           "null",                NEEDLESS, "",                            "sampled and trained log-probs are one number, so there is nothing to correct") \
    ROW(CONFIG,  off_policy_mask_threshold,                   "null",                TURNED,   "off_policy_mask_threshold",   "not set: -1") \
    ROW(CONFIG,  use_bias_correction_kl,                      "true",                SAME,     "use_bias_correction_kl",      "") \
    ROW(CONFIG,  log_completions,                             "false",               SAME,     "log_completions",             "") \
    ROW(CONFIG,  log_multimodal,                              "true",                NEEDLESS, "",                            "there is text only") \
    ROW(CONFIG,  num_completions_to_print,                    "null",                NEEDLESS, "",                            "completions.jsonl has all of them") \
    ROW(CONFIG,  log_unique_prompts,                          "false",               NEEDLESS, "",                            "completions.jsonl has all of them") \
    ROW(CONFIG,  log_completions_hub_repo,                    "null",                NEEDLESS, "",                            "nothing is uploaded; copy output_dir/step_N") \
    ROW(CONFIG,  use_transformers_continuous_batching,        "false",               NEEDLESS, "",                            "sequences are batched as they come and end") \
    ROW(CONFIG,  transformers_continuous_batching_config,     "null",                NEEDLESS, "",                            "sequences are batched as they come and end") \
    ROW(CONFIG,  use_transformers_paged,                      "false",               NEEDLESS, "",                            "the cache shares its prompts") \
    ROW(CONFIG,  vllm_importance_sampling_cap,                "null",                NEEDLESS, "",                            "sampled and trained log-probs are one number, so there is nothing to correct") \
    ROW(EARLIER, warmup_ratio,                                "0.0",                 SAME,     "warmup_ratio",                "") \
    ROW(EARLIER, max_prompt_length,                           "null",                TURNED,   "max_prompt_length",           "not set, as in 1.16: no prompt is cut; a longer one than 2048 tokens stops the run") \
    ROW(EARLIER, use_liger_loss,                              "false",               NEEDLESS, "",                            "the kernels are fused") \
    ROW(EARLIER, logging_dir,                                 "null",                NEEDLESS, "",                            "logs go to output_dir") \
    ROW(EARLIER, overwrite_output_dir,                        "false",               NEEDLESS, "",                            "a run goes on where it was; choose another output_dir") \
    ROW(EARLIER, save_safetensors,                            "true",                NEEDLESS, "",                            "checkpoints are always safetensors") \
    ROW(EARLIER, torch_dtype,                                 "null",                ABSENT,   "",                            "dtype is bf16 or f32") \
    ROW(SCRIPT,  model_name_or_path,                          "null",                NAMED,    "model",                       "") \
    ROW(SCRIPT,  dtype,                                       "float32",             ABSENT,   "",                            "bf16 decides the storage: dtype; arithmetic is f32") \
    ROW(SCRIPT,  model_revision,                              "main",                ABSENT,   "",                            "model is a directory: download the revision") \
    ROW(SCRIPT,  attn_implementation,                         "null",                NEEDLESS, "",                            "there is one attention") \
    ROW(SCRIPT,  dataset_name,                                "null",                ABSENT,   "",                            "train_file is a JSONL file: question_field and answer_field name its fields") \
    ROW(SCRIPT,  dataset_config,                              "null",                ABSENT,   "",                            "train_file is a JSONL file") \
    ROW(SCRIPT,  dataset_train_split,                         "train",               ABSENT,   "",                            "train_file is the training split as JSONL") \
    ROW(SCRIPT,  dataset_test_split,                          "test",                ABSENT,   "",                            "eval_file is the test split as JSONL") \
    ROW(SCRIPT,  dataset_streaming,                           "false",               NEEDLESS, "",                            "train_file is read as it is needed") \
    ROW(SCRIPT,  reward_funcs,                                "null",                TURNED,   "rewards",                     "names that `grpo reward --list` knows, with or without _reward") \
    ROW(SCRIPT,  reward_model_name_or_path,                   "null",                ABSENT,   "",                            "list it in rewards: {name: reward_model, model: DIRECTORY}") \
    ROW(SCRIPT,  use_peft,                                    "false",               TURNED,   "lora_r",                      "true: the fields of lora_ count; else there is no adapter") \
    ROW(SCRIPT,  lora_r,                                      "16",                  TURNED,   "lora_r",                      "where use_peft is true") \
    ROW(SCRIPT,  lora_alpha,                                  "32",                  TURNED,   "lora_alpha",                  "where use_peft is true") \
    ROW(SCRIPT,  lora_dropout,                                "0.05",                TURNED,   "",                            "there is none: a token's log-prob in training would not be the one it was sampled with") \
    ROW(SCRIPT,  lora_target_modules,                         "null",                TURNED,   "lora_target",                 "not set: q_proj and v_proj, PEFT's for these families") \
    ROW(SCRIPT,  lora_target_parameters,                      "null",                ABSENT,   "",                            "an adapter stands on projections alone") \
    ROW(SCRIPT,  lora_modules_to_save,                        "null",                ABSENT,   "",                            "an adapter stands on projections alone") \
    ROW(SCRIPT,  lora_task_type,                              "CAUSAL_LM",           ABSENT,   "",                            "the command decides it: reward_model a classifier's, others a causal model's") \
    ROW(SCRIPT,  use_rslora,                                  "false",               TURNED,   "use_rslora",                  "where use_peft is true") \
    ROW(SCRIPT,  use_dora,                                    "false",               ABSENT,   "",                            "an adapter is W x + s B (A x), W as it is") \
    ROW(SCRIPT,  load_in_8bit,                                "false",               ABSENT,   "",                            "weights are bf16 or f32: dtype") \
    ROW(SCRIPT,  load_in_4bit,                                "false",               ABSENT,   "",                            "weights are bf16 or f32: dtype")
// clang-format on
