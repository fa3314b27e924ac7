"""Milliseconds of a whole GRPO step of TRL's own GRPOTrainer on the CPU: trl_step.py step; trl_step.py lora: of an adapter, with PEFT.

The benchmark's shapes, prompts, lengths and number of completions; random weights, a reward of the text's length, no reference,
no activation checkpointing. Of every shape the faster of what TRL offers here: f32, and all in bf16. Of the adapter the most memory
of the process, too.
"""
import os
import resource
import statistics
import sys
import tempfile
import time

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
try:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
except ImportError as missing:
    print(f"SKIP python3 has no {missing.name}")
    sys.exit(0)
from torch_cpu import qwen2, row

PROMPT, LENGTH, GROUP = 205, 32, 8  # tokens of the benchmark's questions with their template, tokens, completions


class Clock(TrainerCallback):
    """Seconds from one step's end to the next one's."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def step(shape, dtype, label, prompts, steps, adapter=None):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file="models/tiny/tokenizer.json", eos_token="<|endoftext|>",
                                        pad_token="<|endoftext|>")
    text = tokenizer.decode(torch.randint(300, 400, (PROMPT,), generator=torch.Generator().manual_seed(1)).tolist())
    text = tokenizer.decode(tokenizer(text).input_ids[:PROMPT])
    model = qwen2(shape, dtype)
    model.generation_config.pad_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(output_dir=out, use_cpu=True, bf16=False, fp16=False, report_to="none", save_strategy="no",
                            logging_strategy="no", disable_tqdm=True, max_steps=steps + 1, learning_rate=1e-6, beta=0.0,
                            per_device_train_batch_size=GROUP * prompts, num_generations=GROUP,
                            max_completion_length=LENGTH, temperature=0.9, gradient_checkpointing=False,
                            generation_kwargs={"min_new_tokens": LENGTH})
        trainer = GRPOTrainer(model=model, reward_funcs=lambda completions, **_: [float(len(c)) for c in completions],
                              args=config, processing_class=tokenizer, callbacks=[clock], peft_config=adapter,
                              train_dataset=Dataset.from_list([{"prompt": text}] * GROUP * prompts))
        trainer.train()
    times = [b - a for a, b in zip(clock.ends, clock.ends[1:])]
    name = f"GRPO step {shape}, {prompts} x {GROUP} completions of {LENGTH} tokens, {label}"
    row(name, statistics.median(times) * 1e3)
    if adapter:
        row(f"peak memory, {name}", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20))


def main():
    step("tiny", torch.float32, "f32", 8, 8)
    step("tiny", torch.bfloat16, "bf16", 8, 8)
    step("0.5B", torch.bfloat16, "bf16", 1, 2)


def lora():
    try:
        from peft import LoraConfig
    except ImportError:
        print("SKIP python3 has no peft")
        sys.exit(0)
    step("0.5B", torch.bfloat16, "bf16, lora_r = 16", 1, 2,
         LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


if __name__ == "__main__":
    torch.manual_seed(1)
    {"step": main, "lora": lora}[sys.argv[1]]()
