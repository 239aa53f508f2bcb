"""Theorems that can fail: statements with proof, assumptions, check and counter-example, and how they are measured."""

from snnlib.theory.bounds import (
    first_order_ratio,
    guaranteed_progress,
    poisson_distance,
    poisson_l1_radius,
    ratio_bounds,
    remainder_factor,
    thinned_snr,
)
from snnlib.theory.certificate import certified_accuracy, gaussian_certificate, poisson_certificate
from snnlib.theory.checks import (
    CheckResult,
    Finding,
    check_circulation,
    check_constancy,
    check_definitions,
    check_density,
    check_ratio,
    check_remainder,
)
from snnlib.theory.constancy import NoRadius, constancy_radius
from snnlib.theory.density import weight_gradient_density
from snnlib.theory.functions import ClosedForm, LocalFunction, Restricted, TrueClassProbability
from snnlib.theory.measured import vulnerability_table
from snnlib.theory.relaxation import relaxed, soft_spike
from snnlib.theory.vulnerability import adversarial_vulnerability, random_vulnerability, segment

__all__ = [
    "CheckResult",
    "ClosedForm",
    "Finding",
    "LocalFunction",
    "NoRadius",
    "Restricted",
    "TrueClassProbability",
    "adversarial_vulnerability",
    "certified_accuracy",
    "check_circulation",
    "check_constancy",
    "check_definitions",
    "check_density",
    "check_ratio",
    "check_remainder",
    "constancy_radius",
    "first_order_ratio",
    "gaussian_certificate",
    "guaranteed_progress",
    "poisson_certificate",
    "poisson_distance",
    "poisson_l1_radius",
    "random_vulnerability",
    "ratio_bounds",
    "relaxed",
    "remainder_factor",
    "segment",
    "soft_spike",
    "thinned_snr",
    "vulnerability_table",
    "weight_gradient_density",
]
