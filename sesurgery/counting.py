"""What each operation costs while a network runs on shapes alone, and in which module it runs.

The formulas of fvcore are those of its `fvcore/nn/jit_handles.py` and the table in `fvcore/nn/flop_count.py`; those for
convolutions and matrix products are torch's own (`torch.utils.flop_counter`), halved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Convention = Literal["torch", "fvcore"]

# The arguments of an ATen operation and its (first) output -> flops.
_Formula = Callable[[Sequence[Any], Tensor], int]
_aten = torch.ops.aten


def _batch_norm(args: Sequence[Any], out: Tensor) -> int:
    # Instance norm arrives here as well, as a batch norm that takes its statistics from the map.
    weight, in_training = args[1], args[5]
    plain = 4 if in_training else 1
    return out.numel() * (plain if weight is None else plain + 1)


def _norm(weight: int) -> _Formula:
    return lambda args, out: out.numel() * (4 if args[weight] is None else 5)


def _global_mean(args: Sequence[Any], out: Tensor) -> int:
    value, dims = args[0], args[1]
    both = value.dim() == 4 and dims is not None and {dim % 4 for dim in dims} == {2, 3}
    return int(value.numel()) if both else 0


_FVCORE: dict[object, _Formula] = {
    _aten.native_batch_norm: _batch_norm,
    _aten.cudnn_batch_norm: _batch_norm,
    _aten.miopen_batch_norm: _batch_norm,
    _aten.native_group_norm: _norm(1),
    _aten.native_layer_norm: _norm(2),
    # What AdaptiveAvgPool2d(1) is by the time it runs.
    _aten.mean: _global_mean,
    _aten._adaptive_avg_pool2d: lambda args, out: int(args[0].numel()),
    _aten.upsample_nearest2d: lambda args, out: out.numel(),
    _aten.upsample_bilinear2d: lambda args, out: 4 * out.numel(),
    _aten.grid_sampler_2d: lambda args, out: 4 * out.numel(),
}


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up MACs and activations for the path on top of `stack`, while it is entered."""

    supports_higher_order_operators = True

    def __init__(self, convention: Convention) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.extra = _FVCORE if convention == "fvcore" else {}
        self.stack: list[str] = [""]
        self.macs: Counter[str] = Counter()
        self.activations: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet = getattr(func, "_overloadpacket", None)
        result = _normed(packet, args) or func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple | list) and result else result
        if packet in flop_registry:
            self.macs[self.stack[-1]] += flop_registry[packet](*args, **(kwargs or {}), out_val=result) // 2
            self.activations[self.stack[-1]] += first.numel()
        elif packet in self.extra:
            self.macs[self.stack[-1]] += self.extra[packet](args, first)
        return result


def _normed(packet: object, args: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor] | None:
    """What a batch norm in evaluation puts out, where there are shapes alone: torch takes it apart, which is slow."""
    if packet is not _aten.native_batch_norm or args[5] or not isinstance(args[0], FakeTensor):
        return None
    nothing = args[0].new_empty(0)
    return torch.empty_like(args[0]), nothing, nothing


@contextmanager
def scopes(network: nn.Module, stack: list[str]) -> Iterator[None]:
    """While entered, the path of the module being called is on top of the stack."""

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: stack.append(path)

    def leave(*_: object) -> None:
        stack.pop()

    with ExitStack() as hooks:
        for path, module in network.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                # It takes no hooks: what it computes counts for the module that calls it.
                continue
            hooks.callback(module.register_forward_pre_hook(enter(path), prepend=True).remove)
            hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


class Scoped(fx.Interpreter):
    """Runs a traced network with, on top of the stack, the module that each operation was traced from."""

    def __init__(self, network: fx.GraphModule, stack: list[str]) -> None:
        super().__init__(network)
        self.stack = stack

    def run_node(self, n: fx.Node) -> Any:
        traced_from = [entry[0] for entry in (n.meta.get("nn_module_stack") or {}).values()]
        self.stack.append(traced_from[-1] if traced_from else "")
        try:
            return super().run_node(n)
        finally:
            self.stack.pop()
