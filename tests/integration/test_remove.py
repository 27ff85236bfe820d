"""Existing channel gates, whoever wrote them: taken out, replaced, and never doubled."""

import pytest
import timm
import torch
import torchvision
from fixtures.surgery import operated, planned

import sesurgery
from sesurgery.diagnostics import SpecError

SHAPE = (3, 64, 64)


def outputs(model, size):
    with torch.no_grad():
        return model(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)))


def torchvision_model(name, **kwargs):
    return lambda: torchvision.models.get_model(name, **kwargs)


NETWORKS = {
    "resnet18": (torchvision_model("resnet18"), "residual", 64),
    "vgg11_bn": (torchvision_model("vgg11_bn"), "conv", 64),
    "resnet50, inner": (torchvision_model("resnet50"), "inner", 64),
    "resnetv2_50, pre": (lambda: timm.create_model("resnetv2_50"), "pre", 64),
    "mobilenet_v2, identity": (torchvision_model("mobilenet_v2"), "identity", 64),
    "shufflenet, concat": (torchvision_model("shufflenet_v2_x1_0"), "concat", 64),
    "googlenet, two graphs": (torchvision_model("googlenet", init_weights=False, aux_logits=True), "concat", 224),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_remove_after_insert_gives_back_the_original_bit_for_bit(name):
    make, at, size = NETWORKS[name]
    model = make().eval()
    changed = sesurgery.insert(model, at=at, example_input=torch.zeros(1, 3, size, size), min_width=2)
    restored = operated(changed, (3, size, size), {"remove": "se"})
    assert not torch.equal(outputs(changed, size), outputs(model, size))
    assert list(restored.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in restored.state_dict().items())
    assert torch.equal(outputs(restored, size), outputs(model, size))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "gates"),
    [
        (torchvision_model("mobilenet_v3_large"), 8),
        (torchvision_model("mobilenet_v3_small"), 9),
        (torchvision_model("efficientnet_b0"), 16),
        (torchvision_model("regnet_y_400mf"), 16),
        (lambda: timm.create_model("seresnet50"), 16),
        (lambda: timm.create_model("seresnext26d_32x4d"), 8),
        (lambda: timm.create_model("legacy_seresnet18"), 8),
        (lambda: timm.create_model("mobilenetv3_small_100"), 9),
    ],
    ids=["mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0", "regnet_y", "seresnet50", "seresnext26d",
         "legacy_seresnet18", "timm mobilenetv3_small"],
)  # fmt: skip
def test_every_block_is_found_and_taken_out_with_its_parameters(make, gates):
    model = make().eval()
    plain = operated(model, SHAPE, {"remove": {"block": "se"}, "expect": gates})
    assert set(plain.state_dict()) < set(model.state_dict())
    assert outputs(plain, 64).shape == (2, 1000)
    with pytest.raises(SpecError, match="has no channel gate"):
        planned(plain, SHAPE, {"remove": "se"})


def test_timms_seresnet_without_its_blocks_is_timms_resnet():
    model = timm.create_model("seresnet18").eval()
    plain = operated(model, SHAPE, {"remove": "se", "expect": 8})
    twin = timm.create_model("resnet18").eval()
    assert set(plain.state_dict()) == set(twin.state_dict())
    twin.load_state_dict(plain.state_dict())
    assert torch.equal(outputs(twin, 64), outputs(plain, 64))


def test_effective_se_is_told_apart_from_se():
    model = timm.create_model("ese_vovnet19b_dw").eval()
    plan = planned(model, SHAPE, {"remove": "effective_se"})
    assert len(plan.removals) == 4
    with pytest.raises(SpecError, match="with 1 projections, 'se' has 2"):
        planned(model, SHAPE, {"remove": "se"})


def test_a_block_gives_way_to_another_in_its_place():
    model = torchvision.models.mobilenet_v3_small().eval()
    rule = {"replace": "se", "insert": {"block": "eca", "init": "identity"}, "name": "attention"}
    changed = operated(model, SHAPE, rule)
    plain = operated(model, SHAPE, {"remove": "se"})
    assert torch.equal(outputs(changed, 64), outputs(plain, 64))
    new = [key for key in changed.state_dict() if key not in plain.state_dict()]
    assert len(new) == 9
    assert all(".attention." in key for key in new)


def test_inserting_twice_is_refused_and_says_how_to_go_on():
    changed = sesurgery.insert(torchvision.models.resnet18(), example_input=torch.zeros(1, 3, 64, 64))
    with pytest.raises(SpecError, match=r"it has a channel gate already .*remove or replace it"):
        sesurgery.insert(changed, example_input=torch.zeros(1, 3, 64, 64))


def test_inception_keeps_its_auxiliary_head_in_training_and_in_evaluation():
    model = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    changed = sesurgery.insert(model, at="concat", example_input=torch.zeros(1, 3, 224, 224), init="identity")
    image = torch.randn(2, 3, 224, 224)
    for mode in (False, True):
        answers = []
        for network in (model.train(mode), changed.train(mode)):
            torch.manual_seed(0)  # one dropout mask for both
            with torch.no_grad():
                answers.append(network(image))
        if mode:
            assert [type(answer).__name__ for answer in answers] == ["GoogLeNetOutputs"] * 2
            assert all(torch.equal(one, other) for one, other in zip(*answers, strict=True))
        else:
            assert torch.equal(*answers)
    assert list(changed.state_dict())[:3] == list(model.state_dict())[:3]
