"""The verdicts for readers: a narrow table for the front page, and a page with the evidence of each claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from snnlib.companion import paths
from snnlib.companion.report.claims import CLAIMS, published_path, read_claims_in
from snnlib.errors import InputError

PAGE = "verdicts.md"
NOT_RUN = "not run yet"
DECIDED = ("reproduced", "not reproduced", "mixed", "inconclusive at this size", "not testable", NOT_RUN)


def judged() -> dict[str, list[tuple[str, dict[str, str]]]]:
    """Claim -> profile and line of `claims.csv`, of every published profile; the first is what is best known.

    Those with a verdict come first, and of those the larger profile. Errors: InputError where no profile is published.
    """
    tables = {profile: read_claims_in(published_path(profile)) for profile in paths.published_with("claims.csv")}
    if not tables:
        raise InputError(f"no claims.csv in {paths.FIGURES}; expected one; ./run_all.sh --publish writes it")
    lines = {profile: {line["claim"]: line for line in table.to_dict("records")} for profile, table in tables.items()}
    return {
        claim: sorted(((name, lines[name][claim]) for name in lines), key=lambda each: each[1]["verdict"] == NOT_RUN)
        for claim in CLAIMS
    }


def verdict_table_markdown() -> str:
    """A table for a narrow screen, which has room for two columns: claim; verdict, number, where it was judged.

    The verdict links to its evidence.
    """
    lines = ["| claim | verdict, number [95&nbsp;%], profile |", "|---|---|"]
    for claim, ((profile, line), *_) in judged().items():
        link = f"[**{line['verdict']}**](figures/{PAGE}#{claim.lower()})"
        told = [link, number(line), "" if line["verdict"] == NOT_RUN else f"`{profile}`"]
        cells = (f"{claim}: {line['statement']}", "<br>".join(filter(None, told)))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def tally() -> str:
    """How many claims have which verdict, and how many were judged at which profile, in words."""
    best = [lines[0] for lines in judged().values()]
    verdicts = [line["verdict"] for _, line in best]
    counted = [f"{verdicts.count(verdict)} {verdict}" for verdict in DECIDED if verdict in verdicts]
    places = Counter(profile for profile, line in best if line["verdict"] != NOT_RUN)
    where = [f"{places[name]} at profile `{name}`" for name in paths.published_with("claims.csv") if places[name]]
    return f"Of {len(best)} claims: {', '.join(counted)}. Judged: {', '.join(where)}."


def number(line: Mapping[str, str]) -> str:
    """A claim's estimate with its interval and unit, from a line of `read_claims`; empty where there is none."""
    if not line["estimate"]:
        return ""
    interval = f"{line['estimate']} [{line['low']}, {line['high']}]"
    return f"{interval} {line['unit']}" if line["unit"] in ("%", "points") else f"{line['unit']} {interval}"


def evidence_markdown() -> str:
    """The page `figures/verdicts.md`: a section per claim, with all that stands in each profile's `claims.csv`."""
    tables = [f"[{profile}/claims.csv]({profile}/claims.csv)" for profile in paths.published_with("claims.csv")]
    lines = [
        "# The verdicts and their evidence",
        "",
        f"{tally()} The largest profile that has judged a claim decides; what another says of it stands below. Each",
        "verdict follows from a rule in code, in `snnlib/companion/verdicts/`: a smallest effect that counts, a 95 %",
        "interval, and preconditions (has every network compared learned? was the treatment applied?). How often each",
        f"rule errs is in notebook 99. The same as a table: {', '.join(tables)}.",
    ]
    for claim, told in judged().items():
        lines += ["", f"## {claim}", "", f"{CLAIMS[claim]}: **{told[0][1]['verdict']}**."]
        for profile, line in told:
            lines += ["", f"Profile `{profile}`: **{line['verdict']}**.", *_facts(line)]
    return "\n".join(lines) + "\n"


def _facts(line: Mapping[str, str]) -> list[str]:
    notebook = next(paths.NOTEBOOKS.glob(f"{line['notebook'][:2]}_*.ipynb"), None) if line["notebook"] else None
    told = {
        "number [95 %]": number(line),
        "would have counted": line["would_count"],
        "evidence": line["evidence"],
        "size": _size(line),
        "p, by Holm's method": line["p_holm"],
        "threat model": line["threat_model"],
        "the claim stands in": line["source"],
        "notebook": f"[{notebook.stem}](../notebooks/{notebook.name})" if notebook else "",
    }
    facts = [f"* {name}: {text}" for name, text in told.items() if text]
    return ["", *facts] if facts else []


def _size(line: Mapping[str, str]) -> str:
    return f"{line['samples']} images or gradients, seeds {line['seeds'].replace(';', ', ')}" if line["samples"] else ""
