"""Math-Verify's verdicts on pairs of formulas whose scripts and percentages are written in many ways.

Every pair is a formula and the same or nearly the same formula. Numbers with a base are left out, and so is a lone "i":
rewards/README.md says how this verifier differs there.
"""

import json
import random
import re
from importlib.metadata import version

from math_verify import parse, verify

NUMBERS = ["50", "100", "5", "12.5", "0.5", "33", "0", "250", "1,000", "50.0", "-50", "-12.5", ".5", "200"]
PERCENTS = ["\\%", "%", " \\%", "\\text{ percent}", "\\text{percent}", " percent", " percentage", "\\text{ pct}", "\\,\\%", ""]
SUB = re.compile(r"_(?:\{[^{}]*\}|\w)")


def script(r, sign, texts):
    text = r.choice(texts)
    return sign + (text if len(text) == 1 and r.random() < 0.6 else "{" + text + "}")


def sub(r):
    return script(r, "_", ["1", "2", "k", "n", "0", "12", "max", "k,j", "n+1"])


def sup(r):
    return script(r, "^", ["2", "3", "n", "10", "-1", "y", "2x", "n+1"])


def scripted(r):
    def atom():
        head = r.choice(["x", "y", "R", "a", "n", "\\alpha", "\\pi", "P", "\\text{A}"])
        shape = r.random()
        if shape < 0.1:
            return "(" + head + sup(r) + sub(r) + ")" + sup(r)
        if shape < 0.2:
            return "\\frac{" + head + sup(r) + sub(r) + "}{" + r.choice(["2", "R_1", "R^2_1"]) + "}"
        if shape < 0.3:
            return r.choice(["\\sin" + sup(r) + " x", "\\log" + sub(r) + " 8", "e" + sup(r), "10" + sup(r)])
        scripts = r.choice([[sup, sub], [sup, sub], [sub, sup], [sub], [sup], [sup, sup, sub]])
        return head + "".join(s(r) for s in scripts)

    return r.choice(["", "2", "-"]) + r.choice(["", "+"]).join(atom() for _ in range(r.choice([1, 1, 2])))


def rewritten(r, text):
    kind = r.randrange(6)
    if kind == 0:
        return re.sub(r"(\^(?:\{[^{}]*\}|\w))(_(?:\{[^{}]*\}|\w))", r"\2\1", text, count=1)
    if kind == 1:
        return re.sub(r"\^(\w)", r"^{\1}", text, count=1)
    if kind == 2:
        return re.sub(r"_(\w)", r"_{\1}", text, count=1)
    if kind == 3:
        return SUB.sub(sub(r), text, count=1)
    if kind == 4:
        return SUB.sub("", text, count=1)
    return re.sub(r"\^(?:\{[^{}]*\}|\w)", sup(r), text, count=1)


def percentage(r):
    def term():
        shape = r.random()
        number, percent = r.choice(NUMBERS), r.choice(PERCENTS)
        if shape < 0.75:
            return number + percent
        if shape < 0.85:
            return "\\frac{1}{" + r.choice("234") + "}" + percent
        return number + percent + r.choice(["+1", "\\cdot 2", "-50\\%"])

    shape = r.random()
    if shape < 0.6:
        return "$" + term() + "$" + r.choice(["", "", "", "%", "\\%", " percent"])
    if shape < 0.7:
        return "$\\boxed{" + term() + "}$"
    if shape < 0.8:
        return "$" + r.choice(["x=", "x<"]) + term() + "$" + r.choice(["", "%"])
    if shape < 0.9:
        return "$" + r.choice(["%s,%s", "(%s,%s)", "\\{%s,%s\\}", "[%s,%s]"]) % (term(), term()) + "$"
    return "the answer is " + r.choice(NUMBERS) + r.choice(["%", " percent", "pct", " %", ""])


def related(r, text):
    number = re.search(r"-?\d[\d,]*\.?\d*", text)
    if not number:
        return percentage(r)
    value = float(number.group().replace(",", "").rstrip("."))
    plain = lambda x: "%.10g" % x
    other = r.choice([value, value, value / 100, value * 100, -value])
    if r.random() < 0.5:
        return "$" + plain(other) + r.choice(["", "\\%"]) + "$"
    text = text.replace(number.group(), plain(other), 1)
    return re.sub(r"\\?%|\\text\{ ?(percent|pct)\}| ?percent(age)?| ?pct", "", text) if r.random() < 0.6 else text


def pairs(seed, make, change, n):
    """n of them, as many equal as not."""
    r = random.Random(seed)
    left, seen = {True: n // 2, False: n - n // 2}, set()
    while any(left.values()):
        gold = make(r)
        answer = change(r, gold)
        if make is scripted:
            gold, answer = "$" + gold + "$", "$" + answer + "$"
        if r.random() < 0.5:
            gold, answer = answer, gold
        golds = parse(gold)
        if (gold, answer) in seen or gold == answer or not golds:
            continue
        seen.add((gold, answer))
        equal = verify(golds, parse(answer))
        if left[equal]:
            left[equal] -= 1
            yield [gold, answer, int(equal)]


def write(path):
    with open(path, "w") as f:
        made_with = {name: version(name) for name in ("math-verify", "latex2sympy2_extended", "sympy")}
        f.write('{"made_with": %s,\n"pairs": [\n' % json.dumps(made_with))
        rows = list(pairs(1, scripted, rewritten, 160)) + list(pairs(2, percentage, related, 240))
        f.write(",\n".join(json.dumps(row) for row in rows) + "]}\n")
