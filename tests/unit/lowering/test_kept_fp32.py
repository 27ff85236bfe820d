"""The line that counts what stays in fp32."""

from __future__ import annotations

from sesurgery.lowering.precision.kept_fp32 import in_gate, left, summary
from sesurgery.reasons import Reason


def test_nodes_are_counted_by_kind_whatever_squeeze_or_number_their_reasons_name():
    kept = [
        *(in_gate(node, squeeze) for node, squeeze in (("fc1", "a"), ("fc2", "a"), ("fc3", "b"))),
        Reason(
            "few_operations", "r1", "Relu has few operations: it computes in fp32 between what is quantized", "Relu"
        ),
        Reason("large_value", "c1", "its output 'y' reaches 7e+04, too large on 1 of 8 samples"),
        Reason("sum", "p", "a sum over many values overflows fp16 at 65504"),
    ]
    assert summary(left(reason).reason for reason in kept) == (
        "3 in the gate of squeeze, 1 Relu has few operations, 1 with values that are too large, "
        "1 a sum over many values overflows fp16 at 65504"
    )
