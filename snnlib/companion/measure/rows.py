"""Result rows: one per sample × attack × surrogate × eps × seed; robustness is a query over them.

The worst case of a sample is `success.any()` over the rows that share it, so a new attack only adds rows.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from snnlib.errors import InputError
from snnlib.files import write_atomic

ROW_SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("model", pa.string()),
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("sample", pa.int64()),
        ("label", pa.int64()),
        ("seed", pa.int64()),
        ("threat_model", pa.string()),
        ("attack", pa.string()),
        ("space", pa.string()),
        ("batch_norm", pa.string()),
        ("norm", pa.string()),
        ("eps", pa.float64()),
        ("steps", pa.int64()),
        ("step_size", pa.float64()),
        ("restarts", pa.int64()),
        ("surrogate", pa.string()),
        ("encoder_gradient", pa.string()),
        ("clean_correct", pa.bool_()),
        ("success", pa.bool_()),
        ("first_successful_step", pa.int64()),
        ("loss", pa.float64()),
        ("linf", pa.float64()),
        ("l2", pa.float64()),
        ("forwards", pa.int64()),
        ("backwards", pa.int64()),
        ("kernel", pa.string()),
        ("device", pa.string()),
    ]
)
ROW_COLUMNS = tuple(ROW_SCHEMA.names)
SAMPLE_KEY = ["dataset", "split", "sample"]
NORMAL_QUANTILE_95 = 1.959963984540054


def write_table(path: Path | str, table: pd.DataFrame, schema: pa.Schema | None = None) -> Path:
    """Write a DataFrame (its index is dropped) as parquet, atomically; equal tables give equal bytes.

    Raises InputError where a column does not fit the schema.
    """
    try:
        arrow = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"the table for {path} does not fit its columns: {' '.join(str(error).split())}"
        ) from error
    buffer = io.BytesIO()
    # pandas' own metadata names its version: leaving it out keeps the bytes a function of the numbers.
    pq.write_table(arrow.replace_schema_metadata(None), buffer, compression="zstd")
    return write_atomic(path, buffer.getvalue())


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a parquet file. Raises InputError when it is missing or damaged."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; run the notebook that makes it")
    try:
        return pq.read_table(path).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path} is damaged ({str(error).splitlines()[0]}); delete it and run again"
        ) from error


def check_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` in the order of `ROW_COLUMNS`. Raises InputError on a missing, extra or partly empty column."""
    missing = [name for name in ROW_COLUMNS if name not in rows.columns]
    extra = [name for name in rows.columns if name not in ROW_COLUMNS]
    if missing or extra:
        raise InputError(
            f"result rows have missing columns {missing} and unknown columns {extra}; see results.ROW_COLUMNS"
        )
    measured = {field.name for field in ROW_SCHEMA if pa.types.is_floating(field.type)} - {"eps"}
    for name in ROW_COLUMNS:
        if name not in measured and rows[name].isna().any():
            raise InputError(
                f"column {name!r} of the result rows has empty cells; only {sorted(measured)} may"
            )
    return rows[list(ROW_COLUMNS)]


def write_rows(path: Path | str, rows: pd.DataFrame) -> Path:
    """Check rows against the schema and write them as parquet, atomically."""
    return write_table(path, check_rows(rows), ROW_SCHEMA)


def wilson_interval(successes: int, total: int, quantile: float = NORMAL_QUANTILE_95) -> tuple[float, float]:
    """Wilson score interval of a share; 95 % by default. (nan, nan) when `total` is 0.

    **Source:** Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.
    """
    if not 0 <= successes <= total:
        raise InputError(f"{successes} successes of {total}; expected 0 <= successes <= total")
    if total == 0:
        return math.nan, math.nan
    share, z2 = successes / total, quantile**2
    centre = share + z2 / (2 * total)
    half = quantile * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    # At 0 and at `total` one bound is exact in real numbers, but not in floating point.
    low = 0.0 if successes == 0 else (centre - half) / (1 + z2 / total)
    high = 1.0 if successes == total else (centre + half) / (1 + z2 / total)
    return low, high


def mean_and_range(shares: Sequence[float]) -> str:
    """Mean of the seeds in percent and, in brackets, the lowest and the highest of them."""
    percent = 100 * np.asarray(shares, dtype=float)
    return f"{percent.mean():.1f} [{percent.min():.1f}, {percent.max():.1f}]"


def robust_accuracy(rows: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Share of samples that no row broke: per-sample worst case over everything that is not in `by`.

    One line per group: the columns of `by`, samples, robust_accuracy, and its 95 % interval low, high.
    Name "model" and "seed" in `by` unless breaking one network is to count as breaking all of them.
    """
    broken = _per_sample(rows, by, "success", "any")
    return _shares(~broken, by, "robust_accuracy")


def clean_accuracy(rows: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Share of samples classified correctly without attack; columns as in `robust_accuracy`.

    Raises InputError when the rows of a sample disagree, as they do across models: name those in `by`.
    """
    correct = _per_sample(rows, by, "clean_correct", "any")
    if not correct.equals(_per_sample(rows, by, "clean_correct", "all")):
        raise InputError(
            f"clean_correct differs between rows of a sample grouped by {list(by)}; add 'model' or 'seed'"
        )
    return _shares(correct, by, "clean_accuracy")


def attack_success_rate_among_correct(rows: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Share of broken samples among those classified correctly without attack (columns as above)."""
    broken = _per_sample(rows[rows["clean_correct"].astype(bool)], by, "success", "any")
    return _shares(broken, by, "attack_success_rate")


def _per_sample(rows: pd.DataFrame, by: Sequence[str], column: str, reduction: str) -> pd.Series:
    unknown = [name for name in by if name not in rows.columns]
    if unknown:
        raise InputError(f"cannot group by {unknown}; the rows have: {', '.join(rows.columns)}")
    if rows.empty:
        raise InputError("no result rows left to summarise; check the filter, or run the attack first")
    key = list(by) + [name for name in SAMPLE_KEY if name not in by]
    return rows.groupby(key, sort=True, dropna=False)[column].agg(reduction).astype(bool)


def _shares(flags: pd.Series, by: Sequence[str], name: str) -> pd.DataFrame:
    groups = flags.groupby(level=list(by), sort=True, dropna=False) if by else [((), flags)]
    lines = []
    for key, group in groups:
        values = key if isinstance(key, tuple) else (key,)
        low, high = wilson_interval(int(group.sum()), len(group))
        share = float(np.mean(group.to_numpy()))
        lines.append(
            dict(zip(by, values, strict=True))
            | {"samples": len(group), name: share, "low": low, "high": high}
        )
    return pd.DataFrame(lines)
