"""The section `train:` of a spec: data, optimiser, schedule and the other parts of a recipe."""

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
WITH_MOMENTUM = (
    "adafactorbv", "larc", "lars", "madgrad", "madgradw", "momentum", "rmsprop", "rmsproptf", "sgd", "sgdp", "sgdw",
)  # fmt: skip
"""Optimisers that read `momentum`."""
WITHOUT_EPS = ("clion", "lion", "momentum", "sgd", "sgdw")
"""Optimisers without such an option, which timm's factory would silently ignore."""
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
    decay_blocks: bool = Field(True, description="whether the weights of inserted blocks decay too")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="factor on the learning rate from each layer to the layer before it; blocks have the full rate",
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
    """The learning rate after the warm-up, by timm's schedulers; the default is a cosine to zero."""

    name: Literal["cosine", "tanh", "step", "multistep", "poly"] = "cosine"
    min_lr: NonNegative = 0.0
    warmup_lr: NonNegative = Field(1e-5, description="the learning rate at the start of the warm-up")
    decay_epochs: Annotated[float, Field(gt=0)] = Field(30.0, description="for step: epochs between two drops")
    milestones: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (30, 60, 90), description="for multistep: the epochs after which the rate drops"
    )
    decay_rate: Annotated[float, Field(gt=0)] = Field(
        0.1, description="for step and multistep: the factor of a drop; for poly: the power"
    )


class Augment(Frozen):
    """Augmentation of the training images, drawn only from the seed, the epoch and the image's position."""

    flip: bool = Field(False, description="horizontal flip with probability 0.5")
    shift: Annotated[int, Field(ge=0)] = Field(
        0, description="random shift by up to this many pixels, padded with black"
    )
    resized_crop: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        description="random crop between this smallest and largest share of the area, resized to the network's input",
    )
    randaugment: Annotated[int, Field(ge=0)] = Field(0, description="RandAugment operations per image")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="RandAugment's magnitude, of 31 levels")
    erasing: Fraction = Field(0.0, description="share of images in which a random rectangle is erased")
    mixup: NonNegative = Field(0.0, description="alpha of mixup")
    cutmix: NonNegative = Field(
        0.0, description="alpha of CutMix; together with mixup, one of the two is drawn for each batch"
    )
    repeats: Annotated[int, Field(gt=0, le=64)] = Field(
        1, description="repeated augmentation: copies of each image in a batch; an epoch then has fewer images"
    )


class Ema(Frozen):
    """A moving average of the weights, which is evaluated and kept."""

    decay: BelowOne = 0.9998
    warmup: bool = Field(
        True, description="the decay grows with the steps, so that the average is useful in short trainings"
    )


class Freeze(Frozen):
    """Train only some of the weights at first; the others are frozen, including their norms' statistics."""

    trained: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("blocks",),
        description="what is trained from the start: `blocks`, `head` (the classifier), and globs over scopes",
    )
    epochs: Positive | None = Field(None, description="epochs after which everything is trained; default: never")
    lr_after: Fraction = Field(0.1, description="learning rate from then on, as a share of `optimizer: lr`")


class Distill(Frozen):
    """Distillation from a teacher: the network without its blocks, or another run."""

    teacher: str = Field(
        "plain", description="plain: the network without its blocks, before training; or the folder of a run"
    )
    share: Fraction = Field(0.5, description="weight of the distillation loss; the rest is the loss on the labels")
    temperature: Annotated[float, Field(gt=0, le=1000)] = Field(2.0, description="divides both networks' logits")


class Stop(Frozen):
    """Early stopping on held-out top-1."""

    patience: Positive = Field(5, description="epochs without a rise")
    min_rise: Fraction = Field(0.0, description="top-1 must rise by more than this")


class Train(Frozen):
    """How the network is trained."""

    preset: PresetField = Field(None, description="a whole recipe; keys written here override it")
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
        None, description="with bce: targets of mixed images above this become 1, the others 0"
    )
    label_smoothing: Fraction = 0.0
    clip_grad: Annotated[float, Field(gt=0)] | None = Field(None, description="largest norm of a step's gradient")
    drop_path: BelowOne = Field(
        0.0, description="stochastic depth, passed to the network; an error for networks without it"
    )
    augment: Augment | None = None
    distill: Distill | None = None
    ema: Ema | None = None
    freeze: Freeze | None = None
    stop: Stop | None = None
    keep: Literal["last", "best"] = Field("last", description="which epoch's weights are kept")
    keep_epochs: Size | None = Field(
        None, description="also keep the weights after every so many epochs, under `train/epochs/` in the run"
    )
    save_minutes: Annotated[float, Field(gt=0)] = Field(
        10.0, description="minutes between two checkpoints within an epoch"
    )
    trackers: tuple[Literal["mlflow", "wandb"], ...] = Field(
        (), description="experiment trackers that epochs are reported to, by their own settings"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: Threads | None = Field(None, description="CPU threads; default: all")
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        0, description="processes that load images; auto: measured"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="autocast; weights and inserted blocks stay in fp32"
    )
    channels_last: bool = Field(False, description="channels-last memory format")
    compile: bool = Field(False, description="torch.compile: the first step waits for the compiler")
    tf32: bool = Field(False, description="allow TF32 matrix products on GPUs that have them")
    fused: bool = Field(False, description="gate scaling, residual sum and ReLU as one operation; one kernel on a GPU")

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
