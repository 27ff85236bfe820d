"""Former name of `sesurgery.networks.cifar_resnet`, which specs and checkpoints of earlier releases hold."""

import warnings

from sesurgery.networks.cifar_resnet import *  # noqa: F403

warnings.warn(
    "sesurgery.models.cifar_resnet is now sesurgery.networks.cifar_resnet; the old name goes with the next release",
    FutureWarning,
    stacklevel=2,
)
