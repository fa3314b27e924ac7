"""What the peers on a CPU share: the clock, the rows they print, and whole rollouts in the benchmark's shapes."""
import os
import random
import statistics
import time

VOCABULARY, PROMPT, LENGTH = 151936, 100, 32  # of 0.5B; tokens of a prompt and of a completion
ROLLOUTS = (1, 1), (1, 8), (4, 8)             # prompts, completions of each
CORES = len(os.sched_getaffinity(0))


def seconds(fn):
    """Median of one call, after a call to warm up."""
    fn(0)
    times = []
    while len(times) < 5 or (sum(times) < 0.4 and len(times) < 200):
        start = time.perf_counter()
        fn(len(times) + 1)
        times.append(time.perf_counter() - start)
        if sum(times) > 5:
            break
    return statistics.median(times)


def row(name, value):
    print(f"{name}\t{value:.6g}", flush=True)


def rollouts(peer, ways):
    """Rows of 0.5B's rollouts, everything counted, and notes that name the peer and its version.

    ways: by its name, a function of (prompts, group, seed) that draws LENGTH tokens for each of `group` completions of every prompt
    (lists of PROMPT ids) at temperature 0.9 from the full distribution, and returns a list of ids a completion. The fastest counts.
    """
    for n, group in ROLLOUTS:
        name, best, which = f"rollout 0.5B, {n} x {group} completions of {LENGTH} after {PROMPT}, bf16", 0, None
        for way, draw in ways.items():
            speed = n * group * LENGTH / seconds(lambda i: check(draw(questions(n, i), group, i), n * group))
            if speed > best:
                best, which = speed, way
        print(f"NOTE {peer}, {which}: {name}: {best:.4g} tokens/s", flush=True)
        row(name, best)


def questions(n, seed):
    """n lists of PROMPT ids, others with every seed: no cache of earlier prompts can help."""
    draw = random.Random(seed)
    return [[draw.randrange(VOCABULARY) for _ in range(PROMPT)] for _ in range(n)]


def check(completions, n):
    """Ends the script unless there are n completions of LENGTH tokens, all different, as sampled ones are."""
    assert len(completions) == n and all(len(ids) == LENGTH for ids in completions), [len(ids) for ids in completions]
    assert len({tuple(ids) for ids in completions}) == n, "completions are equal: they were not sampled"
