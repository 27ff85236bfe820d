"""What follows a gate in training, as one operation: `fuse` puts it into a network, `scale_add_relu` is it."""

from sesurgery.training.fused.network import Fused, fuse
from sesurgery.training.fused.operation import scale_add_relu

__all__ = ["Fused", "fuse", "scale_add_relu"]
