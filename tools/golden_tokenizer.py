"""Writes tests/golden/tokenizer.json: ids and decoded texts by HF tokenizers, for variants of models/tiny/tokenizer.json.

Run as `tools/golden.py tokenizer`. A variant is an edit, merged into the tokenizer file by test_tokenizer; its cases are the
texts below and random strings of pieces that are hard for it. The same version of the package gives the same file.
"""
import json
import os
import random

import tokenizers

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models/tiny/tokenizer.json")
RANDOM_CASES = 24
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXTS = [
    "", " ", "Tom has 12 apples. Ann gives him 5 more.", "<think>\n12+5=17\n</think>\n<answer>\n17\n</answer>\n",
    "I'm you'RE 'S ''t 'ſ 'veX 'l 'll'd", "  \n\n  x", "a \r\n b\t\tc  ", " \n ", "\n \u00a0", "!!\r\n\r\n!", " 1 23  4",
    "\x1c\x1d\x85\u180e\u200b\u2028x", "e\u0301 \u212b \u1100\u1161\u11a8 a\u0323\u0307 a\u0307\u0323",
    "\u0958\u0344\ufb01", "a\u07fd\u0334 a\u0898\u0323 \U00011935\U00011930 \U000105d2\u0307", "\u1c89x \u1c89\u0661\U00011bf0",
    "中文 漢字かな。한글 ไทย", "👨‍👩‍👧🏽🇫🇷", "\ufeffx\ufffd", "<|im_start|>user\nHi<|im_end|>\n<|endoftext|><|im_", "a\u0000b",
]
PIECES = list("ab '\n\t éÅ\u212b\u0301eſsT1 2\u3000\xa0一.!,\u1c89") + [
    "<L>", "<R>", "<LR>", "<LRX>", "<n>é", "<n>e\u0301", " Tom", "  ", "<|im_end|>", "<L", "\r\n", "zzz", "'s", "123"]


def added(i, content, **flags):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": False, **flags}


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def splits(*patterns):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(p) for p in patterns] + [byte_level]}}


def variants(tiny):
    own = tiny["added_tokens"]
    yield "tiny", {}
    yield "merges as pairs", {"model": {"merges": [m if isinstance(m, list) else m.split(" ") for m in tiny["model"]["merges"]]}}
    yield "merges as strings", {"model": {"merges": [m if isinstance(m, str) else " ".join(m) for m in tiny["model"]["merges"]]}}
    yield "no normalizer", {"normalizer": None}
    yield "flags of added tokens", {"added_tokens": own + [
        added(512, "<L>", lstrip=True), added(513, "<R>", rstrip=True, special=True),
        added(514, "<LR>", lstrip=True, rstrip=True), added(515, "\u212b", normalized=True), added(516, "e\u0301"),
        added(517, "\n"), added(518, "<n>é", normalized=True, special=True), added(519, " Tom", normalized=True),
        added(520, "<LRX>"), added(521, "éé", normalized=True, lstrip=True),
        added(522, "zz"), added(523, "zzz")]}
    yield "ignore_merges", {"model": {"ignore_merges": True, "vocab": {"zzz": 509}},
                            "added_tokens": [{**t, "id": t["id"] + 1} for t in own]}
    yield "a token no merge makes", {"model": {"vocab": {"zzz": 509}},
                                     "added_tokens": [{**t, "id": t["id"] + 1} for t in own]}
    yield "GPT-2", {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}}
    yield "Llama 3", splits(LLAMA3)
    yield "three splits", splits(r"\p{N}{1,3}", "[一-龥]+", r"[!-/:-@][A-Za-z]+|\S+|\s+")
    yield "matches with gaps, empty matches", splits(r"\p{L}+|\s*x*")
    yield "complements", splits(r"\S+|\P{L}")
    # The files of Llama 3 and SmolLM2 but for their size.
    begin = {"single": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
             "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [512], "tokens": ["<|begin_of_text|>"]}}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    yield "Llama 3, whole", {
        **splits(LLAMA3), "normalizer": None, "model": {"ignore_merges": True},
        "added_tokens": own + [added(512, "<|begin_of_text|>", special=True), added(513, "<|eot_id|>", special=True)],
        "post_processor": {"type": "Sequence", "processors": [byte_level, {"type": "TemplateProcessing", **begin}]}}
    for alone in (True, False):
        yield f"SmolLM2, digits alone: {alone}", {
            "normalizer": None, "post_processor": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": alone}, {**byte_level, "add_prefix_space": False}]}}


def write(target):
    with open(SOURCE, encoding="utf-8") as f:
        tiny = json.load(f)
    draw = random.Random(20)
    out = {"tokenizers": tokenizers.__version__, "variants": []}
    for name, edit in variants(tiny):
        whole = json.loads(json.dumps(tiny))
        for key, value in edit.items():
            if key == "model":
                whole["model"]["vocab"].update(value.get("vocab", {}))
                whole["model"].update({k: v for k, v in value.items() if k != "vocab"})
            else:
                whole[key] = value
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(whole))
        texts = TEXTS + ["".join(draw.choices(PIECES, k=draw.randrange(1, 14))) for _ in range(RANDOM_CASES)]
        cases = []
        for text in texts:
            case = {"text": text}
            tokenizer.encode_special_tokens = False
            case["ids"] = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = True
            case["ids_no_special"] = tokenizer.encode(text, add_special_tokens=False).ids
            half = case["ids"][len(text) % 3:]  # may begin inside a character
            case["decode"] = half
            case["text_with_special"] = tokenizer.decode(half, skip_special_tokens=False)
            case["text_without_special"] = tokenizer.decode(half, skip_special_tokens=True)
            cases.append(case)
        # The file keeps merges small: the test rebuilds these two edits' merges itself.
        out["variants"].append({"name": name, "edit": {} if name.startswith("merges") else edit, "cases": cases})
    with open(target, "w", encoding="utf-8") as f:
        f.write('{"tokenizers": "%s", "variants": [\n' % out["tokenizers"])
        for i, v in enumerate(out["variants"]):
            f.write('{"name": %s, "edit": %s, "cases": [\n' % (json.dumps(v["name"]), json.dumps(v["edit"])))
            f.write(",\n".join(json.dumps(c) for c in v["cases"]))
            f.write("\n]}%s\n" % ("," if i + 1 < len(out["variants"]) else ""))
        f.write("]}\n")

