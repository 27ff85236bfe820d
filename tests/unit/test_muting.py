"""Loggers held back for the time of a block."""

from __future__ import annotations

import contextlib
import logging

import pytest
import torch
from torch import nn

import sesurgery
from sesurgery.diagnostics import SesurgeryError
from sesurgery.muting import muted


def test_warnings_of_the_named_loggers_are_held_back_and_levels_come_back(caplog):
    one, other = logging.getLogger("muting.one"), logging.getLogger("muting.other")
    one.setLevel(logging.INFO)
    with contextlib.suppress(ZeroDivisionError), muted("muting.one"):
        one.warning("held")
        one.error("told")
        other.warning("of another")
        raise ZeroDivisionError
    assert caplog.messages == ["told", "of another"]
    assert one.level == logging.INFO


def test_even_errors_are_held_back_where_asked(caplog):
    with muted("muting.one", below=logging.CRITICAL):
        logging.getLogger("muting.one").error("held")
    assert caplog.messages == []


def test_a_size_that_a_network_does_not_take_is_told_once(caplog):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(7), nn.Conv2d(8, 8, 1))
    with pytest.raises(SesurgeryError, match="SE304"):
        sesurgery.insert(network, at="conv", example_input=torch.zeros(1, 3, 8, 8))
    assert caplog.messages == []


def test_a_question_about_sizes_that_torch_cannot_answer_leaves_no_traceback_in_the_log(caplog):
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # The map is smaller than the window: torch's fake tensors raise, and log it.
            return x + self.conv(x) if nn.functional.avg_pool2d(x, 9).shape[1] else x

    network = nn.Sequential(nn.Conv2d(3, 3, 1), Asks(), nn.Conv2d(3, 3, 1))
    with pytest.raises(SesurgeryError, match="SE304"):
        sesurgery.insert(network, at="conv", example_input=torch.zeros(1, 3, 8, 8))
    assert caplog.messages == []
