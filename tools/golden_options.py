"""GRPO goldens over option sets drawn at random, generations cut into several optimizer steps, and thresholds of torch's.

As golden_loss.py, whose trainer this is: TRL's own GRPOTrainer, fed with completions and log-probs. Where a generation is
cut, the micro-batches of its first optimizer step are run one by one and their losses and gradients added, which is what
training does; options that TRL applies to each micro-batch by itself (bnpo's normaliser, the entropy quantile, the bonus)
are drawn for uncut generations only.
"""

import random
import tempfile

import torch
from datasets import Dataset
from transformers import Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

import golden_loss
from golden_loss import EOS, dump, save_model, tokenizer

LENGTH = 8
METRICS = ("kl", "entropy", "reward", "reward_std", "frac_reward_zero_std", "policy_loss", "entropy_coef",
           "cispo_clip_ratio", "vespo/phi_seq_mean")


def make_batch(seed, groups, group_size, weights, spread, scores, full=False, wild=False):
    """One generation batch. `scores` are drawn from; None abstains. full: all completions are as long as they can be.
    wild: some tokens, and one whole completion, are far from where they were sampled."""
    r = random.Random(seed)
    g = torch.Generator().manual_seed(seed)
    n = groups * group_size
    rand = lambda *shape: torch.rand(*shape, generator=g)
    randn = lambda *shape: torch.randn(*shape, generator=g)
    rows = [[r.choice(scores) for _ in weights] for _ in range(n)]
    rows[-group_size:] = [[0.5] * len(weights)] * group_size  # a group of equal rewards: every bit of it is 0
    for i in range(1, n - group_size, 5):
        rows[i][i % len(weights)] = None
    old = -3 * rand(n, LENGTH) - 0.01
    logp = old + spread * (randn(n, LENGTH) + randn(n, 1))  # of whole completions too: a loss near 0 shows only rounding
    if wild:
        logp[1] = old[1] - 4
        logp[2, 0] = old[2, 0] + 30
        logp[group_size + 1, 1] = old[group_size + 1, 1] - 45
        logp[group_size + 2] = old[group_size + 2] + 5
    return {
        "groups": groups,
        "group_size": group_size,
        "weights": weights,
        "scores": rows,
        "length": [LENGTH if full else 1 + r.randrange(LENGTH) for _ in range(n)],
        "truncated": [full or r.random() < 0.3 for _ in range(n)],
        "old": old,
        "logp": logp,
        "ref": old + 0.3 * randn(n, LENGTH),
        "entropy": 2.5 * rand(n, LENGTH) ** 2,
    }


EIGHTHS = [0.125 * k for k in (1, 1, 1, 4, 4, 16, -3)]
TENTHS = [0.1, 0.2, 0.3, 0.2, 1.7, -0.4, 2.0]
BATCHES = [
    make_batch(11, 3, 4, [1.0, 0.5], 0.25, EIGHTHS),
    make_batch(12, 2, 6, [1.0], 0.3, TENTHS),
    make_batch(13, 4, 4, [0.25, 2.0, -1.0], 0.2, EIGHTHS),
    make_batch(14, 4, 4, [1.0, 1.0], 0.3, TENTHS, full=True),
    make_batch(15, 3, 4, [1.0, 0.5], 0.3, EIGHTHS, wild=True),
]


class Trainer(golden_loss.Recorder):
    rows = slice(None)  # of the micro-batch

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        logp, entropy, other = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        return logp[self.rows], None if entropy is None else entropy[self.rows], other


def run_case(directory, case):
    batch, steps, accumulation = BATCHES[case["batch"]], case["steps_per_generation"], case["accumulation"]
    n = len(batch["length"])

    def reward(column):
        fn = lambda prompts, **kwargs: [row[column] for row in batch["scores"]]
        fn.__name__ = f"r{column}"
        return fn

    trainer = Trainer(
        model=Qwen2ForCausalLM.from_pretrained(directory),
        reward_funcs=[reward(k) for k in range(len(batch["weights"]))],
        args=GRPOConfig(
            output_dir=directory, use_cpu=True, bf16=False, report_to=[], per_device_train_batch_size=n // steps,
            gradient_accumulation_steps=accumulation, steps_per_generation=steps,
            num_iterations=2,  # so that the sampled log-probs count, not the policy's own
            num_generations=batch["group_size"], max_completion_length=LENGTH, reward_weights=batch["weights"],
            **case["options"],
        ),
        train_dataset=Dataset.from_list([{"prompt": "word"}] * n),
        processing_class=tokenizer(),
    )
    trainer.feed(batch)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = accumulation
    if "entropy_now" in case:  # the controller in the middle of a run
        trainer.entropy_coef, trainer._last_world_entropy = case["entropy_now"]
    inputs = trainer._generate_and_score_completions([{"prompt": "word"}] * n)
    total = 0.0
    for k, part in enumerate(split_tensor_dict(inputs, steps)[:accumulation]):
        trainer.rows = slice(k * n // steps, (k + 1) * n // steps)
        loss = trainer._compute_loss(trainer.model, part)
        total += loss.item()
        if loss.requires_grad:
            loss.backward()
    seven = lambda xs: [float(f"{x:.7g}") for x in xs]
    grad = lambda x: seven(golden_loss.pack(batch, torch.zeros_like(x) if x.grad is None else x.grad))
    out = {**case, "loss": total, "advantages": seven(inputs["advantages"].tolist()), "dlogp": grad(trainer.logp)}
    if trainer._entropy_bonus_enabled:
        out["dentropy"] = grad(trainer.entropy)
    if trainer.use_adaptive_entropy:
        out["entropy_next"] = [trainer.entropy_coef, trainer._last_world_entropy]
    if steps == 1:
        out["metrics"] = {key: values[-1] for key, values in trainer._metrics["train"].items()
                          if key in METRICS or key.startswith(("clip_ratio/", "rewards/"))}
    return out


def draw(r, k):
    """Option set k. Every loss comes in turn; a third of the sets are of generations that are cut."""
    loss = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")[k % 8]
    cut = k % 3 == 2 and loss != "bnpo"
    batch = r.choice((2, 3)) if cut else r.choice((0, 1, 2, 3) + ((4, 4) if loss == "vespo" else ()))
    o = dict(loss_type=loss, importance_sampling_level=r.choice(("token", "sequence")),
             use_bias_correction_kl=r.random() < 0.5, beta=r.choice((0.0, 0.04, 0.5)))
    sometimes = lambda p: r.random() < p
    if sometimes(0.5):
        o["multi_objective_aggregation"] = "normalize_then_sum"
    else:
        o["scale_rewards"] = r.choice(("group", "batch", "none"))
    o["epsilon"] = r.choice((0.1, 0.2, 0.3))
    if loss == "cispo":
        o["epsilon_high"] = r.choice((1.05, 1.3, 5.0))
    elif sometimes(0.5):
        o["epsilon_high"] = r.choice((0.15, 0.28, 0.5))
    if loss in ("grpo", "bnpo", "dr_grpo", "dapo", "luspo") and sometimes(0.4):
        o["delta"] = r.choice((1.6, 2.5))
    if loss == "sapo" and sometimes(0.5):
        o.update(sapo_temperature_pos=r.choice((0.5, 2.0)), sapo_temperature_neg=r.choice((0.7, 3.0)))
    if loss == "vespo" and sometimes(0.5):
        o.update(vespo_k_pos=r.choice((1.0, 4.0)), vespo_lambda_pos=r.choice((0.0, 1.5)),
                 vespo_k_neg=r.choice((0.5, 2.0)), vespo_lambda_neg=r.choice((1.0, 5.0)))
    if sometimes(0.4):
        o["off_policy_mask_threshold"] = r.choice((0.01, 0.1))
    if sometimes(0.4):
        o["mask_truncated_completions"] = batch != 3
    case = dict(batch=batch, steps_per_generation=1, accumulation=1, options=o)
    if cut:
        case["steps_per_generation"], case["accumulation"] = r.choice(((2, 1), (4, 2), (4, 1)))
        return case
    if sometimes(0.5):
        o["top_entropy_quantile"] = r.choice((0.2, 0.25, 0.5, 0.8))
    if sometimes(0.3):
        o["entropy_coef"] = r.choice((0.02, -0.05))
    elif sometimes(0.6):
        o.update(use_adaptive_entropy=True, entropy_coef=r.choice((0.0, 0.01)), entropy_coef_min=r.choice((0.0, 0.002)),
                 entropy_coef_max=r.choice((0.012, 1.0)), entropy_coef_delta=r.choice((0.004, 0.01)),
                 entropy_target=r.choice((0.5, 1.0, 1.6)))
        case["entropy_now"] = [r.choice((0.0, 0.003, 0.01)), r.choice((0.3, 0.9, 1.4, 1e9))]
    return case


def edges():
    """Values of options at which off and on are easily confused, and clips that bite on ratios of 1."""
    out = []
    for level in ("token", "sequence"):
        for loss in ("grpo", "bnpo", "dr_grpo", "dapo", "luspo"):
            for delta in (0.0, 0.7, 1.1, 1.2):
                out.append(dict(loss_type=loss, delta=delta, beta=0.04, mask_truncated_completions=delta != 1.1))
        for loss in ("cispo", "sapo", "vespo"):  # which take no notice of delta
            out.append(dict(loss_type=loss, epsilon_high=0.2, delta=0.5, off_policy_mask_threshold=0.0,
                            mask_truncated_completions=True))
        for o in out:
            o.setdefault("importance_sampling_level", level)
    return [dict(batch=k % 3, steps_per_generation=1, accumulation=1, options={"use_bias_correction_kl": True, **o})
            for k, o in enumerate(out)]


def quantiles(r, wanted=60):
    """Thresholds that a rank in f32, or a product rounded before its sum, would miss."""
    found = [dict(keep=0.2, entropy=[0.1, 0.2, 0.3, 0.4, 0.5, 2.0])]
    g = torch.Generator().manual_seed(16)
    while len(found) < wanted:
        keep, n = r.choice((0.1, 0.2, 0.3, 0.4, 0.7, 0.8, round(r.random(), 3))), r.choice((2, 3, 6, 11, 16))
        x = 2.5 * torch.rand(n, generator=g) ** 2
        q = torch.tensor(1 - keep, dtype=torch.float32)
        rank = q * (n - 1)  # in f32
        s, below, above = x.sort().values, int(rank), int(torch.ceil(rank))
        share, gap = rank - below, s[above] - s[below]
        naive = s[below] + share * gap if share < 0.5 else s[above] - gap * (1 - share)
        if naive != torch.quantile(x, 1 - keep) or len(found) % 3 == 0:
            found.append(dict(keep=keep, entropy=x.tolist()))
    for f in found:
        f["threshold"] = torch.quantile(torch.tensor(f["entropy"]), 1 - f["keep"]).item()
    return found


def write(path, versions, wanted=60):
    torch.manual_seed(0)
    r = random.Random(17)
    with tempfile.TemporaryDirectory() as directory:
        save_model(directory)
        # First, what the cut of a generation must not change: all losses at one length, cut and not.
        plain = [dict(batch=3, steps_per_generation=s, accumulation=a,
                      options=dict(loss_type=loss, beta=0.0, **({"epsilon_high": 1.3} if loss == "cispo" else {})))
                 for loss in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")
                 for s, a in ((1, 1), (4, 2), (4, 1))]
        done = [run_case(directory, case) for case in plain + [draw(r, k) for k in range(wanted)] + edges()]
    batches = [{**b, **{key: golden_loss.pack(b, b[key]) for key in ("old", "logp", "ref", "entropy")}} for b in BATCHES]
    out = {"made_with": versions, "max_completion_length": LENGTH, "batches": batches, "cases": done,
           "quantiles": quantiles(r)}
    with open(path, "w") as f:
        f.write(dump(out) + "\n")
    print(f"{path}: {len(done)} cases")
