"""What `r4t doctor` has each engine do, in a process of its own: `python -m cluster.engine_check PART FOLDER DEVICE`.

`learner` first: a tiny policy, one DeepSpeed step, and its weights published to a file with their digests. Then `vllm`
and `hf` each write an answer, load that file and compare digests; `faiss` searches.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from r4t.config import Config, parse_config

QUERIES = ["quick dinner", "something sweet for a birthday", "a light lunch without meat"]
POLICY, WEIGHTS, DIGESTS = "policy", "weights.safetensors", "digests.json"


def settings(device: str, engine: str = "hf") -> Config:
    """The smallest policy that every engine runs."""
    return parse_config(
        {
            "cluster": {"device": device},
            "policy": {"vocab_size": 512, "hidden": 64, "layers": 2, "heads": 2},
            "rollout": {"engine": engine, "kv_cache_gib": 0.1, "max_num_seqs": 4},
            "learner": {"ranks": 1},
            "warm_start": {"batch": 2},
            "rl": {"max_tokens": 16},
        }
    )


def learner(folder: Path, device: str) -> str:
    """Makes the policy, takes one optimiser step on it and publishes what it has become."""
    from cluster.learner import Phase, PolicyLearner
    from r4t.batch import supervised_batch
    from r4t.policy import create_policy, encode_prompt, train_tokenizer

    config = settings(device)
    tokenizer = train_tokenizer(QUERIES, config.policy.vocab_size)
    create_policy(folder / POLICY, tokenizer, config.policy, seed=0)
    one = PolicyLearner(0, 1, config)
    one.begin(folder / POLICY, Phase(lr=1e-3, betas=(0.9, 0.95)))
    before = one.weight_digest()
    ids = [encode_prompt(tokenizer, query) for query in QUERIES]
    loss = one.supervise(supervised_batch(ids, ids, int(tokenizer.pad_token_id)), 0, 1, [1e-3])
    after = one.weight_digest()
    if not np.isfinite(loss) or before == after:
        raise RuntimeError(f"a step with loss {loss} left the weights as they were")
    one.export(folder / WEIGHTS)
    (folder / DIGESTS).write_text(json.dumps(after))
    return f"one step, loss {loss:.2f}"


def engine(folder: Path, device: str, name: str) -> str:
    """An answer, and the published weights bit for bit."""
    from cluster.engine import open_engine
    from cluster.self_test import compare_digests

    opened = open_engine(folder / POLICY, settings(device, name))
    (answer,) = opened.generate([(0, QUERIES[0])], samples=1, temperature=1.0, seed=0)
    if not answer.token_ids or not np.isfinite(answer.logprobs).all():
        raise RuntimeError(f"an answer of {len(answer.token_ids)} tokens with log-probabilities {answer.logprobs}")
    opened.load_weights(folder / WEIGHTS, 1)
    compare_digests(json.loads((folder / DIGESTS).read_text()), opened.weight_digest(), name)
    (answer,) = opened.generate([(0, QUERIES[0])], samples=1, temperature=1.0, seed=0)
    if answer.policy_version != 1:
        raise RuntimeError(f"an answer of policy version {answer.policy_version} after version 1 was loaded")
    return "writes answers, and holds published weights bit for bit"


def search() -> str:
    """The nearest of random vectors, by an index that is exact."""
    import faiss

    vectors = np.random.default_rng(0).normal(size=(500, 32)).astype(np.float32)
    index = faiss.IndexFlatIP(32)
    index.add(vectors)
    _, rows = index.search(vectors[:8], 3)
    if not (rows == np.argsort(-(vectors[:8] @ vectors.T), axis=1)[:, :3]).all():
        raise RuntimeError("the nearest vectors that it finds are not the nearest")
    return "finds the nearest vectors"


def main(part: str, folder: Path, device: str) -> None:
    """Prints what was found as the last line; raises what went wrong."""
    found = search() if part == "faiss" else learner(folder, device) if part == "learner" else ""
    print(found or engine(folder, device, part), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
