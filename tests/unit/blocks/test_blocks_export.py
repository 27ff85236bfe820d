"""Every block through torch's ONNX exporter and ONNX Runtime, with a dynamic batch."""

import pytest
import torch

from sesurgery.blocks import BLOCKS
from sesurgery.networks.export import export
from sesurgery.spec.export import Export

EXAMPLES = [
    pytest.param(block, id=f"{name}-{index}-{getattr(block, 'name', '')}")
    for name in BLOCKS.names()
    for index, block in enumerate(BLOCKS.examples(name))
]
# The lambda layer sums over its 9 x 9 window and over all positions: its outputs are of the order of ten.
TOLERANCE = 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("block", EXAMPLES)
def test_a_block_computes_the_same_in_onnx_runtime_at_any_batch(block, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = block.build(16)
        # Weights that an identity start leaves at zero would hide a wrong export.
        for parameter in module.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.5)
    report = export(module, (16, 7, 5), tmp_path / "block.onnx", Export(opset=20, check_batches=(1, 3, 5), max_abs=1.0))
    assert set(report.differences) == {1, 3, 5}
    assert report.worst < TOLERANCE
