"""A plain GRPO step in PyTorch and HF on a GPU, as its textbook loop: generate, score the old log-probs, train, AdamW.

Milliseconds of a step of 4 x 8 completions of 200 tokens, no reference, rewards at random: grpo_torch.py step.
"""
import sys

from torch_cuda import TRIAL, DEVICE, on_device, row, seconds, torch

PROMPTS, GROUP, MICRO, PROMPT, LENGTH = (1, 2, 2, 8, 4) if TRIAL else (4, 8, 8, 100, 200)


def log_probs(model, ids):
    """Of the completion's tokens, [rows, LENGTH]."""
    logits = model(ids, use_cache=False).logits[:, PROMPT - 1:-1].float()
    return torch.log_softmax(logits, -1).gather(-1, ids[:, PROMPT:, None])[..., 0]


def step_fn(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=not TRIAL)

    def step(_):
        prompts = torch.randint(model.config.vocab_size, (PROMPTS, PROMPT), device=DEVICE).repeat_interleave(GROUP, 0)
        with torch.no_grad():
            ids = model.generate(prompts, do_sample=True, temperature=0.9, top_k=0, top_p=1.0, min_new_tokens=LENGTH,
                                 max_new_tokens=LENGTH, pad_token_id=0, attention_mask=torch.ones_like(prompts))
            old = torch.cat([log_probs(model, rows) for rows in ids.split(MICRO)])
        rewards = torch.rand(PROMPTS, GROUP, device=DEVICE)
        advantages = ((rewards - rewards.mean(1, True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
        for rows, before, a in zip(ids.split(MICRO), old.split(MICRO), advantages.split(MICRO)):
            with torch.enable_grad():
                ratio = torch.exp(log_probs(model, rows) - before)
                clipped = ratio.clamp(0.8, 1.2)
                loss = -torch.minimum(ratio * a[:, None], clipped * a[:, None]).mean(1).sum() / (PROMPTS * GROUP)
                loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main():
    model = on_device("0.5B")
    row("GRPO step 0.5B, 4 x 8 completions", seconds(step_fn(model)) * 1e3)


if __name__ == "__main__":
    torch.manual_seed(1)
    {"step": main}[sys.argv[1]]()
