"""The theorems as statements that can fail: text, assumptions, proof, a fitting case and a counter-example for each."""

from snnlib.companion.luu2025.statements.statements import STATEMENTS, Statement, overview, run_cases, statement

__all__ = ["STATEMENTS", "Statement", "overview", "run_cases", "statement"]
