"""A network with one output that holds its logits and what its modules make."""

import numpy as np
import torch

from sesurgery.backends.base import Runner, TensorInfo
from sesurgery.verification.tapped_network import TappedNetwork, TappedRunner
from sesurgery.verification.taps import LOGITS, Tap

WATCHED = ("layer1.0.se", "layer3.0.se")


class Torch(Runner):
    inputs = (TensorInfo("input", ("batch", 3, 32, 32), "float32"),)
    outputs = (TensorInfo("logits", ("batch", "all"), "float32"),)

    def __init__(self, network):
        self.network = network

    def infer(self, feeds):
        with torch.inference_mode():
            return {"logits": self.network(torch.from_numpy(feeds["input"])).numpy()}

    def time(self, feeds, repeats):
        return np.ones(repeats)

    def close(self):
        self.network = None


def test_the_values_come_out_of_the_one_output_by_their_taps(small_se):
    network = TappedNetwork(small_se, WATCHED)
    taps = [*(Tap(name, name, name, name) for name in WATCHED), Tap(LOGITS, "logits", "")]
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    seen = {}
    handles = [
        small_se.get_submodule(name).register_forward_hook(
            lambda _, given, made, name=name: seen.update({name: made.clone()})
        )
        for name in WATCHED
    ]
    with TappedRunner(Torch(network), taps, network.widths((3, 32, 32))) as runner:
        found = runner.infer({"input": images})
    with torch.inference_mode():
        logits = small_se(torch.from_numpy(images))
    for handle in handles:
        handle.remove()
    assert np.array_equal(found["logits"], logits.numpy())
    assert all(np.array_equal(found[name], seen[name].numpy()) for name in WATCHED)


def test_a_tapped_network_is_exported_as_any_other(small_se):
    from sesurgery.lowering.fx import graph

    captured = graph.capture(TappedNetwork(small_se, WATCHED), (3, 32, 32), (1, 4))
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(captured(images)[:, :10], small_se(images), atol=1e-5)
