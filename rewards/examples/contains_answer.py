#!/usr/bin/env python3
# external:command=rewards/examples/contains_answer.py gives 1 where the completion contains gold, and abstains without gold.
import json
import sys

for line in sys.stdin:
    request = json.loads(line)
    scores = [float(s["answer"] in s["completion"]) if s["answer"] else None for s in request["samples"]]
    print(json.dumps({"id": request["id"], "scores": scores}), flush=True)
