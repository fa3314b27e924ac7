"""HF generate on a GPU: milliseconds a decode step, sampled, at context 400: hf_generate.py decode.

Once as it comes, and once with a static cache, for which transformers compiles the step; the faster one is the peer.
"""
import sys
import time

from torch_cuda import TRIAL, DEVICE, on_device, row, sync, torch


def generate(model, ids, new, cache):
    """Seconds of drawing `new` tokens, every one of them asked for."""
    sync()
    start = time.perf_counter()
    model.generate(ids, do_sample=True, temperature=0.9, top_k=0, top_p=1.0, min_new_tokens=new, max_new_tokens=new,
                   pad_token_id=0, attention_mask=torch.ones_like(ids), cache_implementation=cache)
    sync()
    return time.perf_counter() - start


def decode():
    model = on_device("0.5B").eval()
    length, prompt = (5, 8) if TRIAL else (65, 368)
    for b in (2,) if TRIAL else (8, 64, 256):
        ids = torch.randint(model.config.vocab_size, (1, prompt), device=DEVICE).expand(b, -1).contiguous()
        best = None
        for cache, name in ((None, "eager"), ("static", "static cache, compiled")):
            for _ in range(2):
                generate(model, ids, length, cache)
            # The prompt and the first token are in both times: their difference is decode steps alone.
            step = (generate(model, ids, length, cache) - generate(model, ids, 1, cache)) / (length - 1) * 1e3
            print(f"NOTE HF generate, {name}, B = {b}: {step:.4g} ms a step", flush=True)
            best = step if best is None else min(best, step)
        row(f"decode step 0.5B, B = {b}, context 400", best)


if __name__ == "__main__":
    torch.manual_seed(1)
    with torch.no_grad():
        {"decode": decode}[sys.argv[1]]()
