"""HF tokenizers on the benchmark's texts: hf_tokenizers.py encode prints "name<TAB>MiB/s" of one thread."""
import json
import os
import statistics
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
try:
    import tokenizers
except ImportError:
    print("SKIP python3 has no tokenizers")
    sys.exit(0)

root = os.environ.get("GRPO_DATA", "../shared/data")
try:
    tokenizer = tokenizers.Tokenizer.from_file(f"{root}/qwen2.5/tokenizer.json")
    with open(f"{root}/gsm8k/train.jsonl", encoding="utf-8") as f:
        rows = [json.loads(line) for line, _ in zip(f, range(2000))]
except OSError as e:
    print(f"SKIP {e}")
    sys.exit(0)
texts = [row[field] for row in rows for field in ("question", "answer")]
mib = sum(len(t.encode()) for t in texts) / 2**20


def rate(fn):
    times = []
    for _ in range(4):
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return mib / statistics.median(times[1:])


ids = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
encode = rate(lambda: [tokenizer.encode(t, add_special_tokens=False) for t in texts])
# The batch call saves the crossing into Python for every text: the better of the two stands.
encode = max(encode, rate(lambda: tokenizer.encode_batch_fast(texts, add_special_tokens=False)))
print(f"tokenizer encode, one thread\t{encode:.6g}")
print(f"tokenizer decode, one thread\t{rate(lambda: [tokenizer.decode(x) for x in ids]):.6g}")
