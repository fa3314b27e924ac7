"""GRPO loss goldens from TRL's own GRPOTrainer.

The trainer is the real class, built around a two-layer model. Two of its methods are replaced, and only as sources of
input: _generate (which completions were sampled) and _get_per_token_logps_and_entropies (the three models' log-probs and
the policy's entropies, the policy's being leaf tensors). Advantages, masks, loss and metrics are TRL's code, one rank,
accumulation 1; gradients are autograd's.
"""

import json
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

EOS, WORD = 1, 2
MAX_COMPLETION = 12


def tokenizer():
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": EOS, "word": WORD}, unk_token="word"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="word")


def make_batch(seed, groups, group_size, weights, spread):
    """One generation batch: scores (None abstains), lengths, and per-token log-probs as if sampled a few updates ago."""
    g = torch.Generator().manual_seed(seed)
    n = groups * group_size
    rand = lambda *shape: torch.rand(*shape, generator=g)
    randn = lambda *shape: torch.randn(*shape, generator=g)
    length = [1 + int(x * MAX_COMPLETION) for x in rand(n)]
    truncated = [bool(x < 0.3) for x in rand(n)]
    scores = [[round(float(x) * 4) / 4 - 0.125 for x in row] for row in rand(n, len(weights))]
    # A group whose rewards are all equal: few bits, as TRL's f32 mean of others is off by some 1e-8, over 1e-4.
    for i in range(group_size):
        scores[i] = [0.5 * (k + 1) for k in range(len(weights))]
    for row in range(group_size + 1, n, 3):  # one score abstains
        scores[row][row % len(weights)] = None
    scores[group_size + 2] = [None] * len(weights)  # all abstain
    old = -3 * rand(n, MAX_COMPLETION) - 0.01
    drift = 0.5 * randn(n, 1)  # of whole completions: advantages sum to 0, and a loss near 0 shows only rounding
    return {
        "groups": groups,
        "group_size": group_size,
        "weights": weights,
        "scores": scores,
        "length": length,
        "truncated": truncated,
        "old": old,
        "logp": old + spread * (randn(n, MAX_COMPLETION) + drift),
        "ref": old + 0.3 * randn(n, MAX_COMPLETION),
        "entropy": 2.5 * rand(n, MAX_COMPLETION) ** 2,
    }


class Recorder(GRPOTrainer):
    def feed(self, batch):
        self.batch = batch
        # In f64, so that the golden's own rounding does not drown a loss that is a small sum of large terms.
        self.logp = batch["logp"].double().requires_grad_()
        self.entropy = batch["entropy"].double().requires_grad_()

    def _generate(self, prompts):
        b = self.batch
        ids = [[WORD] * n if cut else [WORD] * (n - 1) + [EOS] for n, cut in zip(b["length"], b["truncated"])]
        return [[WORD]] * len(ids), ids, None, ["word"] * len(ids), None, {}, None, None

    def _get_per_token_logps_and_entropies(self, model, *args, compute_entropy=False, **kwargs):
        keep = max(self.batch["length"])
        if model is self.ref_model:
            return self.batch["ref"][:, :keep], None, None
        if not compute_entropy:
            return self.batch["old"][:, :keep], None, None
        return self.logp[:, :keep], self.entropy[:, :keep], None


def run_case(directory, batch, options):
    n, k = len(batch["length"]), len(batch["weights"])

    def reward(column):
        fn = lambda prompts, **kwargs: [row[column] for row in batch["scores"]]
        fn.__name__ = f"r{column}"
        return fn

    config = GRPOConfig(
        output_dir=directory,
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=n,
        gradient_accumulation_steps=1,
        num_iterations=2,  # so that the sampled log-probs count, not the policy's own
        num_generations=batch["group_size"],
        max_completion_length=MAX_COMPLETION,
        use_bias_correction_kl=False,  # plain k3; the ratio on the KL is on by default in this TRL only
        reward_weights=batch["weights"],
        **options,
    )
    prompts = [{"prompt": "word"}] * n
    trainer = Recorder(
        model=Qwen2ForCausalLM.from_pretrained(directory),
        reward_funcs=[reward(i) for i in range(k)],
        args=config,
        train_dataset=Dataset.from_list(prompts),
        processing_class=tokenizer(),
    )
    trainer.feed(batch)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._generate_and_score_completions(prompts)
    loss = trainer._compute_loss(trainer.model, inputs)
    if loss.requires_grad:
        loss.backward()
    grad = lambda x: torch.zeros_like(x) if x.grad is None else x.grad
    metrics = {key: values[-1] for key, values in trainer._metrics["train"].items()}
    wanted = ("kl", "entropy", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean",
              "cispo_clip_ratio", "reward_std")
    return {
        "options": options,
        "loss": loss.item(),
        "advantages": inputs["advantages"].tolist(),
        "dlogp": pack(batch, grad(trainer.logp)),
        "dentropy": pack(batch, grad(trainer.entropy)) if options.get("entropy_coef") else None,
        "metrics": {key: value for key, value in metrics.items() if key in wanted},
    }


def pack(batch, x):
    """[n, MAX_COMPLETION] -> the completions back to back."""
    return torch.cat([x[i, :length] for i, length in enumerate(batch["length"])]).tolist()


def cases():
    """(batch number, TRL's options). Every loss type plain and with everything on, at both levels; then one by one."""
    everything = dict(
        epsilon=0.15,
        epsilon_high=0.28,
        beta=0.04,
        entropy_coef=0.02,
        top_entropy_quantile=0.4,
        off_policy_mask_threshold=0.05,
        mask_truncated_completions=True,
    )
    for loss_type in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"):
        for level in ("token", "sequence"):
            base = dict(loss_type=loss_type, importance_sampling_level=level)
            high = {"epsilon_high": 1.1} if loss_type == "cispo" else {}
            delta = {} if loss_type in ("cispo", "sapo") else {"delta": 1.4}
            yield 0, {**base, "beta": 0.0, **high}
            yield 0, {**base, **everything, **high, **delta, "scale_rewards": "batch"}
            yield 1, {**base, **everything, **high, "multi_objective_aggregation": "normalize_then_sum"}
    base = dict(loss_type="grpo", beta=0.0)
    for batch in (0, 1):
        for scale in ("group", "batch", "none"):
            yield batch, {**base, "scale_rewards": scale}
        yield batch, {**base, "multi_objective_aggregation": "normalize_then_sum"}
    yield 1, {**base, "beta": 0.5}
    yield 1, {**base, "epsilon_high": 0.4}
    yield 1, {**base, "delta": 1.3}
    yield 1, {**base, "delta": 3.0, "importance_sampling_level": "sequence"}
    yield 1, {**base, "mask_truncated_completions": True}
    yield 1, {**base, "entropy_coef": -0.05}
    yield 1, {**base, "top_entropy_quantile": 0.2}
    yield 1, {**base, "top_entropy_quantile": 0.0, "entropy_coef": 0.1}  # one token, which is on the edge
    yield 1, {**base, "off_policy_mask_threshold": 0.02}
    yield 1, {**base, "loss_type": "sapo", "sapo_temperature_pos": 2.0, "sapo_temperature_neg": 0.5}


def save_model(directory):
    """A tiny model with its tokenizer, for trainers whose model computes nothing that matters."""
    config = Qwen2Config(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, eos_token_id=EOS, pad_token_id=0,
    )
    Qwen2ForCausalLM(config).save_pretrained(directory)
    tokenizer().save_pretrained(directory)


def write(path, versions):
    batches = [
        make_batch(1, groups=4, group_size=4, weights=[1.0, 0.5], spread=0.25),
        make_batch(2, groups=3, group_size=8, weights=[2.0, 0.0, -0.25], spread=0.4),
    ]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        save_model(directory)
        done = [{"batch": b, **run_case(directory, batches[b], options)} for b, options in cases()]
    out = {"made_with": versions, "max_completion_length": MAX_COMPLETION, "batches": [], "cases": done}
    for b in batches:
        packed = {key: pack(b, b[key]) for key in ("old", "logp", "ref", "entropy")}
        out["batches"].append({**b, **packed})
    with open(path, "w") as f:
        f.write(dump(out) + "\n")
    print(f"{path}: {len(done)} cases")


def dump(x):
    """JSON with f32 values in nine digits, which is all they have, and one case a line."""
    def short(v):
        if isinstance(v, float):
            return float(f"{v:.9g}")
        if isinstance(v, dict):
            return {k: short(w) for k, w in v.items()}
        return [short(w) for w in v] if isinstance(v, list) else v

    lines = []
    for key, value in short(x).items():
        if key in ("cases", "batches", "quantiles"):
            rows = ",\n".join(json.dumps(v, separators=(",", ":")) for v in value)
            lines.append(f'"{key}":[\n{rows}]')
        else:
            lines.append(f'"{key}":{json.dumps(value)}')
    return "{" + ",\n".join(lines) + "}"
