"""AdamW goldens from torch.optim.AdamW: weights, moments' outcome and gradients of a few steps, in f32."""

import json

import torch

STEPS, N = 5, 12


def run(seed, lr, beta1, beta2, eps, weight_decay):
    g = torch.Generator().manual_seed(seed)
    p = torch.nn.Parameter(torch.randn(N, generator=g))
    p.data[0], p.data[1] = 0.0, 100.0
    optimizer = torch.optim.AdamW([p], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, foreach=False)
    start, grads, weights = p.tolist(), [], []
    for step in range(STEPS):
        grad = torch.randn(N, generator=g) * 10.0 ** torch.randint(-6, 1, (N,), generator=g)
        grad[2] = 0.0
        p.grad = grad
        optimizer.step()
        grads.append(grad.tolist())
        weights.append(p.tolist())
    state = optimizer.state[p]
    return {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay, "start": start,
            "grads": grads, "weights": weights, "m": state["exp_avg"].tolist(), "v": state["exp_avg_sq"].tolist()}


def write(path, versions):
    runs = [run(1, 5e-6, 0.9, 0.99, 1e-8, 0.1), run(2, 1e-2, 0.9, 0.999, 1e-8, 0.0), run(3, 0.1, 0.0, 0.5, 1e-3, 0.5)]
    with open(path, "w") as f:
        lines = ",\n".join(json.dumps(r) for r in runs)
        f.write('{"made_with":%s,\n"runs":[\n%s\n]}\n' % (json.dumps(versions), lines))
