"""The claims of the papers, and the verdicts that the notebooks record on them."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.verdicts.rules import BY_HOLM, VERDICTS, Judgement, holm
from snnlib.errors import InputError
from snnlib.files import file_lock, write_atomic

CLAIMS = {
    "L1": "SEW-ResNet with max pool has naturally sparse gradients inside its residual blocks",
    "L2": "Average pooling removes most of that sparsity",
    "L3": "The sparse network is as robust as defended ones without any defence",
    "L4": "Average pool raises clean accuracy and lowers robust accuracy",
    "L5": "Theorem 4.1 (of our reconstruction): the ratio bound holds",
    "L6a": "Vulnerability goes with the non-zeros of the input gradient (correlation)",
    "L6b": "Filling in zeros of the gradient makes the same network more vulnerable (causal test)",
    "L7": "Input-gradient sparsity bounds weight-gradient density (theorem 4.3, of our reconstruction)",
    "L8": "The effect holds on event data",
    "C1": "Conversion and robust fine-tuning beat end-to-end adversarial training of the same SNN, up to 2×",
    "C2": "Clean accuracy is kept within about a point of the ANN",
    "C3": "Any robust objective (AT, TRADES, MART) transfers",
    "C4": "The surrogate ensemble finds what the training surrogate misses (11–14 points)",
    "C5": "Adversarially tuned thresholds matter",
    "C6": "The ANN's BatchNorm affine parameters can be kept",
    "Q1a": "The schedule (short trials, restarts, momentum) strengthens the attack",
    "Q1b": "Choosing the surrogate per image strengthens it",
    "Q1c": "The worst-case schedule breaks, for the same passes, no fewer images than any single attack",
    "Q2": "Gradient-free attacks do not beat the white-box ensemble (else: masking)",
    "Q3": "Further objectives plug in",
    "Q4": "Hybrid training and curriculum help",
}
COLUMNS = (
    "claim",
    "statement",
    "verdict",
    "estimate",
    "low",
    "high",
    "unit",
    "would_count",
    "evidence",
    "seeds",
    "samples",
    "notebook",
    "threat_model",
    "source",
    "p",
    "p_holm",
)


def claims_path(profile: str) -> Path:
    """`claims.csv` among the profile's figures."""
    return paths.figures_dir(profile) / "claims.csv"


def published_path(profile: str) -> Path:
    """`figures/<profile>/claims.csv`."""
    return paths.published_dir(profile) / "claims.csv"


def publish(profile: str, numbers: set[str]) -> None:
    """Copy the verdicts recorded by the notebooks with these numbers to the published table; the others stay."""
    judged = {line["claim"]: line for line in read_claims(profile).to_dict("records")}
    table = read_claims_in(published_path(profile)).set_index("claim", drop=False)
    for claim in CLAIMS:
        if {judged[claim]["notebook"][:2], table.loc[claim, "notebook"][:2]} & numbers:
            table.loc[claim, list(COLUMNS)] = [judged[claim][name] for name in COLUMNS]
    _write(published_path(profile), table)


def record(
    profile: str,
    claim: str,
    judgement: Judgement,
    *,
    notebook: str,
    threat_model: str = "",
    source: str = "",
) -> None:
    """Set the verdict on a claim in `figures/<profile>/claims.csv`; `source` is the place in the paper.

    The other claims keep their numbers; "reproduced" and "inconclusive" follow from p by Holm's method over all claims
    of the paper that have been judged. Raises InputError on an unknown claim or verdict, or one without evidence.
    """
    if claim not in CLAIMS:
        raise InputError(f"unknown claim {claim!r}; expected one of: {', '.join(CLAIMS)}")
    if judgement.verdict not in VERDICTS:
        raise InputError(f"unknown verdict {judgement.verdict!r}; expected one of: {', '.join(VERDICTS)}")
    if not judgement.evidence.strip():
        raise InputError(f"claim {claim} is {judgement.verdict!r} without evidence; give one line with the numbers")
    line = {
        **{name: _number(getattr(judgement, name)) for name in ("estimate", "low", "high", "p")},
        **{name: getattr(judgement, name) for name in ("verdict", "unit", "would_count")},
        "evidence": " ".join(judgement.evidence.split()),
        "seeds": ";".join(str(seed) for seed in judgement.seeds),
        "samples": str(judgement.samples),
        "notebook": str(notebook),
        "threat_model": threat_model,
        "source": source,
    }
    with file_lock(paths.lock_path(f"claims-{profile}")):
        table = read_claims(profile).set_index("claim", drop=False)
        table.loc[claim, list(line)] = list(line.values())
        _write(claims_path(profile), table)


def verdicts_of(profile: str, number: str) -> dict[str, str]:
    """Claim -> what the notebook with this two-digit number recorded, which is the same whatever others recorded."""
    lines = [line for line in read_claims(profile).to_dict("records") if line["notebook"][:2] == number]
    # Whether p is small enough depends on the other claims (Holm); p itself does not.
    own = [f"p = {line['p']}" if line["verdict"] in BY_HOLM and line["p"] else line["verdict"] for line in lines]
    return {line["claim"]: f"{text}: {line['evidence']}" for line, text in zip(lines, own, strict=True)}


def forget_verdicts(profile: str, number: str) -> None:
    """Set the claims judged by a notebook back to "not run yet", before it runs again."""
    if not verdicts_of(profile, number):
        return
    with file_lock(paths.lock_path(f"claims-{profile}")):
        table = read_claims(profile)
        old = table["notebook"].str[:2] == number
        table.loc[old, list(COLUMNS[2:])] = ""
        table.loc[old, "verdict"] = "not run yet"
        _write(claims_path(profile), table)


def read_claims(profile: str) -> pd.DataFrame:
    """All claims in order, every cell a string; the verdict is "not run yet" where none is recorded."""
    return read_claims_in(claims_path(profile))


def read_claims_in(path: Path) -> pd.DataFrame:
    """The claims of one table; a missing one has no verdicts."""
    blank = {"verdict": "not run yet"}
    judged = {}
    if path.is_file():
        stored = pd.read_csv(path, dtype=str, keep_default_na=False)
        if tuple(stored.columns) != COLUMNS:
            raise InputError(
                f"{path} has the columns {list(stored.columns)}; expected {list(COLUMNS)}; delete it and run again"
            )
        judged = {line["claim"]: line for line in stored.to_dict("records")}
    lines = [
        {**judged.get(claim, blank), "claim": claim, "statement": text} for claim, text in CLAIMS.items()
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS), dtype=object).fillna("")


def _write(path: Path, table: pd.DataFrame) -> None:
    adjusted = holm(table.assign(p=pd.to_numeric(table.p)))
    table = table.assign(verdict=adjusted.verdict, p_holm=adjusted.p_holm.map(_number))
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n")
    write_atomic(path, buffer.getvalue())


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
