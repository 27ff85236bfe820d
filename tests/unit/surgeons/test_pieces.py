"""A map that is split: which sums of its pieces are residual units, in PyTorch and in the exported file alike."""

import onnx
import pytest
import timm
import torch
from torch import Tensor, nn

from sesurgery.graph.residual import NotResidual, residual_adds
from sesurgery.surgeons.fx.surgeon import FxSurgeon
from sesurgery.surgeons.onnx.view import draw

SPLITS = {
    "torch.chunk": lambda x: torch.chunk(x, 2, 1),
    "tensor.split": lambda x: x.split(8, 1),
    "sizes": lambda x: torch.split(x, [8, 8], dim=1),
}


class Pieces(nn.Module):
    """A sum of two pieces, as in Res2Net, and a unit within one piece, as in a YOLO."""

    def __init__(self, split: str) -> None:
        super().__init__()
        self.split = split
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.unit = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pieces = SPLITS[self.split](self.stem(x))
        return torch.cat([self.conv(pieces[0]) + pieces[1], pieces[1] + self.unit(pieces[1])], 1)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
def test_pieces_are_told_apart_in_torch_and_in_the_exported_file(split, dynamo, tmp_path):
    network = Pieces(split).eval()
    torch.onnx.export(network, (torch.zeros(1, 3, 8, 8),), tmp_path / "net.onnx", dynamo=dynamo, verbose=False)
    for view in (FxSurgeon((3, 8, 8)).view(network), draw(onnx.load(tmp_path / "net.onnx"), (3, 8, 8)).view):
        found = residual_adds(view)
        assert [one.kind if isinstance(one, NotResidual) else "unit" for one in found] == ["pieces", "unit"]


def test_res2net_has_as_many_sites_as_units(plan):
    network = timm.create_model("res2net50_14w_8s", num_classes=4)
    assert len(plan(network, (3, 64, 64)).sites) == 16
