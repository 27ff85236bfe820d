"""The network of a run without what surgery put in: what blocks are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sesurgery.networks.checkpoint import Run

if TYPE_CHECKING:
    from torch import nn


def plain_network(run: Run) -> nn.Module:
    """The network without its blocks and with all other weights of the run: the baseline."""
    import torch

    from sesurgery.networks import sources

    with torch.random.fork_rng(devices=[]):
        network = sources.build(run.spec, weights=False, beside=run.beside)
    state = run.network.state_dict()
    network.load_state_dict({key: state[key] for key in network.state_dict()})
    return network.eval()
