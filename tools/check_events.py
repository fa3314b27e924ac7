#!/usr/bin/env python3
"""Holds an event file of ours against tensorboard's own EventAccumulator: tools/check_events.py build/.../test_events

test_events DIR writes a run of 20 steps, resumed from step 10 after it had reached 14. Says SKIP where tensorboard is not
installed (pip install tensorboard).
"""
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2
except ImportError as missing:
    print(f"SKIP check-tensorboard: {missing}")
    sys.exit(0)

with tempfile.TemporaryDirectory() as directory:
    subprocess.run([sys.argv[1], directory], check=True)
    events = EventAccumulator(directory, size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()

scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
assert scalars == {
    "train/reward": [(n, n / 8) for n in range(1, 21)],
    "train/rewards/correctness/mean": [(n, 0.5) for n in range(1, 21)],
    "train/num_tokens": [(n, 1000 * n) for n in range(1, 21)],
    "eval/accuracy": [(n, 0.25) for n in (5, 10, 15, 20)],
}, scalars
for k in (1, 2):
    texts = events.Tensors(f"train/completion {k}")
    assert [t.step for t in texts] == [1, 11], texts
    assert texts[0].tensor_proto.string_val[0] == b"reward 1, advantage 0\n\n    1 + 1?\n    \n    <b>2</b>\n    # two\n"
content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
assert start.hparams["learning_rate"].number_value == 5e-6 and start.hparams["loss_type"].string_value == "grpo"
assert start.hparams["shuffle"].bool_value is True and start.start_time_secs > 1e9
print(f"tensorboard reads {sum(map(len, scalars.values()))} numbers, 4 texts and {len(start.hparams)} options back")
