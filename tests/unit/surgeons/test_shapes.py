"""Shapes that are foreseen are those that a run gives."""

import pytest
import timm
import torch
from torch import fx, nn

from sesurgery.accounting import cost
from sesurgery.diagnostics import SesurgeryError
from sesurgery.surgeons.fx.shapes import map_shapes
from sesurgery.surgeons.fx.tracing import trace


class Recorder(fx.Interpreter):
    """Runs a traced network for real and writes down the shape of every map."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.maps: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and result.dim() == 4:
            self.maps[n.name] = tuple(result.shape[1:])
        return result


def conv(*args: object, **kwargs: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(*args, **kwargs), nn.BatchNorm2d(args[1]), nn.ReLU())


class Reshaping(nn.Module):
    """Two convolutions of one size, the output of one reshaped in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.one(x), self.two(x)
        first.squeeze_(1)
        return second * first.unsqueeze(1)


class Broadcasting(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.mean((2, 3), keepdim=True) + x) * x[:, :1]


NETWORKS = {
    "stride and dilation": lambda: conv(3, 8, 3, stride=2, dilation=2, padding=1),
    "an uneven kernel": lambda: conv(3, 8, (1, 7), stride=(2, 3), padding=(0, 3)),
    "padding 'same' of an even kernel": lambda: conv(3, 8, 4, padding="same", dilation=3),
    "padding 'valid'": lambda: conv(3, 8, 5, padding="valid", stride=3),
    "a transposed convolution": lambda: conv(3, 8, 1).append(nn.ConvTranspose2d(8, 4, 3, stride=2)),
    "in-place reshaping": Reshaping,
    "broadcasting": Broadcasting,
    "resnet18": lambda: timm.create_model("resnet18"),
    "mobilenetv3": lambda: timm.create_model("mobilenetv3_small_050"),
    "densenet": lambda: timm.create_model("densenet121"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
def test_shapes_are_those_of_a_run(make):
    traced = trace(make().eval(), (3, 37, 41))
    run = Recorder(traced.root, traced.graph)
    with torch.no_grad():
        run.run(torch.zeros(2, 3, 37, 41))
    assert map_shapes(traced, (3, 37, 41)) == run.maps


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (nn.Sequential(nn.Conv2d(4, 8, 3)), "channels"),
        (nn.Sequential(nn.Conv2d(3, 8, 9)), "[Kk]ernel size"),
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding=9, padding_mode="circular")), "wrapping around"),
    ],
    ids=["other channels", "a kernel wider than the map", "more padding than there is to wrap"],
)
def test_what_a_convolution_refuses_is_refused(network, why):
    with pytest.raises(SesurgeryError, match=f"SE304.*{why}"):
        map_shapes(trace(network, (3, 6, 6)), (3, 6, 6))


def test_finding_shapes_leaves_the_network_alone():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(), nn.MaxPool2d(2)).train()
    before = {path: (id(part), part.training) for path, part in network.named_modules()}
    map_shapes(trace(network, (3, 8, 8)), (3, 8, 8))
    assert {path: (id(part), part.training) for path, part in network.named_modules()} == before


class Forgetful(nn.Conv2d):
    """A train() of the author's own that does not give the module back, as timm's LeViT has it."""

    def train(self, mode: bool = True) -> None:
        super().train(mode)


def test_a_module_whose_train_gives_nothing_back_has_shapes():
    traced = trace(nn.Sequential(Forgetful(3, 8, 3, padding="same"), nn.ReLU()), (3, 8, 8))
    assert (8, 8, 8) in map_shapes(traced, (3, 8, 8)).values()
    assert cost(Forgetful(3, 8, 3), (3, 8, 8)).macs == 8 * 27 * 36


class Keeping(nn.Module):
    """Keeps a tensor that it made of its weight in evaluation, as the attention of timm's EfficientFormer does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.kept: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.kept:
            self.kept["bias"] = self.conv.weight.detach().sum((1, 2, 3))
        # The batch is open and cannot be counted up to, so this is taken as a whole.
        steps = len(x)
        return self.conv(x) + steps * self.kept["bias"][:, None, None]


def test_a_network_that_keeps_tensors_of_an_earlier_run_has_shapes():
    network = nn.Sequential(Keeping(), nn.ReLU()).eval()
    network(torch.zeros(1, 3, 8, 8))
    traced = trace(network, (3, 8, 8))
    assert [leaf.path for leaf in traced.leaves] == ["0"]
    assert (8, 8, 8) in map_shapes(traced, (3, 8, 8)).values()
