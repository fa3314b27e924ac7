#!/usr/bin/env python3
"""Writes the goldens in tests/golden by running the real libraries: HF transformers, PEFT, TRL and Math-Verify.

    tools/golden.py loss | options | adamw | model | padding | groups | generate | families | tokenizer | chat | verify | files | reward | lora | all
        [--out tests/golden] [--full DIR] [--only NAME]

--only makes the goldens of one of golden_model.py's models. --full also dumps whole tensors (logits and every gradient) to DIR, for a full comparison by tests/test_model.c with
GRPO_GOLDEN_FULL=DIR. Needs torch, transformers, peft, trl, tokenizers, math-verify and numpy; the build and the tests do not need Python.
"""

import argparse
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def versions():
    import torch
    import transformers
    import trl

    return {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["loss", "options", "adamw", "model", "padding", "groups", "generate", "families", "tokenizer", "chat", "verify", "files", "reward", "lora", "all"])
    parser.add_argument("--out", default="tests/golden")
    parser.add_argument("--full")
    parser.add_argument("--only")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    if args.what in ("files", "all"):
        import golden_files

        golden_files.write(os.path.join(args.out, "hf_files.json"), versions())
    if args.what in ("reward", "all"):
        import golden_reward

        golden_reward.write(os.path.join(args.out, "reward_model.json"), versions())
    if args.what in ("loss", "all"):
        import golden_loss

        golden_loss.write(os.path.join(args.out, "grpo_loss.json"), versions())
    if args.what in ("options", "all"):
        import golden_options

        golden_options.write(os.path.join(args.out, "grpo_options.json"), versions())
    if args.what in ("adamw", "all"):
        import golden_adamw

        golden_adamw.write(os.path.join(args.out, "adamw.json"), versions())
    if args.what in ("model", "padding", "groups", "generate", "all"):
        import golden_model

        golden_model.write(args.out, versions(), args.what, args.full, args.only)
    if args.what in ("families", "all"):
        import golden_families

        golden_families.write(os.path.join(args.out, "families.json"), versions())
    if args.what in ("tokenizer", "all"):
        import golden_tokenizer

        golden_tokenizer.write(os.path.join(args.out, "tokenizer.json"))
    if args.what in ("chat", "all"):
        import golden_chat

        golden_chat.write(os.path.join(args.out, "chat.json"), versions())
    if args.what in ("lora", "all"):
        import golden_lora

        golden_lora.write(args.out, versions())
    if args.what in ("verify", "all"):
        import golden_verify

        golden_verify.write(os.path.join(args.out, "math_verify.json"))


if __name__ == "__main__":
    main()
