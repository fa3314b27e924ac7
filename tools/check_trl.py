#!/usr/bin/env python3
"""Holds the reference page's table "Coming from TRL" against the GRPOConfig that is installed: every field, every default.

    tools/check_trl.py [GRPO]        needs trl and a built grpo (build/grpo)
    tools/check_trl.py --golden FILE  writes the fields and defaults as tests/golden/trl_fields.json has them
"""

import dataclasses
import json
import re
import subprocess
import sys

import trl


def fields():
    out = {}
    for f in dataclasses.fields(trl.GRPOConfig):
        value = f.default if f.default is not dataclasses.MISSING else f.default_factory()
        value = getattr(value, "value", value)  # an enum's
        out[f.name] = value if isinstance(value, str) else json.dumps(value)
    return out


def main():
    args = sys.argv[1:]
    if args[:1] == ["--golden"]:
        with open(args[1], "w") as f:
            json.dump({"made_with": {"trl": trl.__version__}, "fields": fields()}, f, indent=0)
            f.write("\n")
        return 0
    page = subprocess.run([args[0] if args else "build/grpo", "config", "--reference"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    table = {name: value for name, more, value in
             re.findall(r"^\| `(\w+)`( \(\w+\))? \| `([^`]*)` \|", page.split("## Coming from TRL")[1], re.M) if not more}
    want, bad = fields(), 0
    for name in sorted(want.keys() | table.keys()):
        if want.get(name) != table.get(name):
            print(f"{name}: trl {trl.__version__} has {want.get(name)!r}, the table {table.get(name)!r}")
            bad += 1
    print(f"{len(want)} fields of GRPOConfig, trl {trl.__version__}: {bad} differ")
    return bad > 0


sys.exit(main())
