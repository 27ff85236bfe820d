"""The key `checkpoint` of a spec: a file of weights, and what its keys are called where they are not the network's."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from sesurgery.spec.frozen import Frozen, Globs
from sesurgery.spec.plugins import KeysField


class Checkpoint(Frozen):
    """A local weights file: safetensors, or a torch file of tensors alone."""

    alone = "file"

    file: str = Field(description="the file, relative to the spec")
    keys: KeysField = Field(None, description="the key map: in whose layout the keys are; default: the network's own")
    except_: Globs | None = Field(
        None, alias="except", description="globs over the network's keys: these keep their fresh values"
    )


CheckpointField = Annotated[
    Checkpoint | None,
    # Mostly there is nothing to say but the file.
    BeforeValidator(
        lambda given: {"file": given} if isinstance(given, str) else given,
        json_schema_input_type=str | Checkpoint | None,
    ),
]
