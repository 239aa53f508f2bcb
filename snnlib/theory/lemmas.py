"""Checks of the statements that need no trained network: thinning, progress, pooling, residual sums, certificates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from statistics import NormalDist

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.models.blocks import SEWBlock
from snnlib.sparsity import l0, l1, l2
from snnlib.theory.bounds import (
    certified_vulnerability,
    guaranteed_progress,
    poisson_distance,
    poisson_l1_radius,
    thinned_snr,
)
from snnlib.theory.checks import CheckResult, found

INDEPENDENT, SMOOTH = "the zeros are independent of the gradient", "the risk is H-smooth"
SAME_DENSITY = "weight and input gradients have the same density"
FIXED_NORM = "‖g‖₂ stays when the density changes"
MAX_POOL, NO_OVERLAP, ADDITION = "the pool takes a maximum", "windows do not overlap", "the block adds its shortcut"
UNIFORM_IN_BALL, POISSON, HALF_SPACE = (
    "the noise is uniform in the L2 ball",
    "spikes are independent with probability x",
    "the network is a half-space",
)
DRAWS = 200_000
SIGMAS = 5


def check_thinning(gradient: Tensor, mask: Tensor) -> CheckResult:
    """R-4.2 on draws of one coordinate: gradient [B] and the zeros' mask [B] (0 or 1) that thins it.

    Compares the measured SNR of gradient · mask with q μ²/(σ² + (1 − q) μ²), the draws' own moments and share q in it,
    and asks that this is at most q times that of the gradient. Given the draws, independent zeros are a random choice
    of them; what chance may do is bounded (`_chance`), with a risk of 2e-5, whatever the tails.
    Independence is judged likewise, by the means of G and |G| over the draws that are kept.
    Errors: InputError for fewer than 100 draws or a mask without any 1.
    """
    gradient, mask = gradient.double(), mask.double()
    if len(gradient) < 100 or mask.sum() == 0:
        raise InputError(f"{len(gradient)} draws with {int(mask.sum())} kept; expected at least 100, and some kept")
    density, mean, deviation = float(mask.mean()), float(gradient.mean()), float(gradient.std(correction=0))
    kept = gradient[mask > 0]
    tied = max(
        abs(float(chosen.mean() - values.mean())) / max(_chance(values, len(kept)), 1e-12 * float(values.abs().amax()))
        for values, chosen in ((gradient, kept), (gradient.abs(), kept.abs()))
    )
    thinned = gradient * mask
    measured = float(thinned.mean() ** 2 / thinned.var(correction=0))
    expected, whole = thinned_snr(density, mean, deviation), thinned_snr(1.0, mean, deviation)
    # (E G')² against its share of E G'²: polynomials of two means over the kept draws, unlike their ratio.
    share = 1.0 if math.isinf(expected) else expected / (1 + expected)
    gap = float(share * thinned.square().mean() - thinned.mean() ** 2)
    square = float(gradient.square().mean())
    leading = _chance(mean**2 / square * gradient.square() - 2 * mean * gradient, len(kept))
    error = density**2 * (leading + _chance(gradient, len(kept)) ** 2) + 1e-12 * square
    reason = f"the draws kept differ from all {tied:.2g} times as much as chance allows"
    findings = (found(INDEPENDENT, tied <= 1, reason),)
    evidence = f"SNR {measured:.4g} at density {density:.3g}, expected {expected:.4g}, unthinned {whole:.4g}"
    table = pd.DataFrame([{"density": density, "snr": measured, "expected": expected, "unthinned": whole}])
    fits = abs(gap) <= error and expected <= density * whole * (1 + 1e-12)
    return CheckResult("4.2", findings, fits, evidence, table)


def _chance(values: Tensor, kept: int) -> float:
    """How far the mean of `kept` of the values [B], chosen at random, may be from the mean of all: Bernstein's bound.

    Exceeded with a probability of at most 2 exp(−`SIGMAS`²/2) = 7e-6, whatever the values are.
    **Source:** Hoeffding 1963, theorem 4, for drawing without replacement.
    """
    exponent = SIGMAS**2 / 2
    range_ = float((values - values.mean()).abs().amax())
    return math.sqrt(2 * exponent * float(values.var(correction=0)) / kept) + 2 * exponent * range_ / (3 * kept)


def check_progress(
    hessian: Tensor,
    point: Tensor,
    covariance: Tensor,
    density: float,
    *,
    smoothness: float | None = None,
    input_gradient: Tensor | None = None,
    input_density: float | None = None,
    keep_norm: bool = True,
) -> CheckResult:
    """R-4.4 on the risk L(w) = wᵀ A w / 2, where everything is exact, beside an input gradient that is thinned too.

    hessian: A [n, n], symmetric; point: w [n]; covariance [n, n] of the gradient noise; smoothness: H, None for the
    largest eigenvalue. The gradient A w + noise is thinned coordinatewise by independent zeros of the given density.
    input_gradient: g [d] without zeros (None: 100 normal numbers), of which a share `input_density` (None: the same)
    is kept, 200 times at random; keep_norm stretches what is kept to ‖g‖₂.
    conclusion: the expected decrease at the prescribed step is at least P(q); from q = 1 to `density`, the best
    decrease that smoothness guarantees, from the moments of the thinned gradient, and the bound ‖g‖₀ ‖g‖₂² of ρ_adv /
    eps², averaged over what was kept, both fall by the factor q.
    Errors: InputError for a point with zero gradient, where P is 0.
    """
    a, w, noise = (given.cpu().double() for given in (hessian, point, covariance))
    g = a @ w
    if not g.any():
        raise InputError("the gradient at the point is zero; expected another point: there is no progress to guarantee")
    largest = float(torch.linalg.eigvalsh(a).abs().amax())
    h = largest if smoothness is None else smoothness
    moment = float(g @ g + noise.trace())
    step = float(g @ g) / (h * moment)
    # E G'G'ᵀ of a thinned G: q² off the diagonal, q on it.
    second = density**2 * (torch.outer(g, g) + noise)
    second.diagonal().copy_(density * (torch.outer(g, g) + noise).diagonal())
    decrease = float(step * density * (g @ g) - step**2 / 2 * (a * second).sum())
    promised = guaranteed_progress(density, float(g.norm()), h, moment)
    best = float(density * (g @ g)) ** 2 / (2 * h * float(second.trace()))
    progress = best / guaranteed_progress(1.0, float(g.norm()), h, moment)
    vulnerable = _thinned_bound(input_gradient, density if input_density is None else input_density, keep_norm)
    findings = (
        found(SMOOTH, largest <= h * (1 + 1e-9), f"the Hessian reaches {largest:.3g}, H is {h:.3g}"),
        found(SAME_DENSITY, input_density in (None, density), f"{input_density} in the input, {density:g} in weights"),
        found(FIXED_NORM, keep_norm or density == 1, "what is left of g is not stretched, so ‖g‖₂² falls by q as well"),
    )
    # A whole number of coordinates is kept, so that a share is met up to one of them.
    rounding = 1 / (100 if input_gradient is None else len(input_gradient))
    linear = math.isclose(progress, density, rel_tol=1e-9) and abs(vulnerable - density) <= 0.05 * density + rounding
    evidence = (
        f"decrease {decrease:.4g}, guaranteed {promised:.4g}; at density {density:g} the guarantee is {progress:.3g} "
        f"of the whole, the bound of ρ_adv {vulnerable:.3g}"
    )
    table = pd.DataFrame([{"density": density, "decrease": decrease, "guaranteed": promised, "vulnerable": vulnerable}])
    return CheckResult("4.4", findings, decrease >= promised * (1 - 1e-9) and linear, evidence, table)


def _thinned_bound(gradient: Tensor | None, density: float, keep_norm: bool) -> float:
    """Mean of ‖g‖₀ ‖g‖₂² over random choices of a share of its coordinates, relative to that of the whole g."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(100, generator=generator, dtype=torch.float64) if gradient is None else gradient.cpu().double()
    ranks = torch.rand(200, len(g), generator=generator).argsort(1).argsort(1)
    kept = g * (ranks < max(1, round(density * len(g))))
    if keep_norm:
        kept = kept * (g.norm() / kept.norm(dim=1, keepdim=True))
    bounds = kept.ne(0).sum(1) * kept.square().sum(1)
    return float(bounds.mean() / certified_vulnerability(1.0, len(g), float(g.norm()), 1.0))


def check_pool(pool: nn.Module, height: int, width: int, *, silent: float = 0.0, seed: int = 0) -> CheckResult:
    """P1: zeros in the input gradient of a 2-d pool; `silent` is the share of windows whose gradient from above is 0.

    conclusion: no more non-zeros than windows with a gradient (i); and no position with a gradient that no such window
    covers, nor, behind an average pool, one that is covered without a gradient (ii). Errors: InputError for another
    pool than these two, or a dilated one.
    """
    if not isinstance(pool, nn.MaxPool2d | nn.AvgPool2d) or getattr(pool, "dilation", 1) != 1:
        raise InputError(f"pool is {pool}; expected an nn.MaxPool2d or nn.AvgPool2d without dilation")
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 3, height, width, generator=generator, dtype=torch.float64).requires_grad_(True)
    out = pool(x)
    above = torch.rand(out.shape, generator=generator, dtype=torch.float64) + 0.1
    above = above * (torch.rand(out.shape, generator=generator) >= silent)
    (gradient,) = torch.autograd.grad(out, x, above)
    options = {name: getattr(pool, name) for name in ("kernel_size", "stride", "padding", "ceil_mode")}
    (covered,) = torch.autograd.grad(F.avg_pool2d(x, **options), x, above.ne(0).double())
    heard, reached, moved = (int(values.ne(0).sum()) for values in (above, covered, gradient))
    is_max = isinstance(pool, nn.MaxPool2d)
    inside = not gradient[covered == 0].any() and (is_max or moved == reached)
    findings = (found(MAX_POOL, is_max, f"it is {type(pool).__name__}"),)
    share, promised = 1 - moved / x.numel(), max(0.0, 1 - heard / x.numel())
    evidence = (
        f"{share:.3f} zeros, at least {promised:.3f} promised; {1 - reached / x.numel():.3f} of the positions lie in "
        "no window with a gradient"
    )
    return CheckResult("P1", findings, moved <= heard and inside, evidence)


def check_residual(block: nn.Module, x: Tensor) -> CheckResult:
    """P2 on a residual block with identity shortcut, x [T, N, C, H, W]: ∂L/∂x − ∂L/∂out is what the path sends back.

    conclusion: the identity to rounding, and the support of ∂L/∂out kept where the path's Jacobian is zero.
    """
    x = x.detach().requires_grad_(True)
    out = block(x)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=out.dtype)
    upstream = (upstream * (upstream > 0)).to(out.device)
    (whole,) = torch.autograd.grad(out, x, upstream)
    path = x
    for number in range(1, block.depth + 1):
        path = block.stage(path, number)
    jacobian = torch.autograd.grad(path, x, upstream, allow_unused=True)[0]
    jacobian = torch.zeros_like(x) if jacobian is None else jacobian
    gap = float((whole - upstream - jacobian).abs().amax() / upstream.abs().amax())
    added = isinstance(block, SEWBlock) and block.connection == "ADD" and block.downsample is None
    findings = (found(ADDITION, added, f"{type(block).__name__}({getattr(block, 'connection', 'currents')})"),)
    same, silent = bool(((whole != 0) == (upstream != 0)).all()), not jacobian.any()
    evidence = (
        f"identity up to {gap:.1g}; the path is {'silent' if silent else 'heard'}, the support "
        f"{'kept' if same else 'changed'}"
    )
    return CheckResult("P2", findings, gap <= 1e-5 and (same or not silent), evidence)


def check_pool_pair(readout: Tensor, kernel: int, *, stride: int | None = None, padding: int = 0) -> CheckResult:
    """P3: f = ⟨a, pool(x)⟩ with a = `readout` [h, w] has the same ‖∇f‖₁ for max and average pool, unlike its ‖∇f‖₀.

    Windows of `kernel`, `stride` (None: the kernel, so that they do not overlap), zero padding.
    """
    stride = kernel if stride is None else stride
    size = [(length - 1) * stride + kernel - 2 * padding for length in readout.shape]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, *size, generator=generator, dtype=torch.float64).requires_grad_(True)
    gradients = {}
    for name, pool in (("max", F.max_pool2d), ("average", F.avg_pool2d)):
        value = (readout.cpu().double() * pool(x, kernel, stride, padding)).sum()
        (gradients[name],) = torch.autograd.grad(value, x)
    norms = {name: [float(norm(g)) for norm in (l0, l1, l2)] for name, g in gradients.items()}
    windows = f"kernel {kernel}, stride {stride}, padding {padding}"
    findings = (found(NO_OVERLAP, stride >= kernel and padding == 0, windows),)
    equal = math.isclose(norms["max"][1], norms["average"][1], rel_tol=1e-9)
    ratios = {name: 3 * norm[1] ** 2 / norm[2] ** 2 for name, norm in norms.items()}
    evidence = "; ".join(
        f"{name}: ‖g‖₁ = {norm[1]:.4g}, ‖g‖₀ = {norm[0]:.0f}, ratio {ratios[name]:.4g}" for name, norm in norms.items()
    )
    return CheckResult("P3", findings, equal, evidence)


def check_l2_ratio(gradient: Tensor, *, in_ball: bool = True, seed: int = 0) -> CheckResult:
    """O4 for f(x) = ⟨g, x⟩, g = `gradient` [d]: ρ_adv / ρ_rand = d + 2 in L2, however sparse g is.

    in_ball False draws from the sphere instead, where the ratio is d. Monte Carlo, within `SIGMAS` standard errors.
    Errors: InputError for a zero gradient.
    """
    g = gradient.cpu().double()
    if not g.any():
        raise InputError("the gradient is zero; expected a non-zero one: the ratio is 0/0")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(DRAWS, len(g), generator=generator, dtype=torch.float64)
    noise /= noise.norm(dim=1, keepdim=True)
    if in_ball:
        noise *= torch.rand(DRAWS, 1, generator=generator, dtype=torch.float64) ** (1 / len(g))
    squares = (noise @ g).square()
    ratio = float(g @ g / squares.mean())
    error = SIGMAS * float(squares.std() / squares.mean()) / math.sqrt(DRAWS) * ratio
    findings = (found(UNIFORM_IN_BALL, in_ball, "it lies on the sphere"),)
    evidence = f"ratio {ratio:.4g} ± {error:.2g}, d + 2 = {len(g) + 2}, ‖g‖₀ = {int((g != 0).sum())}"
    return CheckResult("O4", findings, abs(ratio - len(g) - 2) <= error, evidence)


def check_poisson(
    classify: Callable[[Tensor], Tensor], x: Tensor, others: Tensor, time_steps: int, *, gain: float = 1.0
) -> CheckResult:
    """O6, exhaustively: all 2^(T·d) spike trains of an image x [d], the exact smoothed classifier at others [K, d].

    classify: spikes [M, T, d] -> class numbers [M]. conclusion: both bounds hold for the exact total variation, and no
    image within the certified L1 radius changes the smoothed class. gain: spikes fall with probability min(1, gain · x)
    instead, which breaks the assumption. Errors: InputError for more than 2^16 spike trains.
    """
    entries = time_steps * len(x)
    if entries > 16:
        raise InputError(f"2^{entries} spike trains; expected at most 2^16: take fewer pixels or time steps")
    trains = torch.tensor(list(itertools.product((0.0, 1.0), repeat=entries)), dtype=torch.float64, device=x.device)
    trains = trains.view(-1, time_steps, len(x))
    classes = classify(trains)
    images = (gain * torch.cat([x[None], others]).double()).clamp(max=1)
    laws = torch.stack([(trains * p + (1 - trains) * (1 - p)).flatten(1).prod(1) for p in images])
    exact = (laws[1:] - laws[0]).abs().sum(1) / 2
    bounds = poisson_distance(x.expand_as(others), others, time_steps)
    votes = torch.stack([laws @ (classes == number).double() for number in range(int(classes.amax()) + 1)], 1)
    radius = poisson_l1_radius(votes[:1].amax(1), time_steps)
    certified = (others - x).abs().sum(1) < radius
    kept = votes[1:].argmax(1) == votes[0].argmax()
    low = bool((exact <= bounds + 1e-12).all())
    findings = (found(POISSON, gain == 1, f"they fall with probability min(1, {gain:g} x)"),)
    evidence = (
        f"total variation up to {float(exact.amax()):.3g} of at most {float(bounds.amin(0).amax()):.3g}; "
        f"{int(certified.sum())} of {len(others)} images certified, {int((~kept & certified).sum())} of them wrongly"
    )
    return CheckResult("O6", findings, low and bool(kept[certified].all()), evidence)


def check_gaussian(normal: Tensor, x: Tensor, sigma: float, *, curved: float = 0.0, seed: int = 0) -> CheckResult:
    """C1 where the answer is known: for the half-space ⟨n, x⟩ > 0 the certified radius is the distance to its boundary.

    normal: n [d], x [d] inside. curved > 0 gives the class more room, ⟨n, x⟩ + curved · ‖x_⊥‖² > 0: then the smoothed
    network is certified farther than the distance at which the network itself changes its mind.
    conclusion: σ Φ⁻¹(p) of the Monte-Carlo p equals the distance along n within `SIGMAS` standard errors.
    Errors: InputError where p is not in (½, 1).
    """
    n, x = normal.cpu().double(), x.cpu().double()
    n = n / n.norm()
    noise = torch.randn(DRAWS, len(x), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points = x + sigma * noise
    along = points @ n
    p = float((along + curved * (points - torch.outer(along, n)).square().sum(1) > 0).double().mean())
    distance = float(x @ n)
    if not 0.5 < p < 1:
        raise InputError(f"the smoothed probability is {p:g}; expected one in (0.5, 1): a point inside, not too far")
    radius = sigma * NormalDist().inv_cdf(p)
    slope = NormalDist().pdf(NormalDist().inv_cdf(p))
    error = SIGMAS * sigma * math.sqrt(p * (1 - p) / DRAWS) / slope
    findings = (found(HALF_SPACE, curved == 0, f"the boundary is bent by {curved:g}"),)
    evidence = f"radius {radius:.4g} ± {error:.2g}, distance {distance:.4g}"
    return CheckResult("C1", findings, abs(radius - distance) <= error, evidence)
