#!/usr/bin/env python3
"""Holds `grpo tokenize` against HF tokenizers on tokenizers as Llama 3's, SmolLM2's and Qwen3's, trained here on GSM8K (the
real files of the first two are not given away): every question and answer, and fuzzed text.

    tools/check_tokenizer.py [--grpo build/grpo] [--data data/gsm8k] [--fuzz 20000]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from golden_tokenizer import LLAMA3, PIECES, TEXTS

SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def trained(kind, texts):
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "smollm2")
    if kind == "smollm2":
        first = pre_tokenizers.Digits(individual_digits=True)
    else:
        pattern = LLAMA3 if kind == "llama3" else LLAMA3.replace("{1,3}", "")
        first = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    tokenizer.normalizer = normalizers.NFC() if kind == "qwen3" else None
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=6000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(["<think>", "</think>", "<tool_response>"])
    if kind == "llama3":
        begin = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[
            ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))])
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
    return tokenizer


def fuzz(n):
    draw = random.Random(3)
    pieces = PIECES + SPECIAL + ["<think>", "</think>", "1234567", "٣", "３4", "½", "\U0001f600", "don't", "I'LL", "\u2028"]
    for _ in range(n):
        yield "".join(draw.choices(pieces, k=draw.randrange(1, 20)))
        yield "".join(chr(draw.choice([draw.randrange(32, 127), draw.randrange(1, 0xd800), draw.randrange(0x10000, 0x20000)]))
                      for _ in range(draw.randrange(1, 12)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpo", default="build/grpo")
    parser.add_argument("--data", default="data/gsm8k")
    parser.add_argument("--fuzz", type=int, default=20000)
    args = parser.parse_args()
    rows = [json.loads(line) for split in ("train", "test") for line in open(os.path.join(args.data, split + ".jsonl"))]
    texts = [row[key] for row in rows for key in ("question", "answer")]
    cases = texts + TEXTS + list(fuzz(args.fuzz // 2))
    failed = 0
    for kind in ("llama3", "smollm2", "qwen3"):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "tokenizer.json")
            tokenizer = trained(kind, texts[:4000])
            tokenizer.save(path)
            lines = "".join(json.dumps({"text": text}) + "\n" for text in cases)
            run = subprocess.run([args.grpo, "tokenize", path], input=lines, capture_output=True, text=True, encoding="utf-8")
            if run.returncode:
                sys.exit(run.stderr)
            got = [json.loads(line)["ids"] for line in run.stdout.splitlines()]
        want = [x.ids for x in tokenizer.encode_batch(cases, add_special_tokens=False)]
        different = [i for i in range(len(cases)) if got[i] != want[i]]
        print(f"{kind}: {len(texts)} texts of GSM8K and {len(cases) - len(texts)} others, {len(different)} differ")
        for i in different[:3]:
            print("  ", repr(cases[i]), got[i], want[i])
        failed += len(different)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
