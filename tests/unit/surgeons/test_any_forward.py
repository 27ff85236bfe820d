"""Forwards as people write them: the changed network is the same function, or the refusal says why."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sesurgery
from sesurgery.diagnostics import SesurgeryError
from sesurgery.surgeons.fx.changed import code_of
from sesurgery.surgeons.fx.surgeon import FxSurgeon

SHAPE = (3, 16, 16)
EXAMPLE = torch.zeros(1, *SHAPE)


class Unit(nn.Module):
    """A convolution and a residual one; subclasses write the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)

    def end(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(x)


class IsInstance(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        if isinstance(x, torch.Tensor):
            x = x * 2
        return self.end(x)


class IsTensor(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.end(x * 2 if torch.is_tensor(x) else x)


class TypeIs(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.end(x * 2 if type(x) is torch.Tensor else x)


class JitIsInstance(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.end(x * 2 if torch.jit.isinstance(x, torch.Tensor) else x)


class TriesAnInt(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        try:
            x = F.interpolate(x, size=(int(x.shape[2]), int(x.shape[3]))) * 2
        except TypeError:
            x = -x
        return self.end(x)


class WithoutGradient(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.a(x)
        return self.end(x)


class Autocast(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.a(x)
        return self.end(x.float())


class ConstantNoise(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.a(x) + torch.randn(1, 8, 1, 1))


class NoiseOfTheBatch(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.end(x + torch.randn(x.shape[0], 8, 1, 1, device=x.device, dtype=x.dtype))


class NoiseInTraining(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        if self.training:
            x = x + torch.randn_like(x)
        return self.end(x)


class Chunks(Unit):
    """As the C3k2 blocks of YOLO 11 do."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.c = nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.a(x).chunk(2, 1))
        parts.extend(part(parts[-1]) + parts[-1] for part in self.m)
        return self.c(torch.cat([*parts], 1))


class NamedImage(Unit):
    """As the networks of transformers have it."""

    def forward(self, pixel_values: Any = None, mask: Any = None, return_dict: Any = None, **kwargs: Any) -> Any:
        if pixel_values is None:
            raise ValueError("You have to specify pixel_values")
        out = self.end(self.a(pixel_values))
        return collections.OrderedDict(out=out) if return_dict is None else out


class Collects(Unit):
    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.end(self.a(x))


class DropsConnections(Unit):
    """As efficientnet_pytorch does: a function that looks at the mode, in a block."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return x + drop_connect(self.b(x), 0.5, self.training)


def drop_connect(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    if not training:
        return x
    keep = 1 - p
    mask = torch.floor(keep + torch.rand([x.shape[0], 1, 1, 1], dtype=x.dtype, device=x.device))
    return x / keep * mask


class Body(Unit):
    """Its maps by name, as torchvision's IntermediateLayerGetter gives them."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.a(x)
        return collections.OrderedDict([("0", first), ("1", self.end(F.max_pool2d(first, 2)))])


class AddsALevel(nn.Module):
    """As the extra blocks of a feature pyramid do: it adds to the lists that it is given."""

    def forward(self, maps: list[torch.Tensor], names: list[str]) -> tuple[list[torch.Tensor], list[str]]:
        names.append("pool")
        maps.append(F.max_pool2d(maps[-1], 1, 2, 0))
        return maps, names


class Pyramid(nn.Module):
    """As torchvision's detectors have it: the body's maps come as a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.fpn = Levels()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.fpn(self.body(x))
        return torch.cat([value.mean((2, 3)) for value in maps.values()], 1)


class Levels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.extra = AddsALevel()

    def forward(self, maps: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        names, values = list(maps.keys()), list(maps.values())
        made = [part(value) for part, value in zip(self.inner, values, strict=True)]
        made, names = self.extra(made, names)
        assert [name for name, _ in maps.items()] == ["0", "1"]
        return collections.OrderedDict(list(zip(names, made, strict=True)))


class ByData(nn.Module):
    """The whole decides by its data; its part does not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Chunks(), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) if x.sum() > 0 else -self.body(-x)


class FirstOfItsParts(Unit):
    """As fine-tuning code takes the first layers of a VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.features[:4](x))


class MakesALayer(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(nn.ReLU()(self.a(x)))


class Unbinds(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.a(x).unflatten(1, (2, 4)).unbind(1)
        return self.end(torch.cat([two, one], 1))


class UnbindsAll(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(torch.stack([part * 2 for part in torch.unbind(self.a(x), 1)], 1))


class Splits(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.a(x).split(4, dim=1)
        return self.end(torch.cat([part * (index + 1) for index, part in enumerate(parts)], 1))


class SplitsBySizes(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *others = torch.split(self.a(x), [2, 3, 3], 1)
        return self.end(torch.cat([*others, first], 1))


class AsksForALength(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.a(x).chunk(4, 1)
        if len(parts) != 4 or len(x.shape) != 4:
            return x
        return self.end(torch.cat(parts[::-1], 1))


FORWARDS = [
    IsInstance, IsTensor, TypeIs, JitIsInstance, TriesAnInt, WithoutGradient, Autocast, ConstantNoise, NoiseOfTheBatch,
    NoiseInTraining, Chunks, NamedImage, Collects, DropsConnections, ByData,
    FirstOfItsParts, MakesALayer, Unbinds, UnbindsAll, Splits, SplitsBySizes, AsksForALength,
]  # fmt: skip


def answer(network: nn.Module, image: torch.Tensor, seed: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        return network(image)


@pytest.mark.parametrize("make", FORWARDS)
def test_an_identity_start_is_the_same_function_in_either_mode_and_at_another_size(make: Callable[[], nn.Module]):
    torch.manual_seed(0)
    model = make()
    keys = list(model.state_dict())
    changed = sesurgery.insert(model, example_input=EXAMPLE, init="identity")
    assert type(changed).__name__ == type(model).__name__
    assert isinstance(changed, type(model))
    assert [key for key in changed.state_dict() if key in keys] == keys
    for training in (False, True):
        model.train(training), changed.train(training)
        for seed in (0, 1):
            image = torch.randn(4, 3, 20, 24)
            wanted, found = answer(model, image, seed), answer(changed, image, seed)
            assert type(wanted) is type(found)
            one, other = (value["out"] if isinstance(value, dict) else value for value in (wanted, found))
            assert torch.equal(one, other)
            assert one.requires_grad == other.requires_grad


def test_blocks_go_into_a_part_that_takes_a_dictionary_and_gives_one_on():
    torch.manual_seed(0)
    model = Pyramid().eval()
    changed = sesurgery.insert(model, at="conv", example_input=EXAMPLE, init="identity")
    assert {key.split(".")[0] for key in set(changed.state_dict()) - set(model.state_dict())} == {"body", "fpn"}
    image = torch.randn(4, 3, 20, 24)
    assert model(image).shape == (4, 24)
    assert torch.equal(model(image), changed(image))


def test_noise_is_drawn_anew_every_time():
    changed = sesurgery.insert(ConstantNoise(), example_input=EXAMPLE)
    image = torch.randn(2, *SHAPE)
    assert not torch.equal(answer(changed, image, 0), answer(changed, image, 1))


def test_what_lies_under_no_grad_still_gets_no_gradient():
    changed = sesurgery.insert(WithoutGradient(), example_input=EXAMPLE, init="identity")
    changed(torch.randn(2, *SHAPE)).sum().backward()
    assert changed.a.weight.grad is None
    assert changed.b.weight.grad is not None
    assert torch.is_grad_enabled()


def test_an_error_inside_no_grad_does_not_leave_gradients_off():
    changed = sesurgery.insert(WithoutGradient(), example_input=EXAMPLE)
    with pytest.raises(RuntimeError):
        changed(torch.randn(2, 5, 16, 16))
    assert torch.is_grad_enabled()


class LiesByName(Unit):
    """Its answer to a symbol is another than to a value, in a way that nobody can foresee."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.end(x * 2 if repr(x).startswith("tensor") else x)


def test_a_forward_that_is_another_function_when_traced_is_refused_with_its_name(untouched):
    model = nn.Sequential(LiesByName(), nn.ReLU())
    before, state = untouched(model), torch.get_rng_state()
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(model, example_input=EXAMPLE, init="identity")
    said = caught.value.diagnostics[0]
    assert said.code == "SE403"
    assert said.message.startswith(
        "LiesByName.forward (0) is another function when traced: in evaluation its output is off by "
    )
    assert said.hint.startswith("exclude it with 'except'")
    assert untouched(model) == before
    assert torch.equal(torch.get_rng_state(), state)


class RootDepth(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        if self.training and torch.rand(1) < 0.5:
            return x
        return self.end(x)


class PlainDepth(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        if self.training and random.random() < 0.5:
            return x
        return self.end(x)


@pytest.mark.parametrize("make", [RootDepth, PlainDepth])
def test_stochastic_depth_around_a_site_is_refused_and_not_frozen(make):
    with pytest.raises(SesurgeryError, match=rf"SE403.*{make.__name__}\.forward cannot be traced in training"):
        sesurgery.insert(make(), example_input=EXAMPLE)


class Deep(nn.Module):
    """Stochastic depth in the whole, sites in its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.units = nn.ModuleList(DeepUnit() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for unit in self.units:
            if self.training and random.random() < 0.5:
                continue
            x = unit(x)
        return x


class DeepUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


def test_stochastic_depth_around_units_goes_on_as_before():
    model = Deep()
    changed = sesurgery.insert(model, example_input=EXAMPLE, init="identity", expect=2)
    image = torch.randn(2, *SHAPE)
    answers = []
    for seed in range(6):
        wanted = answer(model.train(), image, seed)
        assert torch.equal(answer(changed.train(), image, seed), wanted)
        answers.append(wanted)
    assert any(not torch.equal(answers[0], other) for other in answers)


class Hidden(nn.Module):
    """Convolutions called from a forward that decides by data."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) if x.sum() > 0 else self.two(x)


def test_a_leaf_says_how_many_convolutions_lie_in_it():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), Hidden(), DeepUnit())
    (leaf,) = FxSurgeon(SHAPE).leaves(network)
    assert (leaf.path, leaf.hidden) == ("1", 2)


class Scaled(Unit):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return x + self.b(x) * self.scale


def test_an_attribute_that_is_part_of_a_graph_cannot_be_set_in_vain():
    changed: Any = sesurgery.insert(Scaled(), example_input=EXAMPLE)
    with pytest.raises(AttributeError, match=r"Scaled\.scale was 1\.0 when blocks were put into this forward"):
        changed.scale = 2.0
    changed.scale = 1.0
    changed.name = "anything else"


def test_an_attribute_of_a_network_whose_parts_were_changed_works_as_before():
    model: Any = Outer()
    changed: Any = sesurgery.insert(model, example_input=EXAMPLE, init="identity", within="unit")
    model.scale = changed.scale = 3.0
    image = torch.randn(2, *SHAPE)
    assert torch.equal(changed(image), model(image))


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.stem = nn.Conv2d(3, 8, 1)
        self.unit = DeepUnit()
        self.group = nn.Sequential(DeepUnit(), DeepUnit())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.group(self.unit(self.stem(x)) * self.scale)


def test_a_hook_on_an_inner_module_of_a_changed_network_fires():
    changed: Any = sesurgery.insert(Outer(), example_input=EXAMPLE)
    seen: list[str] = []
    for name in ("stem", "unit", "group", "group.1"):
        changed.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    changed(torch.randn(1, *SHAPE))
    assert seen == ["stem", "unit", "group.1", "group"]


def test_a_hook_that_was_there_before_sees_values_and_stays():
    model, seen = Outer(), []
    model.group.register_forward_hook(lambda module, args, output: seen.append(type(output)))
    changed = sesurgery.insert(model, example_input=EXAMPLE)
    assert set(seen) == {torch.Tensor}
    seen.clear()
    changed(torch.randn(1, *SHAPE))
    assert seen == [torch.Tensor]


class Answer(tuple):
    """An output of a class of its own."""


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.unit = nn.Conv2d(3, 8, 1), DeepUnit()

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None, tell: bool = False) -> Any:
        x = self.unit(self.stem(x))
        return Answer((x if scale is None else x * scale, x)) if tell else x


class Whole(nn.Module):
    """Calls its part with more than an image, and reads the class of what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.head = Part(), nn.Conv2d(8, 4, 1)

    def forward(self, images: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        found = self.part(images, scale, tell=True)
        if not isinstance(found, Answer):
            raise TypeError("the part is not what it was")
        return self.head(found[0])


def test_a_part_that_its_whole_calls_with_more_arguments_goes_on_working():
    model = Whole().eval()
    image, scale = torch.randn(2, *SHAPE), torch.rand(2, 8, 1, 1)
    changed = sesurgery.insert(model, example_input=(image, scale), submodule="part", init="identity", expect=1)
    assert isinstance(changed.part.unit.se, nn.Module)
    assert torch.equal(changed(image, scale), model(image, scale))


def test_a_network_of_two_named_inputs_is_called_as_it_is():
    model = Whole().eval()
    example = {"images": torch.randn(1, *SHAPE), "scale": torch.rand(1, 8, 1, 1)}
    changed = sesurgery.insert(model, example_input=example, init="identity", expect=1)
    image, scale = torch.randn(3, *SHAPE), torch.rand(3, 8, 1, 1)
    assert torch.equal(changed(image, scale), model(image, scale))


def test_a_part_that_the_whole_does_not_call_is_named():
    with pytest.raises(SesurgeryError, match=r"SE306.*does not call a part 'pert'.*\n.*did you mean 'part'"):
        sesurgery.insert(Whole(), example_input=(EXAMPLE, torch.rand(1, 8, 1, 1)), submodule="pert")


def test_a_switch_that_is_set_otherwise_than_the_blocks_were_made_for_is_said():
    class Switched(Unit):
        def forward(self, x: torch.Tensor, features: bool = False) -> torch.Tensor:
            x = self.end(self.a(x))
            return -x if features else x

    changed = sesurgery.insert(Switched(), example_input=EXAMPLE)
    with pytest.raises(TypeError, match="blocks were inserted for features=False, found True"):
        changed(torch.randn(1, *SHAPE), features=True)


class Stage(nn.Module):
    def __init__(self, before: int) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(before, 8, 3, padding=1), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(x))


class Recording(nn.Module):
    """Gives what hooks on its parts see, as encoders of transformers do: no hook sees a symbol."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Stage(3), Stage(8)])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen: list[torch.Tensor] = []
        hooks = [stage.register_forward_hook(lambda *given: seen.append(given[-1])) for stage in self.stages]
        for stage in self.stages:
            x = stage(x)
        for hook in hooks:
            hook.remove()
        return x, *seen


def test_where_a_graph_would_be_another_function_a_smaller_module_takes_the_block():
    model = Recording()
    changed = sesurgery.insert(model, at="conv", example_input=EXAMPLE, init="identity", expect=2)
    image = torch.randn(2, *SHAPE)
    assert [*changed.state_dict()][2] == "stages.0.conv.se.fc1.weight"
    for mode in (True, False):
        for one, other in zip(changed.train(mode)(image), model.train(mode)(image), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(changed(image)[1], changed.stages[0](image))


class LiesInside(nn.Module):
    """One unit whose graph is another function, between two that are as they look."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.last = nn.Conv2d(3, 8, 1), DeepUnit(), DeepUnit()
        self.liar = Lying()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.liar(self.first(self.stem(x))))


class Lying(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x * 2 if repr(x).startswith("tensor") else x)


def test_a_part_that_is_another_function_when_traced_is_called_as_it_is_and_that_is_said():
    model = LiesInside()
    with pytest.warns(UserWarning, match="liar: traced, it is another function; it is called as it is, with no block"):
        changed = sesurgery.insert(model, example_input=EXAMPLE, init="identity")
    image = torch.randn(2, *SHAPE)
    assert torch.equal(changed(image), model(image))
    assert {key.partition(".se.")[0] for key in changed.state_dict() if ".se." in key} == {"first", "last"}


def test_a_site_that_was_counted_on_is_not_given_up():
    with pytest.raises(SesurgeryError, match=r"SE403.*Lying\.forward \(liar\) is another function when traced"):
        sesurgery.insert(LiesInside(), example_input=EXAMPLE, expect=3)


class DropConnect(nn.Module):
    """As efficientnet_pytorch writes it: the decision is on a value, so no graph shows the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.project = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.reduce, self.widen = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.expand(x)
        y = y * torch.sigmoid(self.widen(self.reduce(y.mean((2, 3), keepdim=True)).relu()))
        return x + self.project(y) if y.sum() > -1e9 else x


def test_a_leaf_says_how_many_gates_lie_in_it():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), DropConnect(), DeepUnit())
    (leaf,) = FxSurgeon(SHAPE).leaves(network)
    assert (leaf.path, leaf.hidden, leaf.gates) == ("1", 2, 1)


class FullPrecision(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        with torch.autocast("cpu", enabled=False):
            return self.end(x.float())


class FullPrecisionOfTheDevice(Unit):
    """As EfficientViT's linear attention does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.end(x.float())


class FullPrecisionWithoutGradient(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        with torch.autocast("cpu", enabled=False):
            with torch.no_grad():
                x = x.float() * 2
            return self.end(x)


class FullPrecisionMethod(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.precise(self.a(x))

    @torch.autocast("cpu", enabled=False)
    def precise(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(x.float())


@pytest.mark.parametrize(
    "kind", [FullPrecision, FullPrecisionOfTheDevice, FullPrecisionWithoutGradient, FullPrecisionMethod, Autocast]
)
def test_a_region_without_autocast_stays_one_under_autocast(kind):
    network, image, seen = kind().eval(), torch.randn(2, *SHAPE), []
    changed = sesurgery.insert(network, example_input=EXAMPLE, init="identity")
    for each in (network, changed):
        each.b.register_forward_hook(lambda _, __, out: seen.append(out))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            each(image)
            assert torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_enabled("cpu")
    original, other = seen
    assert original.dtype == other.dtype == (torch.bfloat16 if kind is Autocast else torch.float32)
    assert torch.equal(original, other)
    assert hasattr(changed, "se")


def test_autocast_is_as_before_where_a_forward_with_a_region_fails():
    changed = sesurgery.insert(FullPrecision(), example_input=EXAMPLE)
    changed.b = nn.Conv2d(4, 4, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError):
            changed(EXAMPLE)
        assert torch.is_autocast_enabled("cpu")


class WritesAPart(Unit):
    """As MViTv2 adds its relative positions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x[:, :4] += 1
        x[:, 4:, :2] = self.b(x.clone())[:, 4:, :2] * 2
        x[:, 0, x.shape[2] // 2 :] = 0
        return self.end(x)


class WritesBehind(Unit):
    """Writes into the branch, behind the convolution that a block may follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        branch = self.b(x)
        branch[:, :2] = 0
        return x + branch


@pytest.mark.parametrize("kind", [WritesAPart, WritesBehind])
@pytest.mark.parametrize("at", ["residual", "conv"])
def test_writing_into_a_part_of_a_map_is_kept(kind, at):
    model = kind()
    changed = sesurgery.insert(model, at=at, example_input=EXAMPLE, init="identity")
    assert code_of(changed).count("set_item(") == (3 if kind is WritesAPart else 1)
    for training in (False, True):
        model.train(training), changed.train(training)
        image = torch.randn(4, 3, 20, 24)
        assert torch.equal(model(image), changed(image))
        changed(image).sum().backward()


def test_a_block_behind_a_written_map_scales_what_was_written():
    model = WritesBehind().eval()
    changed = sesurgery.insert(model, example_input=EXAMPLE).eval()
    image, seen = torch.randn(2, *SHAPE), []
    changed.se.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    changed(image)
    assert not seen[0][:, :2].any()
