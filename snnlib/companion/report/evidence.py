"""The verdicts for readers: a narrow table for the front page, and a page with the evidence of each claim."""

from __future__ import annotations

from collections.abc import Mapping

from snnlib.companion import paths
from snnlib.companion.report.claims import published_path, read_claims_in

PAGE = "verdicts.md"
DECIDED = ("reproduced", "not reproduced", "mixed", "inconclusive at this size", "not testable", "not run yet")


def judged(profile: str) -> list[dict[str, str]]:
    """The published claims in order, every value a string."""
    return read_claims_in(published_path(profile)).to_dict("records")


def verdict_table_markdown(profile: str) -> str:
    """A table for a narrow screen: claim; verdict, which links to its evidence, and one number with its interval."""
    lines = ["| claim | verdict, number [95&nbsp;%] |", "|---|---|"]
    for line in judged(profile):
        link = f"[**{line['verdict']}**](figures/{PAGE}#{line['claim'].lower()})"
        cells = (f"{line['claim']}: {line['statement']}", f"{link}<br>{number(line)}".removesuffix("<br>"))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def tally(profile: str) -> str:
    """How many claims have which verdict, in words."""
    verdicts = [line["verdict"] for line in judged(profile)]
    counted = [f"{verdicts.count(verdict)} {verdict}" for verdict in DECIDED if verdict in verdicts]
    return f"Of {len(verdicts)} claims: {', '.join(counted)}."


def number(line: Mapping[str, str]) -> str:
    """A claim's estimate with its interval and unit, from a line of `read_claims`; empty where there is none."""
    if not line["estimate"]:
        return ""
    interval = f"{line['estimate']} [{line['low']}, {line['high']}]"
    return f"{interval} {line['unit']}" if line["unit"] in ("%", "points") else f"{line['unit']} {interval}"


def evidence_markdown(profile: str) -> str:
    """The page `figures/verdicts.md`: a section per claim, with all that stands in `claims.csv`."""
    notebooks = {path.name[:2]: path.name for path in paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")}
    lines = [
        "# The verdicts and their evidence",
        "",
        f"{tally(profile)} All are of profile `{profile}`. Each follows from a rule in code, in",
        "`snnlib/companion/verdicts/`: a smallest effect that counts, a 95 % interval, and preconditions (has every",
        "network compared learned? was the treatment applied?). How often each rule errs is in notebook 99.",
        f"The same as a table: [claims.csv]({profile}/claims.csv).",
    ]
    for line in judged(profile):
        lines += ["", f"## {line['claim']}", "", f"{line['statement']}: **{line['verdict']}**."]
        told = {
            "number [95 %]": number(line),
            "would have counted": line["would_count"],
            "evidence": line["evidence"],
            "size": _size(line),
            "p, by Holm's method": line["p_holm"],
            "threat model": line["threat_model"],
            "the claim stands in": line["source"],
        }
        told = {name: text for name, text in told.items() if text}
        if line["notebook"][:2] in notebooks:
            file = notebooks[line["notebook"][:2]]
            told["notebook"] = f"[{file.removesuffix('.ipynb')}](../notebooks/{file})"
        lines += [""] * bool(told) + [f"* {name}: {text}" for name, text in told.items()]
    return "\n".join(lines) + "\n"


def _size(line: Mapping[str, str]) -> str:
    return f"{line['samples']} images or gradients, seeds {line['seeds'].replace(';', ', ')}" if line["samples"] else ""
