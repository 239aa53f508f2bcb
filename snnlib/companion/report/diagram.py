"""A residual block drawn from the live module: run once, recorded as it ran, nothing drawn from memory.

Layers are seen by forward hooks; what is computed between them (the addition of the shortcut) by a torch
function mode. Each recorded step knows which steps its inputs came from, so the shortcut draws itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snnlib.companion.report.style import KIND_COLOURS, kind_of
from snnlib.errors import InputError
from snnlib.neurons import use_kernel
from snnlib.sparsity.operations import leaf_modules

OPERATORS = {"add": "+", "iadd": "+", "mul": "×", "imul": "×", "sub": "−", "cat": "concat"}
RESHAPES = {
    *("flatten", "unflatten", "reshape", "view", "view_as", "transpose", "permute", "squeeze", "unsqueeze"),
    *("movedim", "expand", "contiguous", "getitem", "clone", "detach", "to", "float"),
}
DEFAULT_TIME, DEFAULT_SAMPLES, DEFAULT_SIDE = 4, 2, 16
LANE = 1.62
BOX_WIDTH, BOX_HEIGHT = 1.42, 0.66


@dataclass(frozen=True)
class Step:
    """One operation of the block as it ran. `sources`: numbers of the steps that fed it, in order."""

    name: str
    kind: str
    detail: str
    shape: tuple[int, ...]
    sources: tuple[int, ...]


class _Recorder(TorchFunctionMode):
    """Follows tensors through a forward pass: which step made each of them."""

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._maker: dict[int, int] = {}
        self._kept: list[Tensor] = []
        self._inside_layer = False
        self._add("input", "input", "", example, ())

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sources = self._sources([*args, *(kwargs or {}).values()])
        if self._inside_layer or not sources or not isinstance(result, Tensor):
            return result
        name = getattr(function, "__name__", "?").strip("_")
        if name in RESHAPES and len(sources) == 1:
            self._remember(result, sources[0])
        else:
            symbol = f"{args[1]} − x" if name == "rsub" else OPERATORS.get(name, name)
            self._add(symbol, "element-wise", "", result, sources)
        return result

    def hooks(self, name: str) -> tuple[Callable, Callable]:
        """Forward pre-hook and forward hook for the layer called `name`."""

        def enter(layer: nn.Module, arguments: tuple) -> None:
            self._inside_layer = True

        def leave(layer: nn.Module, arguments: tuple, output: object) -> None:
            self._inside_layer = False
            result = output[0] if isinstance(output, tuple) else output
            self._add(name, type(layer).__name__, _detail(layer), result, self._sources(arguments))

        return enter, leave

    def _add(self, name: str, kind: str, detail: str, output: Tensor, sources: tuple[int, ...]) -> None:
        self.steps.append(Step(name, kind, detail, tuple(output.shape), sources))
        self._remember(output, len(self.steps) - 1)

    def _remember(self, tensor: Tensor, step: int) -> None:
        self._maker[id(tensor)] = step
        self._kept.append(tensor)  # alive to the end, so that no other tensor takes over its id

    def _sources(self, values: Iterable) -> tuple[int, ...]:
        makers = (self._maker.get(id(value)) for value in values if isinstance(value, Tensor))
        return tuple(dict.fromkeys(maker for maker in makers if maker is not None))


def trace_block(block: nn.Module, input_shape: tuple[int, ...] | None = None) -> list[Step]:
    """Run `block` once on zeros and return what ran, in order; step 0 is the input.

    input_shape: [T, N, C, H, W]; by default [4, 2, C, 16, 16] with the channels of the block's first
    convolution. Layers that compute nothing and reshapes are followed, not listed. The block's modes, buffers
    and gradients stay as they are. Errors: InputError if no shape is given and there is no convolution to
    read it from.
    """
    example = torch.zeros(input_shape or _default_shape(block), device=_device(block))
    recorder, handles = _Recorder(example), []
    modes = {module: module.training for module in block.modules()}
    try:
        for name, layer, _ in leaf_modules(block):
            enter, leave = recorder.hooks(name)
            handles += [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]
        block.eval()
        with torch.no_grad(), use_kernel("reference"), recorder:
            block(example)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return recorder.steps


def module_diagram(ax: Axes, block: nn.Module, input_shape: tuple[int, ...] | None = None) -> None:
    """Draw a residual block as it runs: a box per operation with the shape it returns, from top to bottom.

    The longest path is the left column, everything beside it the right one; an input that skips operations is
    a line down the right side. A row takes about an inch of height, a diagram half the page's width. Shapes
    are those of the tensors: [T, N, ...] at neurons, [T·N, ...] at layers without time. Arguments and errors:
    those of `trace_block`.
    **Source:** the kind of picture of Luu et al. 2025, figure 4 (after Fang et al. 2021), here from the live
    module.
    """
    steps = trace_block(block, input_shape)
    places = _places(steps)
    for number, step in enumerate(steps):
        _draw_box(ax, places[number], step)
        for source in step.sources:
            _draw_edge(ax, places[source], places[number])
    margin = BOX_WIDTH / 2 + 0.05
    ax.set(xlim=(-margin, LANE + margin), ylim=(min(y for _, y in places) - 0.5, 0.5))
    ax.set_title(type(block).__name__, loc="left")
    ax.set_axis_off()


def _places(steps: list[Step]) -> list[tuple[float, float]]:
    """Centre of each step: the longest path in column 0, row by row; chains beside it evenly in the lane."""
    length = [0] * len(steps)
    for number, step in enumerate(steps):
        length[number] = 1 + max((length[source] for source in step.sources), default=0)
    path = [len(steps) - 1]
    while steps[path[-1]].sources:
        path.append(max(steps[path[-1]].sources, key=length.__getitem__))
    row = {number: index for index, number in enumerate(reversed(path))}
    users: list[list[int]] = [[] for _ in steps]
    for number, step in enumerate(steps):
        for source in step.sources:
            users[source].append(number)
    above, below = {}, {}
    for number in range(len(steps)):
        above[number] = _anchor(number, row, steps[number].sources, above)
    for number in reversed(range(len(steps))):
        below[number] = _anchor(number, row, users[number], below)
    places = []
    for number in range(len(steps)):
        (start, from_start), (end, to_end) = above[number], below[number]
        share = from_start / max(from_start + to_end, 1)
        places.append((0.0 if number in row else LANE, -(start + share * (end - start))))
    return places


def _anchor(number: int, row: dict[int, int], neighbours: Iterable[int], known: dict) -> tuple[int, int]:
    """Row of the nearest step on the main path in one direction, and how many steps away it is."""
    if number in row:
        return row[number], 0
    farthest = max((known[neighbour] for neighbour in neighbours), key=lambda anchor: anchor[1], default=None)
    return (max(row.values()), 1) if farthest is None else (farthest[0], farthest[1] + 1)


def _draw_box(ax: Axes, place: tuple[float, float], step: Step) -> None:
    x, y = place
    colour = KIND_COLOURS[kind_of(step.kind)]
    corner = (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2)
    style = "round,pad=0,rounding_size=0.08"
    look = {"facecolor": "white", "edgecolor": colour, "linewidth": 2}
    ax.add_patch(FancyBboxPatch(corner, BOX_WIDTH, BOX_HEIGHT, style, **look))
    is_layer = step.kind not in ("input", "element-wise")
    lines = [step.name, *([f"{step.kind} {step.detail}".strip()] if is_layer else []), str(list(step.shape))]
    ax.text(x, y, "\n".join(lines), ha="center", va="center", fontsize=9, linespacing=1.25)


def _draw_edge(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    half, rise = BOX_WIDTH / 2, BOX_HEIGHT / 2
    (x0, y0), (x1, y1) = start, end
    if x0 == x1 and (x0 == LANE or y0 - y1 < 1.5):
        points = [(x0, y0 - rise), (x1, y1 + rise)]
    elif x0 < x1:
        points = [(x0 + half, y0), (x1, y0), (x1, y1 + rise)]
    elif x0 > x1:
        points = [(x0, y0 - rise), (x0, y1), (x1 + half, y1)]
    else:
        points = [(x0 + half, y0), (LANE, y0), (LANE, y1), (x1 + half, y1)]
    for before, after in zip(points[:-2], points[1:-1], strict=True):
        ax.plot(*zip(before, after, strict=True), color="#444444", linewidth=1.4, zorder=0)
    arrow = {"arrowstyle": "-|>", "color": "#444444", "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", points[-1], points[-2], arrowprops=arrow)


def _detail(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        high, wide = layer.kernel_size
        return f"{high}×{wide}, stride {layer.stride[0]}"
    return ""


def _default_shape(block: nn.Module) -> tuple[int, ...]:
    convolution = next((module for module in block.modules() if isinstance(module, nn.Conv2d)), None)
    if convolution is None:
        raise InputError(f"{type(block).__name__} has no convolution to read channels from; pass input_shape")
    return (DEFAULT_TIME, DEFAULT_SAMPLES, convolution.in_channels, DEFAULT_SIDE, DEFAULT_SIDE)


def _device(block: nn.Module) -> torch.device:
    return next((parameter.device for parameter in block.parameters()), torch.device("cpu"))
