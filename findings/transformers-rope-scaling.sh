#!/bin/sh
# transformers 5.24.0, config.json of a Qwen2 model.
#
# Behaviour: newer files keep the rotary base in rope_parameters.rope_theta. Where an older rope_scaling stands beside it,
# the scaling takes the place of rope_parameters as a whole and the base falls back to 10000.
# One expects: the base that the file names, 1000000, with the scaling; or an error that the two contradict each other.
# Seen: {'rope_type': 'linear', 'factor': 2.0, 'rope_theta': 10000.0}. With the base under its old name, rope_theta, the
# same scaling keeps it.
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"

python3 -m venv venv
venv/bin/pip install -q transformers==5.24.0
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import json
import tempfile

import transformers

shape = dict(model_type="qwen2", hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=100, max_position_embeddings=128)
scaling = {"rope_type": "linear", "factor": 2.0}


def base(**fields):
    directory = tempfile.mkdtemp(dir=".")
    with open(directory + "/config.json", "w") as file:
        json.dump({**shape, **fields}, file)
    return transformers.AutoConfig.from_pretrained(directory).rope_parameters["rope_theta"]


new = base(rope_parameters={"rope_type": "default", "rope_theta": 1e6}, rope_scaling=scaling)
old = base(rope_theta=1e6, rope_scaling=scaling)
alone = base(rope_parameters={"rope_type": "default", "rope_theta": 1e6})
print(f"transformers {transformers.__version__}: rope_parameters alone {alone}, with rope_scaling {new}, "
      f"rope_theta with rope_scaling {old}")
if (new, old, alone) != (1e4, 1e6, 1e6):
    raise SystemExit("changed: not as described")
print("as described: rope_scaling beside rope_parameters loses the base")
PY
