"""The machine around a training run."""

import torch

from sesurgery.training.machine import seed_draws


def test_what_is_drawn_after_it_is_what_torch_draws_after_its_own_seed():
    with torch.random.fork_rng():
        seed_draws(7, torch.device("cpu"))
        ours = torch.rand(5), torch.randperm(9)
        torch.manual_seed(7)
        theirs = torch.rand(5), torch.randperm(9)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_no_absent_device_is_asked_to_remember_the_seed(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", asked.append)
    with torch.random.fork_rng():
        seed_draws(7, torch.device("cpu"))
        assert not asked
        torch.manual_seed(7)
    assert asked == [7]
