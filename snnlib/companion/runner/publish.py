"""Copy what runs left outside of the repository's files to where it is committed, to be seen without running."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snnlib.companion import paths
from snnlib.companion.report import claims, figures, front_page
from snnlib.companion.report.leaderboard import publish_leaderboard
from snnlib.companion.report.row_archive import publish_rows
from snnlib.companion.runner.published_tables import publish_tables
from snnlib.companion.runner.series import cell_text
from snnlib.companion.runner.stamps import Run
from snnlib.companion.sizes import get_profile
from snnlib.files import write_atomic

NOT_OURS = {"injected-parameters", "papermill-error-cell-tag"}


def publish(profile: str, runs: list[Run]) -> None:
    """Copy figures, tables, verdicts and rows of these runs to `figures/<profile>`; outputs into notebooks if told."""
    source, target = paths.figures_dir(profile), paths.published_dir(profile)
    made, shown = figures.read_manifest(profile), figures.read_manifest_in(target, profile)
    numbers = {run.notebook.number for run in runs}
    kept = {name: entry for name, entry in shown["files"].items() if name[:2] not in numbers}
    new = {name: entry for name, entry in made["files"].items() if name[:2] in numbers}
    for name in new:
        write_atomic(target / name, (source / name).read_bytes())
    for path in target.glob("[0-9][0-9]_*"):
        if path.name[:2] in numbers and path.name not in new:
            path.unlink()
    times = {number: entry for number, entry in made["notebooks"].items() if number in numbers}
    manifest = {"profile": profile, "files": kept | new, "notebooks": shown["notebooks"] | times}
    write_atomic(target / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    claims.publish(profile, numbers)
    publish_rows(profile, numbers)
    if get_profile(profile).rounded:
        publish_tables(profile, numbers)
    publish_leaderboard(profile)
    if get_profile(profile).in_notebooks:
        for run in runs:
            publish_outputs(run.notebook.path, run.executed)
    readme = paths.ROOT / "README.md"
    if readme.is_file():  # a folder of notebooks of one's own has none
        front_page.write(readme)


def publish_outputs(source: Path, executed: Path) -> None:
    """Rewrite the notebook `source` with the outputs of `executed`; equal outputs give equal bytes.

    Text, code and metadata stay those of `source`; what papermill added is left behind.
    Raises RuntimeError when the two differ in code.
    """
    notebook = json.loads(source.read_text(encoding="utf-8"))
    ran = [cell for cell in _code_cells(json.loads(executed.read_text(encoding="utf-8"))) if _is_ours(cell)]
    code_cells = _code_cells(notebook)
    if [cell_text(cell) for cell in code_cells] != [cell_text(cell) for cell in ran]:
        raise RuntimeError(f"{executed} was made from other code than {source} has; run the notebook again")
    for count, (cell, done) in enumerate(zip(code_cells, ran, strict=True), start=1):
        cell["execution_count"] = count
        cell["outputs"] = [_renumbered(output, count) for output in done["outputs"]]
    for index, cell in enumerate(notebook["cells"]):
        cell.setdefault("id", f"cell-{index:02}")
        cell.setdefault("metadata", {}).pop("papermill", None)
    notebook.setdefault("metadata", {}).pop("papermill", None)
    notebook["nbformat"], notebook["nbformat_minor"] = 4, 5
    write_atomic(source, json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _is_ours(cell: dict[str, Any]) -> bool:
    return not NOT_OURS & set(cell["metadata"].get("tags", []))


def _renumbered(output: dict[str, Any], count: int) -> dict[str, Any]:
    return {**output, "execution_count": count} if "execution_count" in output else output
