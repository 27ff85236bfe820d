"""Channel attention inserted into any convolutional backbone, trained, lowered, built, verified and timed.

`load_spec`, `plan`, `apply` and `insert` are here for Python users; they are imported when first used, so that
`import sesurgery` does not pay for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sesurgery import deferred

if TYPE_CHECKING:
    from sesurgery.api import apply, insert, load_spec, plan

__version__ = "0.1.0"
__all__ = ["__version__", "apply", "insert", "load_spec", "plan"]

deferred.names(
    __name__,
    {"load_spec": "sesurgery.pipeline.specs", **dict.fromkeys(("apply", "insert", "plan"), "sesurgery.api")},
)
