"""The section `train:` of a spec: data, optimiser, schedule, and what else a recipe may have."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sesurgery.diagnostics import suggest
from sesurgery.spec.bounds import Repeats, Size, Threads
from sesurgery.spec.frozen import Fraction, Frozen, Positive
from sesurgery.spec.plugins import DatasetField, PresetField

OPTIMIZERS = (
    "adabelief", "adadelta", "adafactor", "adafactorbv", "adagrad", "adam", "adamax", "adamp", "adamw", "adan", "adanw",
    "adopt", "adoptw", "cadamw", "clion", "lamb", "laprop", "larc", "lars", "lion", "madgrad", "madgradw", "mars",
    "momentum", "nadam", "nadamw", "novograd", "radam", "rmsprop", "rmsproptf", "sgd", "sgdp", "sgdw",
)  # fmt: skip
"""Of timm, by its names; those that need a second gradient or another package are left out."""
WITHOUT_BETAS = (
    "adadelta", "adafactorbv", "adagrad", "adan", "adanw", "larc", "lars", "madgrad", "madgradw", "momentum", "rmsprop",
    "rmsproptf", "sgd", "sgdp", "sgdw",
)  # fmt: skip
WITHOUT_EPS = ("clion", "lion", "momentum", "sgd", "sgdw")
"""Those among them that have no such option: timm's factory would leave it out without a word."""
NonNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


def _known(name: str) -> str:
    if name not in OPTIMIZERS:
        raise PydanticCustomError("plugin_unknown", f"unknown optimiser {name!r}", {"hint": suggest(name, OPTIMIZERS)})
    return name


class Optimizer(Frozen):
    """The optimiser, and the warm-up of its learning rate."""

    name: Annotated[str, AfterValidator(_known)] = Field(
        "sgd", description="sgd, adamw, lamb, lion, rmsproptf ...: an optimiser of timm"
    )
    lr: Annotated[float, Field(gt=0, le=1e4)] = 0.1
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1e4)] = 5e-4
    decay_blocks: bool = Field(True, description="whether the weights of inserted blocks decay, too")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="factor on the rate from each layer to the one before it; blocks have the full rate"
    )
    nesterov: bool = True
    betas: tuple[BelowOne, BelowOne] | None = None
    eps: Annotated[float, Field(gt=0)] | None = None
    warmup_epochs: Annotated[float, Field(ge=0, le=1e6)] = 1.0

    @field_validator("betas", "eps")
    @classmethod
    def _has_it(cls, value: object, info: ValidationInfo) -> object:
        without = WITHOUT_BETAS if info.field_name == "betas" else WITHOUT_EPS
        if value is not None and (name := info.data.get("name")) in without:
            raise PydanticCustomError("excluding", f"the optimiser {name!r} has no {info.field_name!r}")
        return value


class Schedule(Frozen):
    """How the learning rate goes on after the warm-up, by timm's schedulers; left out, it is a cosine to zero."""

    name: Literal["cosine", "tanh", "step", "multistep", "poly"] = "cosine"
    min_lr: NonNegative = 0.0
    warmup_lr: NonNegative = Field(1e-5, description="the rate that the warm-up starts from")
    decay_epochs: Annotated[float, Field(gt=0)] = Field(30.0, description="of step: epochs between two drops")
    milestones: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (30, 60, 90), description="of multistep: the epochs after which it drops"
    )
    decay_rate: Annotated[float, Field(gt=0)] = Field(
        0.1, description="of step and multistep: the factor of a drop; of poly: the power"
    )


class Augment(Frozen):
    """Random changes of the training images, drawn from the seed, the epoch and the image's position alone."""

    flip: bool = Field(False, description="mirrored left to right, every second one")
    shift: Annotated[int, Field(ge=0)] = Field(0, description="moved by up to so many pixels, with black behind")
    resized_crop: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None, description="a random part, of this smallest and largest share of the area, brought to the network's size"
    )
    randaugment: Annotated[int, Field(ge=0)] = Field(0, description="operations of RandAugment an image")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="of RandAugment's operations, of 31 steps")
    erasing: Fraction = Field(0.0, description="share of images in which a random rectangle is erased")
    mixup: NonNegative = Field(0.0, description="alpha of mixup: two images laid over each other, and their labels")
    cutmix: NonNegative = Field(
        0.0, description="alpha of CutMix: a rectangle of another image, and its share of label"
    )
    repeats: Annotated[int, Field(gt=0, le=64)] = Field(
        1, description="times that an image is in a batch, each changed in another way; an epoch has fewer images then"
    )


class Ema(Frozen):
    """A moving average of the weights, which is what is evaluated, and what the run ends with."""

    decay: BelowOne = 0.9998
    warmup: bool = Field(True, description="the decay grows with the steps, so that short trainings have an average")


class Freeze(Frozen):
    """Only some of the weights are trained at first; the others stand still, the statistics of their norms as well."""

    trained: Annotated[tuple[Literal["blocks", "head"], ...], Field(min_length=1)] = Field(
        ("blocks",), description="what is trained from the start: inserted blocks, the classifier, or both"
    )
    epochs: Positive | None = Field(None, description="epochs until the others are trained, too; left out: never")
    lr_after: Fraction = Field(0.1, description="their learning rate from then on, as a share of `optimizer: lr`")


class Distill(Frozen):
    """A teacher's answers as a second target: the network as it was before the surgery, or another run."""

    teacher: str = Field("plain", description="plain, the network without its blocks as it was applied; or a run")
    share: Fraction = Field(0.5, description="of the loss that is the distance from the teacher")
    temperature: Annotated[float, Field(gt=0, le=1000)] = Field(2.0, description="by which logits are divided")


class Stop(Frozen):
    """Training ends early when held-out top-1 has not risen for a while."""

    patience: Positive = Field(5, description="epochs without a rise")
    min_rise: Fraction = Field(0.0, description="a rise of at most this share does not count")


class Train(Frozen):
    """How the network is trained."""

    preset: PresetField = Field(None, description="a whole recipe, beneath what is said here")
    data: DatasetField = Field(
        default="digits",
        validate_default=True,
        description="the data set: its name, or a mapping with `dataset:` and its options",
    )
    epochs: Repeats = 10
    batch_size: Size = 64
    accumulate: Size = Field(1, description="batches whose gradients make one step")
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: Schedule | None = None
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    bce_threshold: Fraction | None = Field(
        None, description="of bce: the share above which a class of a mixed image counts as wholly there"
    )
    label_smoothing: Fraction = 0.0
    clip_grad: Annotated[float, Field(gt=0)] | None = Field(None, description="largest norm of a step's gradient")
    drop_path: BelowOne = Field(0.0, description="stochastic depth, passed to the network where it takes one")
    augment: Augment | None = None
    distill: Distill | None = None
    ema: Ema | None = None
    freeze: Freeze | None = None
    stop: Stop | None = None
    keep: Literal["last", "best"] = Field("last", description="the epoch whose weights the run ends with")
    save_minutes: Annotated[float, Field(gt=0)] = Field(10.0, description="between two checkpoints within an epoch")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: Threads | None = Field(None, description="CPU threads; default: all")
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        0, description="processes that read images; auto: found by measuring"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of what gains by it; weights and gates stay in fp32"
    )
    channels_last: bool = Field(False, description="maps with their channels together in memory")
    compile: bool = Field(False, description="the network by torch.compile: a minute first, then faster steps")
    tf32: bool = Field(False, description="products of fp32 in 19 bits on GPUs that can")
    fused: bool = Field(
        False, description="scaling by a gate, residual sum and ReLU as one operation; a kernel of its own on a GPU"
    )

    @model_validator(mode="after")
    def _fused_is_alone(self) -> Self:
        if self.fused and (self.compile or self.precision != "fp32"):
            other = "compile" if self.compile else "precision"
            raise PydanticCustomError(
                "excluding",
                f"'fused' has operations of its own in fp32: it does not go with {other!r}",
                {"inner": ["fused"]},
            )
        return self
