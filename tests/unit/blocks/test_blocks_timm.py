"""The block `timm`: timm's names and arguments, checked before timm sees them."""

import contextlib
from typing import get_args

import pytest
import torch
from timm.layers import EcaModule, GatherExcite, get_attn

from sesurgery.blocks.timm import EXAMPLES, Name, Timm
from sesurgery.diagnostics import SpecError
from sesurgery.pipeline import load_spec

SPEC = """version: 1
model: {source: python, name: "a.b:c"}
input: {shape: [3, 8, 8]}
surgery:
  - insert: {block: timm, name: NAME}
    at: residual
"""


def test_every_name_is_one_of_timm_and_has_an_example():
    assert {example.name for example in EXAMPLES} == set(get_args(Name))
    assert all(get_attn(name) for name in get_args(Name))


@pytest.mark.parametrize("name", ["bottleneck", "halo", "bat"])
def test_names_of_timm_that_work_at_one_size_of_map_are_left_out(name):
    assert get_attn(name) is not None
    assert name not in get_args(Name)


def test_the_module_is_the_one_that_timm_makes():
    torch.manual_seed(0)
    ours = Timm("eca", {"gamma": 1}).build(64)
    assert type(ours) is EcaModule
    assert ours.conv.kernel_size == EcaModule(64, gamma=1).conv.kernel_size == (7,)


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(SPEC.replace("NAME", "wavelet"))
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == ("SE105", "unknown name 'wavelet'")
    assert found.hint == "known: " + ", ".join(sorted(get_args(Name)))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Timm("gc", {"rd_ratoi": 0.25}), r"timm's 'gc' has no option 'rd_ratoi': did you mean 'rd_ratio'\?"),
        (Timm("strip", {"kernel": 5}), "timm's 'strip' has no option 'kernel'"),
        (Timm("ese", {"reduction": 4}), "timm's 'ese' has no option 'reduction'"),
        (Timm("sk", {"out_channels": 8}), "has no option 'out_channels'"),
        (Timm("sk", {"stride": 2}), "has no option 'stride'"),
        (Timm("eca", {"kernel_size": 5}), "take the block eca to set it"),
        (Timm("cbam", {"act_layer": "nope"}), "timm knows no act_layer 'nope'"),
        (Timm("coord", {"norm_layer": "nope"}), "timm knows no norm_layer 'nope'"),
        (Timm("se", {"rd_ratio": "half"}), "cannot build 'se'"),
    ],
    ids=lambda value: f"{value.name}-{next(iter(value.kwargs))}" if isinstance(value, Timm) else "",
)
def test_a_wrong_option_is_said_when_the_block_is_built(block, message):
    with pytest.raises(ValueError, match=message):
        block.build(64)


def test_a_gather_excite_that_timm_cannot_build_names_the_block_that_can():
    # timm may have put its constructor right; the way out is offered only where it is needed.
    fits = (
        contextlib.nullcontext() if _builds_in_timm() else pytest.raises(ValueError, match="take the block gather_exc")
    )
    with fits:
        assert Timm("ge").build(64)(torch.ones(1, 64, 3, 3)).shape == (1, 64, 3, 3)


def _builds_in_timm():
    try:
        GatherExcite(64)
    except TypeError:
        return False
    return True
