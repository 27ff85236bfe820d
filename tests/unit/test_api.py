import pytest
import torch
from torch import nn

import sesurgery
from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError, SpecError
from sesurgery.networks.cifar_resnet import CifarResNet, resnet20
from sesurgery.pipeline.plan import carry_out

IMAGE = torch.zeros(1, 3, 32, 32)


def test_one_line_inserts_blocks_and_leaves_the_model_as_it_was():
    model = resnet20()
    keys = list(model.state_dict())
    changed = sesurgery.insert(model, block="se", at="residual", example_input=IMAGE, reduction=4, stages=[2, 3])
    assert list(model.state_dict()) == keys
    new = [key for key in changed.state_dict() if key not in keys]
    assert new[:4] == [f"layer2.0.se.{name}" for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")]
    assert len(new) == 6 * 4


def test_an_unknown_option_is_refused_with_the_nearest_name():
    with pytest.raises(SpecError, match="did you mean 'reduction'"):
        sesurgery.insert(resnet20(), example_input=IMAGE, reducton=4)


def test_a_placement_can_have_options():
    changed = sesurgery.insert(resnet20(), at={"placement": "module", "names": "layer1"}, example_input=IMAGE)
    assert isinstance(changed.get_submodule("layer1.se"), nn.Module)


def test_plan_and_apply_take_a_spec_as_a_mapping_with_a_model_at_hand():
    spec = {
        "version": 1,
        "model": {"source": "timm", "name": "resnet18"},
        "input": {"shape": [3, 32, 32]},
        "surgery": [{"insert": {"block": "se", "init": "identity"}, "at": "residual"}],
    }
    model = resnet20().eval()
    assert len(sesurgery.plan(spec, model).sites) == 9
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(sesurgery.apply(spec, model)(image), model(image))


class Gated(nn.Module):
    """A unit with a gate, whose forward looks at its data."""

    def __init__(self):
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x):
        y = self.conv(x)
        y = y * torch.sigmoid(self.up(self.down(y.mean((2, 3), keepdim=True))))
        return x + y if y.sum() > -1e9 else x


def texts(said):
    return [str(warning.message) for warning in said]


def blind():
    return nn.Sequential(nn.Conv2d(3, 8, 3), Gated(), nn.Conv2d(8, 8, 3), Gated(), nn.Conv2d(8, 8, 3))


UNSEEN = (
    "not seen: 2 convolutions and 2 channel gates in 2 parts that cannot be traced "
    "(1, 3: symbolically traced variables cannot be used as inputs to control flow)"
)
AT_CONV = {
    "version": 1,
    "model": {"source": "timm", "name": "resnet18"},
    "input": {"shape": [3, 16, 16]},
    "surgery": [{"insert": {"block": "se"}, "at": "conv"}],
}


def test_what_lies_unseen_in_parts_that_cannot_be_traced_is_among_the_warnings():
    with pytest.warns(UserWarning, match="not seen") as said:
        sesurgery.insert(blind(), at="conv", example_input=torch.zeros(1, 3, 16, 16))
    assert [text for text in texts(said) if "seen" in text] == [UNSEEN]
    with pytest.warns(UserWarning, match="not seen") as said:
        sesurgery.apply(AT_CONV, blind())
    assert [text for text in texts(said) if "seen" in text] == [UNSEEN]
    assert UNSEEN in sesurgery.plan(AT_CONV, blind()).warnings


def test_the_plan_of_a_specs_own_network_says_what_lies_unseen_in_it():
    spec = AT_CONV | {"model": {"source": "python", "name": f"{__name__}:blind"}}
    assert UNSEEN in sesurgery.plan(spec).warnings


def test_where_all_is_seen_nothing_is_warned_of(recwarn):
    sesurgery.insert(resnet20(), example_input=IMAGE)
    assert not [text for text in texts(recwarn) if "seen" in text]
    assert not [text for text in sesurgery.plan(AT_CONV, resnet20()).warnings if "seen" in text]


class InNeedOfTargets(CifarResNet):
    """In training it wants more than an image, as detectors do."""

    def forward(self, x, targets=None):
        if self.training and targets is None:
            raise ValueError("targets should not be none in training")
        return super().forward(x)


def in_need_of_targets():
    return InNeedOfTargets(8)


UNCOMPARED = (
    "in training mode the network does not run on random input (targets should not be none in training): "
    "traced forwards were compared with the original ones in evaluation mode alone"
)


def test_a_mode_in_which_nothing_could_be_compared_is_among_the_warnings(recwarn):
    sesurgery.insert(in_need_of_targets(), example_input=IMAGE)
    assert [text for text in texts(recwarn) if "compared" in text] == [UNCOMPARED]
    spec = AT_CONV | {"model": {"source": "python", "name": f"{__name__}:in_need_of_targets"}}
    planned = pipeline.plan(sesurgery.load_spec(spec | {"surgery": [{"insert": "se", "at": "residual"}]}))
    assert UNCOMPARED not in planned.plan.warnings
    assert carry_out(planned)[0].plan.warnings == (*planned.plan.warnings, UNCOMPARED)


class Scored(nn.Module):
    """A residual in the forward that wants targets in training, and gives a loss then."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x, targets=None):
        if self.training and targets is None:
            raise ValueError("targets should not be none in training")
        first = self.stem(x)
        scores = (first + self.conv(first)).mean((2, 3))
        return nn.functional.cross_entropy(scores, targets) if self.training else scores


def test_a_network_that_needs_targets_in_training_takes_blocks_with_them():
    network = Scored().eval()
    with pytest.raises(SesurgeryError, match=r"SE403.*targets should not.*\n.*give that too.*example_input=\(image"):
        sesurgery.insert(network, example_input=IMAGE)
    targets = torch.zeros(len(IMAGE), dtype=torch.long)
    changed = sesurgery.insert(network, example_input=(IMAGE, targets), init="identity")
    image = torch.randn(IMAGE.shape)
    with torch.no_grad():
        assert torch.equal(changed(image), network(image))
        assert torch.equal(changed.train()(image, targets), network.train()(image, targets))


def test_where_both_modes_were_compared_nothing_is_warned_of(recwarn):
    sesurgery.insert(resnet20(), example_input=IMAGE)
    assert not [text for text in texts(recwarn) if "compared" in text]


def test_importing_the_package_offers_only_what_it_names():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = sesurgery.nonsense


def test_a_mistake_names_the_rule_that_was_asked_for():
    with pytest.raises(SpecError, match=r"SE105.*surgery\.0\.insert\.block: unknown block 'sa'"):
        sesurgery.insert(resnet20(), block="sa", example_input=IMAGE)
    with pytest.raises(SpecError, match=r"SE104.*input\.shape\.1: .*greater than 0"):
        sesurgery.insert(resnet20(), example_input=torch.zeros(1, 3, 0, 32))


def test_the_plan_of_rules_alone_names_them_as_a_spec_does():
    from sesurgery import pipeline, planner
    from sesurgery.spec import GivenSurgery, load_rule
    from sesurgery.surgeons.fx.surgeon import FxSurgeon

    rule = {"insert": "se", "at": "residual"}
    given = {"model": {"source": "timm", "name": "x"}, "input": {"shape": [3, 32, 32]}, "surgery": [rule]}
    spec = sesurgery.load_spec({"version": 1, **given})
    view = FxSurgeon((3, 32, 32)).view(resnet20())
    alone = planner.plan(GivenSurgery((load_rule(rule, pipeline.catalogs()),)), view)
    assert alone.sites == planner.plan(spec, view).sites
    assert alone.spec_digest != spec.digest
