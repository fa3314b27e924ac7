"""Trains models/tiny/tokenizer.json: a small byte-level BPE in the layout of Qwen2.5's, on the demo's own problems.

    build/release/tools/problems --seed 7 --count 4000 --level 3             >  problems.jsonl
    build/release/tools/problems --seed 8 --count 4000 --level 3 --solutions >> problems.jsonl
    python3 tools/tiny_tokenizer.py problems.jsonl models/tiny/tokenizer.json

Needs the `tokenizers` package (0.22 was used). The same input gives the same file. Nothing else in the project needs this
script: its result is committed.
"""
import json
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SIZE = 512  # ids in all: 3 special tokens, 256 bytes, merges
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Qwen2's way to cut text into words.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
# What stands around a question and in a system message, so that these words are short in tokens too, and a little of the
# English of other word problems.
AROUND = """system
First reason about the question inside <think> </think>, then give the final answer alone inside <answer> </answer>. Write it like this:
<think>
your reasoning
</think>
<answer>
the answer
</answer>
user
assistant
A conversation between User and Assistant. User: Assistant:
She sold twice as many of the tickets each week for $5 an hour, and there were half as much money left to pay after that day.
If he can make three dollars in two hours, what is the total number of minutes that it will take them to get all of these?
One of his friends spent a third on food, bought some more at the store for $20, and had to divide the rest of the cost by 100%.
At first her brother would read more than four pages per day for a year; the other students used only 10 of those.\n"""


def main(source, target):
    texts = []
    with open(source, encoding="utf-8") as lines:
        for line in lines:
            texts += json.loads(line).values()
    texts += [AROUND] * (len(texts) // 16)

    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=SIZE - len(SPECIAL), min_frequency=2, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    assert tokenizer.get_vocab_size() == SIZE
    tokenizer.save(target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
