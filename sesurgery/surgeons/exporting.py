"""Context for every use of torch's ONNX exporter."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from sesurgery.muting import muted


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's progress on stdout and its logs."""
    held = muted("torch.onnx", "onnxscript", "onnx_ir")
    with held, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def exportable_attention() -> Iterator[None]:
    """Attention in the form that torch's exporter takes; what it computes stays the same.

    The exporter draws the network once and decomposes the drawing once more. With a mask the two may choose kernels
    that lay their outputs out differently in memory, and a view that the first found possible fails in the second: both
    are given the one kernel that takes everything. And it only knows attention on four dimensions.
    """
    with sdpa_kernel(SDPBackend.MATH), _FourDimensional():
        yield


class _FourDimensional(TorchFunctionMode):
    """Calls attention on [batch, heads, length, width], whatever number of leading dimensions its arguments have."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kw: Any
) -> Any:
    mask, attend = attn_mask, F.scaled_dot_product_attention
    if query.dim() == 4 or query.dim() < 3 or not query.dim() == key.dim() == value.dim():
        return attend(query, key, value, mask, *args, **kw)
    if query.dim() == 3:
        # One head each: a mask with a third dimension has it for the batch.
        mask = mask.unsqueeze(1) if mask is not None and mask.dim() == 3 else mask
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        return attend(query, key, value, mask, *args, **kw).squeeze(1)
    before = query.shape[:-3]
    if mask is not None and mask.dim() > 3:
        mask = mask.expand(*before, *mask.shape[-3:]).flatten(0, -4)
    query, key, value = query.flatten(0, -4), key.flatten(0, -4), value.flatten(0, -4)
    out = attend(query, key, value, mask, *args, **kw)
    return out.view(*before, *out.shape[1:])
