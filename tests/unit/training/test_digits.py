from __future__ import annotations

import pytest
import torch

from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.plugins import options_adapter
from sesurgery.training.data.digits import EXAMPLES, Digits


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_example_loads_for_a_cifar_network(example: Digits) -> None:
    loaded = example.load((3, 32, 32))
    assert loaded.train.images[:].shape == (len(loaded.train), 3, 32, 32)
    assert len(loaded.train) + len(loaded.held_out) == 1797
    assert loaded.classes == tuple("0123456789")


def test_the_training_split_decides_the_normalisation() -> None:
    loaded = Digits().load((1, 16, 16))
    assert loaded.train.images[:].mean().item() == pytest.approx(0, abs=1e-5)
    assert loaded.train.images[:].std().item() == pytest.approx(1, abs=1e-5)
    assert abs(loaded.held_out.images[:].mean().item()) > 1e-5


def test_three_channels_are_one_repeated() -> None:
    images = Digits().load((3, 8, 8)).held_out.images[:]
    assert torch.equal(images[:, 0], images[:, 2])


def test_the_splits_share_no_sample_and_all_proportions() -> None:
    loaded = Digits(held_out=0.2).load((1, 8, 8))
    train, held_out = (
        {image.numpy().tobytes() for image in split.images[:]} for split in (loaded.train, loaded.held_out)
    )
    assert not train & held_out
    shares = torch.bincount(loaded.held_out.labels) / (
        torch.bincount(loaded.held_out.labels) + torch.bincount(loaded.train.labels)
    )
    assert shares.tolist() == pytest.approx([0.2] * 10, abs=0.005)


def test_the_seed_decides_the_split() -> None:
    first, again, other = (Digits(seed=seed).load((1, 8, 8)).held_out.labels for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_two_channels_are_refused() -> None:
    with pytest.raises(SesurgeryError, match=r"SE501.*1 or 3 channels, not 2"):
        Digits().load((2, 8, 8))


@pytest.mark.parametrize("options", [{"held_out": 0.0}, {"held_out": 1.0}, {"seed": -1}, {"split": 0.2}], ids=str)
def test_a_spec_cannot_ask_for_what_makes_no_split(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        options_adapter(Digits).validate_python(options)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 20, 12)], ids=str)
def test_images_do_not_depend_on_how_many_are_read_at_once(shape: tuple[int, int, int]) -> None:
    images = Digits().load(shape).train.images
    whole = images[:]
    assert torch.equal(images[[5]][0], whole[5])
    assert torch.equal(images[[40, 3, 7]], whole[[40, 3, 7]])
    assert torch.equal(torch.cat([images[start : start + 100] for start in range(0, len(images), 100)]), whole)
