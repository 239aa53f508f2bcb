"""Claims L1 and L2 from shares of zeros, the names that the first paper's rules share, and numbers for its tables."""

from __future__ import annotations

import pandas as pd

from snnlib.companion.luu2025.networks import HEADLINE_EPS, NETWORKS
from snnlib.companion.measure.attacked import AUTHORS, ENCODED, IMAGE, IMAGE_SMOOTH
from snnlib.companion.measure.rows import robust_accuracy
from snnlib.companion.verdicts.effects import EFFECTS
from snnlib.companion.verdicts.preconditions import not_learned
from snnlib.companion.verdicts.rules import Judgement, judge, of_seeds, untestable

MAX, AVERAGE, DEFENDED = (NETWORKS[key].label for key in ("sew_max", "sew_avg", "defended"))
WITHOUT_SHORTCUTS = "in_blocks_without_strided_shortcuts"


def block_sparsity(operations: pd.DataFrame) -> pd.DataFrame:
    """Mean exact-zero share of the input gradients inside residual blocks, per model, seed and BatchNorm mode.

    Three numbers: over all operations in blocks; without the strided 1x1 shortcut convolutions, whose 75 % zeros are
    a matter of their stride alone; and at the stem pool.
    """
    inside = operations[operations.inside_residual_block]
    is_shortcut = inside.operation.str.contains("downsample") & inside.kind.str.contains("Conv")
    pools = operations[operations.kind.str.contains("Pool2d") & ~operations.kind.str.contains("Adaptive")]
    key = ["model", "seed", "batch_norm"]
    return pd.DataFrame(
        {
            "in_blocks": inside.groupby(key).zero_share_grad_input.mean(),
            WITHOUT_SHORTCUTS: inside[~is_shortcut].groupby(key).zero_share_grad_input.mean(),
            "at_stem_pool": pools.groupby(key).zero_share_grad_input.mean(),
        }
    ).reset_index()


def judge_block_sparsity(sparsity: pd.DataFrame, accuracies: pd.DataFrame, samples: int) -> Judgement:
    """L1: with max pool, a quarter or more of the gradients inside the blocks are exact zeros, strided shortcuts apart.

    In the authors' mode, BatchNorm in train. accuracies: of `accuracy_rows`. samples: images that were inspected.
    """
    values = _of(sparsity, MAX, WITHOUT_SHORTCUTS)
    everything, pool = (100 * _of(sparsity, MAX, name).mean() for name in ("in_blocks", "at_stem_pool"))
    evidence = f"{everything:.1f} % with the strided 1x1 shortcuts; {pool:.1f} % at the stem's max pool"
    options = {"seeds": [int(seed) for seed in values.index], "samples": samples}
    words = {"L1": "exact zeros in the blocks' gradients"}
    found = {"L1": of_seeds(EFFECTS["L1"], values)}
    return judge(found, evidence, failures=not_learned(accuracies, [MAX]), words=words, **options)


def judge_pool_effect(sparsity: pd.DataFrame, accuracies: pd.DataFrame, samples: int) -> Judgement:
    """L2: average pool removes more than half of the exact zeros that the blocks have with max pool.

    Not testable where max pool leaves less than L1 asks for, at any seed: nothing to remove. Arguments as there.
    """
    values = {model: _of(sparsity, model, WITHOUT_SHORTCUTS) for model in (MAX, AVERAGE)}
    pools = [100 * _of(sparsity, model, "at_stem_pool").mean() for model in (MAX, AVERAGE)]
    seeds = sorted(set(values[MAX].index) & set(values[AVERAGE].index))
    with_max, with_average = values[MAX][seeds], values[AVERAGE][seeds]
    evidence = (
        f"exact zeros in the blocks {100 * with_max.mean():.1f} % with max pool, {100 * with_average.mean():.1f} % "
        f"with average pool; at the pool itself {pools[0]:.1f} and {pools[1]:.1f} %"
    )
    if len(seeds) and with_max.min() < EFFECTS["L1"].smallest:
        reason = f"no {EFFECTS['L1'].smallest:.0%} of zeros in the blocks to remove"
        return untestable("L2", f"{reason}; {evidence}", seeds=seeds, samples=samples)
    found = {"L2": of_seeds(EFFECTS["L2"], 1 - with_average / with_max)}
    failures, words = not_learned(accuracies, [MAX, AVERAGE]), {"L2": "share of the zeros that average pool removes"}
    return judge(found, evidence, seeds=[int(seed) for seed in seeds], samples=samples, failures=failures, words=words)


def headline(rows: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy at 6/255 per model and seed: worst case over the attacks of each group of threat models."""
    at_eps = rows[(rows.eps - HEADLINE_EPS).abs() < 1e-9]
    groups = {
        "authors": (AUTHORS.name,),
        "encoded, BN eval": (ENCODED.name,),
        "image": (IMAGE.name, IMAGE_SMOOTH.name),
    }
    parts = []
    for name, members in groups.items():
        chosen = at_eps[at_eps.threat_model.isin(members)]
        parts.append(robust_accuracy(chosen, by=["model", "seed"]).assign(threat_model=name))
    return pd.concat(parts, ignore_index=True)


def _of(sparsity: pd.DataFrame, model: str, column: str) -> pd.Series:
    """A column by seed, in the authors' mode."""
    rows = sparsity[(sparsity.model == model) & (sparsity.batch_norm == "train")]
    return rows.set_index("seed")[column].sort_index()
