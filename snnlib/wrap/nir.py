"""Graphs of the Neuromorphic Intermediate Representation (NIR), read by `nir`'s own reader and run here.

NIR says neurons in continuous time; one step of the forward Euler rule of length dt gives, with λ = 1 − dt/τ,

    h[t] = λ v[t-1] + (dt/τ) (R I[t] + v_leak)
    s[t] = 1 if h[t] >= v_threshold else 0
    v[t] = v_reset where s[t], else h[t]

for LIF; IF has λ = 1 and adds dt R I[t]. The synapse of CubaLIF is updated before its membrane, as in snnTorch:
I[t] = (1 − dt/τ_syn) I[t-1] + (dt/τ_syn) w_in S[t]. All states start at 0. NIR fires above its threshold; here, as in
sinabs and in all of snnlib, at it.

**Source:** Pedersen et al. 2024, "Neuromorphic intermediate representation", and the docstrings of `nir`.
"""

from __future__ import annotations

from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.errors import InputError
from snnlib.models.layers import over_static_time
from snnlib.neurons import Surrogate
from snnlib.neurons.surrogates import atan
from snnlib.optional import needs
from snnlib.wrap.network import ReadOut, Wrapped, once
from snnlib.wrap.nir_layers import NEURONS, layer_of


def nir(
    graph: object,
    *,
    time_steps: int,
    dt: float = 1.0,
    surrogate: Surrogate | None = None,
    readout: str | ReadOut | None = None,
    preprocessing: Callable[[Tensor], Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Wrapped:
    """A NIR graph as a module from images `[N, C, H, W]` to logits `[N, classes]`, with neurons of snnlib.

    graph: a `nir.NIRGraph`, or the path of a file. Its nodes: Conv1d, Conv2d, Linear, Affine, Scale, SumPool2d,
    AvgPool2d, Flatten, IF, LIF, CubaLIF, I, LI, CubaLI, Input, Output, and graphs of these; edges that meet are added.
    dt: length of a step in the unit of the graph's time constants: 1 for exports of this project, 1e-4 for graphs in
    seconds whose makers say so. surrogate: of every neuron, `atan()` for None. dtype: of weights and states.
    readout, preprocessing: as in `wrap.snntorch`; what the output node gets counts as spikes.
    Errors: InputError for a file that `nir` does not read, a recurrent graph, nodes that are not known here, time
    constants shorter than dt, and, in the call, images of another shape than the graph's input.
    """
    surrogate = atan() if surrogate is None else surrogate
    if not isinstance(surrogate, Surrogate):
        raise InputError(f"surrogate is {checks.shown(surrogate)}; expected e.g. surrogates.atan(alpha=2.0)")
    network = NIRNetwork(_read(graph), checks.number("dt", dt, above=0), surrogate).to(dtype)
    return Wrapped(
        network,
        run=once,
        reset=None,
        time_steps=checks.whole("time_steps", time_steps),
        readout=readout,
        preprocessing=preprocessing,
    )


class NIRNetwork(nn.Module):
    """`[T, N, ...]` to `[T, N, ...]` by a feed-forward NIR graph; `layers` by the nodes' names, with _ for dots."""

    def __init__(self, graph: object, dt: float, surrogate: Surrogate) -> None:
        super().__init__()
        self.sources = _feed_forward(graph)
        self.input, self.output = _ends(graph)
        shape = graph.nodes[self.input].output_type["output"]
        self.input_shape = None if shape is None else [int(size) for size in shape]
        self.layers = nn.ModuleDict()
        for name, node in graph.nodes.items():
            if hasattr(node, "nodes"):
                self.layers[_key(name)] = NIRNetwork(node, dt, surrogate)
            elif name not in (self.input, self.output):
                self.layers[_key(name)] = layer_of(name, node, dt, surrogate)

    def forward(self, frames: Tensor) -> Tensor:
        if self.input_shape is not None and list(frames.shape[2:]) != self.input_shape:
            raise InputError(
                f"the graph's input is {self.input_shape}, the images give {list(frames.shape[2:])}; expected equal "
                "shapes; pass preprocessing, such as torch.nn.Flatten()"
            )
        values = {self.input: frames}
        for name, sources in self.sources.items():
            if name != self.input:
                arriving = sum((values[source] for source in sources[1:]), values[sources[0]])
                values[name] = self._run(name, arriving)
        return values[self.output]

    def _run(self, name: str, x: Tensor) -> Tensor:
        if name == self.output:
            return x
        layer = self.layers[_key(name)]
        return layer(x) if isinstance(layer, NIRNetwork | NEURONS) else over_static_time(layer, x)


def _read(graph: object) -> object:
    library = needs("nir", extra="nir")
    if isinstance(graph, library.NIRGraph):
        return graph
    if not isinstance(graph, str | Path):
        raise InputError(f"graph is {checks.shown(graph)}; expected a nir.NIRGraph or the path of a file")
    if not Path(graph).is_file():
        raise InputError(f"{graph} is no file; expected a graph that nir.write wrote")
    try:
        return library.read(graph, type_check=False)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"nir {library.__version__} does not read {graph} ({reason}); write it again") from error


def _feed_forward(graph: object) -> dict[str, list[str]]:
    """Every node that leads from the input to the output, in an order to run them in, with what it takes from."""
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        before[target].append(source)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        loop = " → ".join(reversed(error.args[1]))
        raise InputError(
            f"the graph is recurrent ({loop}); expected a feed-forward one: NIR does not say whether a spike comes "
            "back in the same step or in the next, and simulators differ"
        ) from error
    return {name: before[name] for name in order}


def _ends(graph: object) -> tuple[str, str]:
    ends = []
    for kind in ("Input", "Output"):
        names = [name for name, node in graph.nodes.items() if type(node).__name__ == kind]
        if len(names) != 1:
            raise InputError(f"the graph has {len(names)} nodes of kind {kind}; expected one")
        ends += names
    loose = [name for name, sources in _feed_forward(graph).items() if not sources and name != ends[0]]
    if loose:
        raise InputError(f"node {loose[0]} has no input; expected an edge to it; remove it or connect it")
    return ends[0], ends[1]


def _key(name: str) -> str:
    return name.replace(".", "_")
