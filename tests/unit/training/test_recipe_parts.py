"""The parts of a recipe: each does what it says, and none of them breaks a resume."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import timm.loss
import timm.optim
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.train import (
    OPTIMIZERS,
    WITH_MOMENTUM,
    WITHOUT_BETAS,
    WITHOUT_EPS,
    Augment,
    Freeze,
    Optimizer,
    Train,
)
from sesurgery.training.batches import Shuffled
from sesurgery.training.data.base import Data, Split
from sesurgery.training.data.digits import Digits
from sesurgery.training.data.reading.images import Arrays, Stored
from sesurgery.training.evaluation import split_logits
from sesurgery.training.history import Epoch
from sesurgery.training.loop import FitRequest, fit
from sesurgery.training.preprocessing import Preprocessing
from sesurgery.training.recipes.augment import Augmentation
from sesurgery.training.recipes.freezing import frozen_of
from sesurgery.training.recipes.layers import layer_rates
from sesurgery.training.recipes.loss import distance, make_loss
from sesurgery.training.recipes.optimizer import make_optimizer
from sesurgery.training.recipes.schedule import make_schedule
from sesurgery.training.recipes.stopping import finished

Net = Callable[..., nn.Module]
Recipe = Callable[..., Train]


class Stop(Exception):  # noqa: N818
    """Ends training from a callback, as a crash would."""


def pictures(samples: int, seed: int) -> Split:
    """Grey images as they lie in files: noise with one bright quarter, which is the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, samples)
    pixels = random.integers(0, 150, (samples, 8, 8)).astype(np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 100
    prepare = Preprocessing("L", 1, (8, 8), None, 1 / 255, (0.35,), (0.2,))
    return Split(Stored(Arrays(pixels, labels), np.arange(samples), prepare), torch.from_numpy(labels))


@pytest.fixture(scope="module")
def images() -> Data:
    return Data(pictures(96, 0), pictures(48, 1), ("nw", "ne", "sw", "se"), "made for the tests")


RECIPES: dict[str, dict[str, object]] = {
    "adamw-betas": {"optimizer": {"name": "adamw", "lr": 0.01, "betas": (0.9, 0.95)}},
    "lamb-multistep": {
        "optimizer": {"name": "lamb", "lr": 0.02},
        "schedule": {"name": "multistep", "milestones": (2,), "decay_rate": 0.5},
    },
    "ema-clip-accumulate": {"ema": {"decay": 0.9}, "clip_grad": 1.0, "accumulate": 4},
    "augmented": {"augment": {"flip": True, "shift": 1, "randaugment": 1, "erasing": 0.3, "resized_crop": (0.5, 1.0)}},
    "mixed-bce": {"augment": {"mixup": 0.2, "cutmix": 1.0}, "loss": "bce", "label_smoothing": 0.1},
    "head-first": {"freeze": {"trained": ("head",), "epochs": 2}},
    "repeated-in-two-processes": {"augment": {"flip": True, "erasing": 0.3, "repeats": 2}, "workers": 2},
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_equals_one_never_stopped(
    name: str, images: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    recipe, begun = make_recipe(**RECIPES[name], save_minutes=1e-9), 0

    def crash(phase: str, done: int, of: int) -> None:
        nonlocal begun
        begun += phase == "train" and done == 1
        if (phase, begun, done) == ("train", 3, 5):
            raise Stop

    whole, fresh = make_net(), make_net()
    expected = fit(FitRequest(whole, images, recipe, tmp_path / "whole"))
    with pytest.raises(Stop):
        fit(FitRequest(make_net(), images, recipe, tmp_path / "parts", heartbeat=crash))
    found = fit(FitRequest(fresh, images, recipe, tmp_path / "parts", resume=True))
    assert [epoch.train_loss for epoch in found.epochs] == [epoch.train_loss for epoch in expected.epochs]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key]), key
    # A complete run gives the same weights again.
    again = make_net()
    fit(FitRequest(again, images, recipe, tmp_path / "parts", resume=True))
    assert torch.equal(again[6].weight, whole[6].weight)


# --- optimisers and schedules -----------------------------------------------------------------------------------------


def test_every_optimiser_of_a_spec_is_one_of_timm() -> None:
    assert set(OPTIMIZERS) <= set(timm.optim.list_optimizers())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_makes_a_step(name: str, make_net: Net) -> None:
    net = make_net()
    before = net[0].weight.detach().clone()
    optimizer = make_optimizer(net, Optimizer(name=name, lr=0.01))
    # Some only take notice of the gradient in their first step.
    for _ in range(2):
        net(torch.ones(4, 1, 8, 8)).square().sum().backward()
        optimizer.step()
    assert torch.isfinite(net[0].weight).all()
    assert not torch.equal(net[0].weight, before)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in (net[0].weight, net[1].weight, net[6].bias)] == [5e-4, 0, 0]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_fused_step_is_the_same_step(name: str, make_net: Net) -> None:
    ends = []
    for fused in (False, True):
        torch.manual_seed(0)
        net = make_net().eval()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
        optimizer = make_optimizer(net, Optimizer(name=name, lr=0.01), fused=fused)
        assert bool(optimizer.defaults["fused"]) is fused
        for _ in range(3):
            net(torch.ones(4, 1, 8, 8)).square().mean().backward()
            optimizer.step()
        ends.append(torch.cat([parameter.detach().flatten() for parameter in net.parameters()]))
    torch.testing.assert_close(*ends)


def test_an_unknown_optimiser_is_an_error_of_the_spec() -> None:
    with pytest.raises(ValidationError, match="unknown optimiser 'adamv'"):
        Optimizer(name="adamv")


def test_an_option_that_an_optimiser_does_not_have_is_an_error_of_the_spec() -> None:
    for name in OPTIMIZERS:
        info = timm.optim.get_optimizer_info(name)
        assert (name in WITHOUT_BETAS) is not (info.has_betas and info.num_betas == 2), name
        assert (name in WITHOUT_EPS) is not info.has_eps, name
        assert (name in WITH_MOMENTUM) is info.has_momentum, name
    with pytest.raises(ValidationError, match=r"betas\n.*'sgdp' has no 'betas'"):
        Optimizer(name="sgdp", betas=(0.9, 0.99))


def test_early_layers_have_lower_rates_and_blocks_the_full_one(make_net: Net) -> None:
    class Units(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.layer1 = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
            self.fc = nn.Linear(2, 2)

    rates = layer_rates(Units(), 0.5, ["layer1.0.se"])
    assert [rates[f"{name}.weight"] for name in ("stem", "layer1.0", "layer1.1", "fc")] == [0.25, 0.25, 0.5, 1]
    resnet = timm.create_model("resnet18", num_classes=4)
    rates = layer_rates(resnet, 0.5, ["layer1.0.bn2"])
    assert [rates[name] for name in ("conv1.weight", "layer4.0.conv1.weight", "layer4.1.conv1.weight")] == [
        0.5**9,
        0.25,
        0.5,
    ]
    assert (rates["fc.weight"], rates["layer1.0.bn2.weight"]) == (1, 1)
    groups = make_optimizer(resnet, Optimizer(lr=2.0), rates=rates).param_groups
    assert [group["lr"] for group in groups[::2]] == [2 * 0.5**layer for layer in range(10)]
    assert sum(len(group["params"]) for group in groups) == len(list(resnet.parameters()))


def test_blocks_decay_unless_they_are_named(make_net: Net) -> None:
    net = make_net()
    groups = make_optimizer(net, Optimizer(), undecayed={"6.weight"}).param_groups
    assert [len(group["params"]) for group in groups] == [1, 4]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"name": "step", "decay_epochs": 2, "decay_rate": 0.5}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ({"name": "multistep", "milestones": (1, 3)}, [1, 0.1, 0.1, 0.01, 0.01, 0.01]),
        ({"name": "poly", "decay_rate": 1.0}, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
    ],
    ids=["step", "multistep", "poly"],
)
def test_schedules(schedule: dict[str, object], rates: list[float], make_net: Net, make_recipe: Recipe) -> None:
    recipe = make_recipe(epochs=6, schedule=schedule, optimizer={"lr": 1.0, "warmup_epochs": 0})
    optimizer = make_optimizer(make_net(), recipe.optimizer)
    scheduler, found = make_schedule(optimizer, recipe, 5), []
    for step in range(30):
        if step % 5 == 0:
            found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx(rates)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_bce_is_that_of_timm_and_smooths_mixed_images_too(make_recipe: Recipe) -> None:
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    ours = make_loss(make_recipe(loss="bce", label_smoothing=0.1))(logits, labels)
    torch.testing.assert_close(ours, timm.loss.BinaryCrossEntropy(smoothing=0.1)(logits, labels))
    shares = torch.tensor([[0.7, 0.3, 0, 0], [0.15, 0.85, 0, 0]])
    whole = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 0]])
    found = make_loss(make_recipe(loss="bce", bce_threshold=0.2, label_smoothing=0.1))(logits[:2], shares)
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(logits[:2], whole * 0.9 + 0.025))


def test_a_network_is_at_no_distance_from_its_own_answers() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert abs(float(distance(logits, logits, 2.0))) < 1e-6
    others = torch.zeros(6, 4)
    # Of a uniform teacher: the cross-entropy less the teacher's own entropy.
    expected = 4 * (torch.log(torch.tensor(0.25)) - F.log_softmax(logits / 2, 1).mean(1)).mean()
    torch.testing.assert_close(distance(logits, others, 2.0), expected)


def test_a_teacher_pulls_a_network_to_its_answers(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    teacher = make_net()
    with torch.no_grad():
        teacher[6].bias.copy_(torch.tensor([3.0, 0, 0, -3.0]))

    def apart(share: float) -> float:
        net = make_net()
        recipe = make_recipe(distill={"share": share}, label_smoothing=0.2)
        fit(FitRequest(net, data, recipe, tmp_path / str(share), teacher=teacher))
        images = data.held_out.images[:]
        with torch.no_grad():
            return float(distance(net.eval()(images), teacher.eval()(images), 2.0))

    assert apart(1.0) < apart(0.0)
    assert all(parameter.grad is None for parameter in teacher.parameters())


# --- average, accumulation, stopping ----------------------------------------------------------------------------------


def test_the_average_is_what_is_evaluated_and_kept(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    net = make_net()
    result = fit(FitRequest(net, data, make_recipe(ema={"decay": 0.99, "warmup": False}), tmp_path))
    state = torch.load(result.checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(net[6].weight, state["ema.module.6.weight"])
    assert not torch.equal(net[6].weight, state["model.6.weight"])
    right = split_logits(net, data.held_out).argmax(1) == data.held_out.labels
    assert int(right.sum()) / len(right) == result.top1


def test_accumulated_batches_make_one_step(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    fit(FitRequest(make_net(), data, make_recipe(accumulate=4), tmp_path))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("epoch/train_loss")] == [2, 4, 6]


def history(*top1: float) -> list[Epoch]:
    return [Epoch(number, 1.0, value, 1.0, 0.1, 1.0) for number, value in enumerate(top1, 1)]


@pytest.mark.parametrize(
    ("top1", "over"),
    [
        ((0.5,), False),
        ((0.5, 0.4), False),
        ((0.5, 0.4, 0.45), True),
        ((0.5, 0.4, 0.6), False),
        ((0.5, 0.505, 0.509), True),
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), True),
    ],
)
def test_training_is_over_after_epochs_without_a_rise(top1: tuple[float, ...], over: bool, make_recipe: Recipe) -> None:
    recipe = make_recipe(epochs=6, stop={"patience": 2, "min_rise": 0.01})
    assert finished(history(*top1), recipe) is over


def test_a_run_that_stopped_early_is_complete(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    # A rise of more than everything never comes.
    recipe = make_recipe(epochs=9, stop={"patience": 2, "min_rise": 1.0})
    result = fit(FitRequest(make_net(), data, recipe, tmp_path))
    assert (len(result.epochs), result.interrupted) == (3, False)
    assert fit(FitRequest(make_net(), data, recipe, tmp_path, resume=True)).epochs == result.epochs


# --- freezing ---------------------------------------------------------------------------------------------------------


def test_what_is_frozen_stands_still_with_its_statistics(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    net, plain = make_net(), make_net().state_dict()
    recipe = make_recipe(freeze={"trained": ("blocks",)}, optimizer={"weight_decay": 0.1})
    # The last layer stands for a block.
    fit(FitRequest(net, data, recipe, tmp_path, blocks=["6"]))
    moved = {key for key, value in net.state_dict().items() if not torch.equal(value, plain[key])}
    assert moved == {"6.weight", "6.bias"}
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_what_is_thawed_moves_at_its_own_rate(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    def trained(folder: str, epochs: int, rate: float) -> dict[str, torch.Tensor]:
        net = make_net()
        freeze = {"epochs": 2, "lr_after": rate}
        fit(FitRequest(net, data, make_recipe(epochs=epochs, freeze=freeze), tmp_path / folder, blocks=["6"]))
        return net.state_dict()

    plain = make_net().state_dict()
    frozen, still, thawed = trained("1", 2, 0.5), trained("2", 3, 0.0), trained("3", 3, 0.5)
    assert torch.equal(frozen["0.weight"], plain["0.weight"])
    assert torch.equal(still["0.weight"], plain["0.weight"])
    assert not torch.equal(thawed["0.weight"], plain["0.weight"])
    # The statistics follow the data once the norms train.
    assert torch.equal(frozen["1.running_mean"], plain["1.running_mean"])
    assert not torch.equal(thawed["1.running_mean"], plain["1.running_mean"])


def test_the_head_is_the_last_layer_of_as_many_outputs_as_classes(make_net: Net) -> None:
    net = make_net()
    assert frozen_of(net, Freeze(trained=("head",)), (), 4).parameters == {"0.weight", "1.weight", "1.bias"}
    # A block is none, though it have as many.
    assert "6.weight" in frozen_of(net, Freeze(trained=("head",)), ["6"], 4).parameters


def test_scopes_are_trained_by_globs_beside_blocks_and_head(make_net: Net) -> None:
    net = nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 4, 3), layer1=make_net(), layer2=make_net()))

    def trained(*names: str) -> set[str]:
        frozen = frozen_of(net, Freeze(trained=names), ("layer1.6",), 4).parameters
        return {name for name, _ in net.named_parameters() if name not in frozen}

    assert trained("stem") == {"stem.weight", "stem.bias"}
    assert trained("layer*.0", "blocks") == {"layer1.0.weight", "layer2.0.weight", "layer1.6.weight", "layer1.6.bias"}
    assert trained("layer2") == {f"layer2.{name}" for name, _ in net.layer2.named_parameters()}


def test_a_glob_that_matches_no_scope_gets_the_nearest(make_net: Net) -> None:
    net = nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 4, 3), layer1=make_net()))
    with pytest.raises(SesurgeryError, match=r"(?s)SE502.*names 'layr1'.*did you mean 'layer1'"):
        frozen_of(net, Freeze(trained=("layr1",)), (), 4)


def test_a_network_without_blocks_has_nothing_to_train_first(make_net: Net) -> None:
    with pytest.raises(SesurgeryError, match=r"SE502.*nothing is trained"):
        frozen_of(make_net(), Freeze(), (), 4)


# --- augmentation -----------------------------------------------------------------------------------------------------

STRONG = Augment(flip=True, shift=2, randaugment=2, erasing=0.5, resized_crop=(0.3, 1.0))


def test_a_change_depends_on_seed_and_image_alone(images: Data) -> None:
    train, augment = images.train, Augmentation(STRONG, (8, 8), 7)
    state = torch.get_rng_state()
    together, _ = train.batch([5, 9, 40], augment)
    torch.rand(3)
    alone, _ = train.batch([9], augment)
    assert torch.equal(together[1], alone[0])
    other, _ = train.batch([9], Augmentation(STRONG, (8, 8), 8))
    assert not torch.equal(other, alone)
    assert not torch.equal(alone, train.images[[9]])
    torch.set_rng_state(state)
    train.batch([1, 2], augment)
    assert torch.equal(torch.get_rng_state(), state)


def test_reading_processes_do_not_change_what_is_drawn(images: Data) -> None:
    def read(workers: int) -> list[torch.Tensor]:
        augment = lambda seed: Augmentation(STRONG, (8, 8), seed)  # noqa: E731
        return [batch for batch, _ in Shuffled(images.train, 32, 0, workers=workers, augment=augment)]

    assert all(torch.equal(one, other) for one, other in zip(read(0), read(2), strict=True))


def test_repeated_images_are_changed_each_in_its_own_way(images: Data) -> None:
    augment = lambda seed: Augmentation(STRONG, (8, 8), seed)  # noqa: E731
    batches = Shuffled(images.train, 24, 0, augment=augment, repeats=3)
    parts = [Shuffled(images.train, 24, 0, share, 3, augment=augment, repeats=3) for share in range(3)]
    assert len(batches) == 4
    for (whole, labels), *shares in zip(batches, *parts, strict=True):
        assert len({image.numpy().tobytes() for image in whole}) == 24
        # Eight images, three times each; a process has each once.
        assert all(torch.equal(share[1], shares[0][1]) for share in shares)
        assert torch.equal(labels.sort().values, shares[0][1].repeat(3).sort().values)


def test_without_a_change_augmentation_gives_the_image_itself(images: Data) -> None:
    for train in (images.train, Digits().load((3, 16, 16)).train):
        same, _ = train.batch([0, 3], Augmentation(Augment(), tuple(train.images[:1].shape[2:]), 0))
        torch.testing.assert_close(same, train.images[[0, 3]], rtol=0, atol=1e-5)


def test_mirrored_images_are_mirrored(images: Data) -> None:
    flipped, _ = images.train.batch(range(40), Augmentation(Augment(flip=True), (8, 8), 0))
    plain = images.train.images[:40]
    same = [torch.allclose(one, other, atol=1e-5) for one, other in zip(flipped, plain, strict=True)]
    mirrored = [torch.allclose(one, other, atol=1e-5) for one, other in zip(flipped, plain.flip(-1), strict=True)]
    assert all(one != other for one, other in zip(same, mirrored, strict=True))
    assert 8 < sum(mirrored) < 32


def test_tensors_cannot_be_augmented(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE501.*cannot be augmented"):
        fit(FitRequest(make_net(), data, make_recipe(augment={"flip": True}), tmp_path))
