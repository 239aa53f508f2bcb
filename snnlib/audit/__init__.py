"""Is it robust, or is its attacker blind? `audit(model, images, labels, budget)` measures the signs of masking."""

from snnlib.audit.case import Effort
from snnlib.audit.report import REQUIRED, VERDICTS, AuditReport, Finding, judge
from snnlib.audit.run import CHECKS, EFFORTS, audit

__all__ = ["CHECKS", "EFFORTS", "REQUIRED", "VERDICTS", "AuditReport", "Effort", "Finding", "audit", "judge"]
