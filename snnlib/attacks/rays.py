"""RayS: looks for the direction in which the decision flips nearest, from decisions alone."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count, check_flag
from snnlib.attacks.queries import check_query_attack, labels_of, query, record_some
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate
from snnlib.runtime import sent

WHOLE_BOX = 1.0
"""The radius that reaches a corner of [0, 1] from everywhere."""


def rays(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "margin",
    queries: int = 2000,
    tolerance: float = 1e-4,
    early_stop: bool = True,
) -> AttackResult:
    """Hard-label attack: flip blocks of a direction of ±1 while that brings the decision boundary nearer ("linf").

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. gradient, generator: unused, there is no randomness.
    loss: for the report alone. queries: decisions asked per sample. tolerance: of the radius, in pixel units.
    early_stop: a sample leaves at the first radius of at most eps. False: the radius shrinks on until the queries are
    spent or no single pixel helps, and the point of the smallest radius is returned; `linf` is that radius, where the
    box does not cut it, and with eps = 1 it is there for every sample for which a boundary was found. A sample for
    which none of the corners of the box first tried is misclassified is out of its reach.
    A point within eps is judged by one pass more, on a fresh draw of a randomised model; a sample whose radius stays
    above eps ends, judged too, at eps along its best direction.
    `first_successful_step` counts directions; forwards = 1 (clean) + decisions asked + passes that judged.
    **Source:** Chen & Gu 2020 (RayS), algorithms 2 and 3 with the fast check; blocks in the order C, H, W.
    Errors: InputError for inputs or parameters that do not fit, and for another norm.
    """
    queries = check_count("queries", queries)
    check_flag("early_stop", early_stop)
    check_query_attack("rays", batch_norm, loss)
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 < tolerance <= 1:
        raise InputError(f"tolerance is {tolerance!r}; expected a length above 0 in pixel units, such as 1e-4")
    with open_session(model, images, labels, budget, None, generator, batch_norm, loss) as session:
        if budget.norm != "linf":
            raise InputError(f"rays got norm {budget.norm!r}; expected 'linf', the one it is made for; use square")
        session.record_clean()
        if len(session.active):
            _Rays(session, queries, tolerance).search(early_stop)
        return session.result()


class _Rays:
    """The search under way. Per active sample: its best direction, the radius there, queries left, directions tried.

    All but the directions is kept on the CPU, so that the host waits for the device once a query, to learn who was
    fooled, and once a judgement.
    """

    def __init__(self, session: Session, queries: int, tolerance: float) -> None:
        self.session, self.tolerance = session, tolerance
        x = session.active_origin.flatten(1)
        count, self.size = x.shape
        self.direction = torch.ones_like(x)
        self.radius = torch.full((count,), WHOLE_BOX, dtype=x.dtype)
        self.judged = torch.full_like(self.radius, torch.inf)
        self.left = torch.full((count,), queries)
        self.tried = torch.zeros_like(self.left)
        self.improved = torch.zeros_like(self.left, dtype=torch.bool)

    def search(self, early_stop: bool) -> None:
        """Try the all-plus direction, then flips of ever smaller blocks, round and round at the smallest."""
        self._try(self.direction.clone())
        blocks = 1
        while (self.left > 0).any():
            width = -(-self.size // blocks)
            self.improved.fill_(False)
            for first in range(0, self.size, width):
                if early_stop:
                    near = (self.radius <= self.session.budget.eps) & (self.radius < self.judged)
                    self._judge(near.nonzero().squeeze(1))
                if not (self.left > 0).any():
                    break
                candidate = self.direction.clone()
                candidate[:, first : first + width] *= -1
                self._try(candidate)
            if width == 1:
                self.left = torch.where(self.improved, self.left, 0)
            blocks = min(2 * blocks, self.size)
        self._judge(torch.arange(len(self.left)))

    def _try(self, candidate: Tensor) -> None:
        """Where `candidate` fools at the radius reached so far, go over to it and halve the way to its boundary."""
        places = (self.left > 0).nonzero().squeeze(1)
        self.tried[places] += 1
        places = places[self._fools(candidate, self.radius, places)]
        there = sent(places, candidate.device)
        self.direction[there] = candidate[there]
        before, low = self.radius.clone(), torch.zeros_like(self.radius)
        while len(places := places[(self.radius[places] - low[places] > self.tolerance) & (self.left[places] > 0)]):
            middle = (low + self.radius) / 2
            fools = self._fools(candidate, middle, places)
            self.radius[places[fools]] = middle[places[fools]]
            low[places[~fools]] = middle[places[~fools]]
        self.improved |= before - self.radius > self.tolerance

    def _fools(self, direction: Tensor, radius: Tensor, places: Tensor) -> Tensor:
        """[len(places)] bool, one query each."""
        if len(places) == 0:
            return torch.zeros_like(places, dtype=torch.bool)
        self.left[places] -= 1
        there = sent(places, direction.device)
        logits = query(self.session, self._points(direction, radius, places), there)
        return (logits.argmax(1) != labels_of(self.session, there)).cpu()

    def _points(self, direction: Tensor, radius: Tensor, places: Tensor) -> Tensor:
        there, length = sent(places, direction.device), sent(radius[places, None], direction.device)
        origin = self.session.active_origin[there]
        return (origin + (length * direction[there]).view_as(origin)).clamp(0, 1)

    def _judge(self, places: Tensor) -> None:
        """Record these samples at their radius, or at eps where it is larger; the fooled leave."""
        if len(places) == 0:
            return
        budget, self.judged[places] = self.session.budget, self.radius[places]
        x = self._points(self.direction, self.radius.clamp(max=budget.eps), places)
        there, tried = (sent(values, x.device) for values in (places, self.tried[places]))
        x = budget.project(x, self.session.active_origin[there])
        stay = record_some(self.session, x, there, tried)
        self.direction, stay = self.direction[stay], stay.cpu()
        for name in ("radius", "judged", "left", "tried", "improved"):
            setattr(self, name, getattr(self, name)[stay])
