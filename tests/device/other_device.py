"""A device that is not the CPU, on a machine that has only a CPU: tensors that say so, compute there and do not mix.

The `lazy` device lends its name: autograd runs it without a driver, and nothing here uses it. Under the dispatch mode
`OtherDevice` its tensors are real: every operation runs on the CPU tensor inside, and is refused where CUDA refuses it:
tensors of two devices in one operation, a CPU tensor indexed by a device tensor, numbers of the device drawn from a
generator of the CPU, an operation without a deterministic kernel. Written down are the operations, and where the host
waits for the device.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "lazy"
_aten = torch.ops.aten
INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
COPIES = {_aten.copy_.default, _aten._to_copy.default}
WAITS = {
    _aten._local_scalar_dense.default: "item",
    _aten.nonzero.default: "nonzero",
    _aten.masked_select.default: "masked_select",
    _aten.equal.default: "equal",
    _aten._unique2.default: "unique",
    _aten.unique_dim.default: "unique",
    _aten.unique_consecutive.default: "unique",
    _aten.repeat_interleave.Tensor: "repeat_interleave",
    _aten.bincount.default: "bincount",
}
"""Operations that read a number of the device before they return."""

NOT_DETERMINISTIC = {
    *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
    *("adaptive_max_pool2d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward"),
    *("max_pool3d_with_indices_backward", "max_unpool2d", "max_unpool3d"),
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward"),
    *("upsample_trilinear3d_backward", "grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    *("reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward"),
    *("nll_loss2d_forward", "nll_loss2d_backward", "_ctc_loss_backward", "_embedding_bag_dense_backward"),
    *("put", "put_", "histc", "kthvalue", "median.dim", "nanmedian.dim"),
}
"""Operations that CUDA refuses under `torch.use_deterministic_algorithms(True)`, whatever they are called with.

**Source:** PyTorch's documentation of that function, releases 2.6 to 2.13.
"""
FLOATS_ONLY = {"cumsum", "cumsum_"}
"""Refused for floats."""


def why_not() -> str | None:
    """Why this PyTorch has not what the device is built on; None where it has."""
    lacking = [name for name in ("_set_only_lift_cpu_tensors", "_only_lift_cpu_tensors") if not hasattr(torch._C, name)]
    return f"torch {torch.__version__} has no {', '.join(lacking)}" if lacking else None


class DeviceTensor(Tensor):
    """Says that it is on the other device; `inside` is the CPU tensor that holds its numbers."""

    @staticmethod
    def __new__(cls, inside: Tensor) -> DeviceTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            inside.shape,
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=NAME,
        )

    def __init__(self, inside: Tensor) -> None:
        self.inside = inside

    def __repr__(self, **_: object) -> str:
        return f"on the other device: {self.inside!r}"

    def __reduce_ex__(self, protocol: int):
        return _moved_back, (self.inside, self.requires_grad)

    def __deepcopy__(self, memo: dict) -> Tensor:
        copied = type(self)(self.inside.clone()).requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copied._is_param = True
        memo[id(self)] = copied
        return copied

    def tolist(self) -> list:
        return self.cpu().tolist()

    def numpy(self, **_: object):
        raise TypeError("can't convert a tensor of the other device to numpy; use Tensor.cpu() first")

    __array__ = numpy
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise RuntimeError(f"{operation} met a tensor of the other device outside of `OtherDevice`")


def _moved_back(inside: Tensor, requires_grad: bool) -> Tensor:
    return DeviceTensor(inside).requires_grad_(requires_grad)


class OtherDevice(TorchDispatchMode):
    """Inside, the device `name` holds numbers.

    called: the operations on it, "name dtype-of-the-first-tensor". waits: (what, file:line of the project) of each time
    that the host waits. draws: of each operation that draws from the device's own generator.
    """

    name = NAME

    def __init__(self) -> None:
        super().__init__()
        self.called: Counter[str] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.draws: Counter[tuple[str, str]] = Counter()
        self._leave: list[ExitStack] = []

    def __enter__(self) -> OtherDevice:
        with ExitStack() as leave:
            # `torch.tensor(..., device=...)` then makes a CPU tensor and moves it by an operation that this mode sees.
            leave.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
            torch._C._set_only_lift_cpu_tensors(True)
            leave.enter_context(mock.patch.object(threading.Thread, "_bootstrap_inner", _in_mode(self)))
            super().__enter__()
            self._leave.append(leave.pop_all())
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._leave.pop().close()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if _is_composite(operation):
            # Arrives whole in inference mode.
            TorchDispatchMode.__enter__(self)
            try:
                return operation.decompose(*args, **(kwargs or {}))
            finally:
                TorchDispatchMode.__exit__(self, None, None, None)
        kwargs = kwargs or {}
        tensors = list(_tensors((*args, *kwargs.values())))
        here = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        wanted = kwargs.get("device")
        to_device = bool(here) if wanted is None else torch.device(wanted).type == NAME
        if not here and not to_device:
            return operation(*args, **kwargs)
        self._check(operation, args, kwargs, tensors, here, to_device)
        self._note(operation, args, kwargs, here, to_device)
        plain = {name: _mapped(_plain, value) for name, value in kwargs.items() if name != "non_blocking"}
        if wanted is not None:
            plain["device"] = torch.device("cpu")
        out = operation(*_mapped(_plain, args), **plain)
        return _returned(operation, args, kwargs, out, to_device)

    def _check(self, operation, args, kwargs, tensors, here, to_device) -> None:
        name = operation.name().removeprefix("aten::")
        floats = name in FLOATS_ONLY and tensors[0].is_floating_point()
        weights = name == "bincount" and len(tensors) > 1
        product = name.startswith("scatter_reduce") and "prod" in args
        if name in NOT_DETERMINISTIC or floats or weights or product:
            raise RuntimeError(f"{name} does not have a deterministic implementation on the device")
        if kwargs.get("generator") is not None or any(isinstance(value, torch.Generator) for value in args):
            raise RuntimeError(f"{operation}: expected a generator of the other device, found one of the CPU")
        if operation in COPIES:
            return
        if operation in INDEXED:
            target, indices = args[0], args[1]
            if not isinstance(target, DeviceTensor) and any(isinstance(index, DeviceTensor) for index in indices):
                raise RuntimeError(f"{operation}: a CPU tensor is indexed by a tensor of the other device")
            tensors = [target, *args[2:3]]
        strangers = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.dim() > 0]
        if here and strangers:
            raise RuntimeError(
                f"{operation}: expected all tensors on one device, found {[list(one.shape) for one in strangers]} "
                f"on the CPU and {[list(one.shape) for one in here]} on the other"
            )

    def _note(self, operation, args, kwargs, here, to_device) -> None:
        kinds = [str(value.dtype).removeprefix("torch.") for value in args if isinstance(value, Tensor)]
        self.called[" ".join([operation.name().removeprefix("aten::"), *kinds[:1]])] += 1
        if torch.Tag.nondeterministic_seeded in operation.tags:
            self.draws[operation.name(), _place()] += 1
        what = WAITS.get(operation) if here else None
        if operation in COPIES:
            in_place = operation is _aten.copy_.default
            source, arrives = args[int(in_place)], isinstance(args[0], DeviceTensor) if in_place else to_device
            asynchronous = arrives and (kwargs.get("non_blocking") or (in_place and args[2:3] == (True,)))
            if isinstance(source, DeviceTensor) != arrives and not asynchronous:
                what = "copy to the device" if arrives else "copy to the host"
        if operation in INDEXED:
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            moved = [index for index in args[1] if index is not None and not isinstance(index, DeviceTensor)]
            scalar = operation is not _aten.index.Tensor and args[2].numel() == 1
            if masks and not scalar:
                what = "boolean index"
            elif moved:
                what = "index from the host"
        if what:
            self.waits[what, _place()] += 1


def _in_mode(mode: OtherDevice):
    """How a thread begins inside: modes belong to a thread, a device does not."""
    begin = threading.Thread._bootstrap_inner

    def inside(thread: threading.Thread) -> None:
        torch._C._set_only_lift_cpu_tensors(True)
        TorchDispatchMode.__enter__(mode)
        begin(thread)

    return inside


@cache
def _is_composite(operation) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), "CompositeImplicitAutograd")


def _tensors(values) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _mapped(change, value):
    """`value` with `change` done to every tensor in it."""
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(_mapped(change, one) for one in value) if type(value) in (list, tuple) else value


def _plain(value: Tensor) -> Tensor:
    return value.inside if isinstance(value, DeviceTensor) else value


def _returned(operation, args, kwargs, out, to_device):
    """`out` as tensors of the device, and each argument that was written to as itself."""
    returns = operation._schema.returns
    if not returns:
        return None
    outs = out if isinstance(out, (tuple, list)) and len(returns) > 1 else [out]
    results = [
        _result(operation, args, kwargs, one, declared, to_device)
        for one, declared in zip(outs, returns, strict=True)
    ]
    return results[0] if len(returns) == 1 else tuple(results)


def _result(operation, args, kwargs, out, declared, to_device):
    if declared.alias_info is not None and declared.alias_info.is_write:
        for place, parameter in enumerate(operation._schema.arguments):
            alias = parameter.alias_info
            if alias is not None and alias.is_write and alias.before_set == declared.alias_info.before_set:
                return args[place] if place < len(args) else kwargs[parameter.name]
    if not to_device:
        return out
    if declared.alias_info is not None and not args[0].is_inference():
        # A view of an ordinary tensor is one, also in inference mode.
        with torch.inference_mode(False):
            return _mapped(DeviceTensor, out)
    return _mapped(DeviceTensor, out)


def _place() -> str:
    """file:line of the project's code that is running."""
    frame = sys._getframe()
    while frame is not None:
        _, found, file = frame.f_code.co_filename.rpartition("/snnlib/")
        if found:
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "test"
