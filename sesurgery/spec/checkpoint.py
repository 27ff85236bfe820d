"""The key `checkpoint` of a spec: a weights file, and the key map that translates its keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from sesurgery.spec.frozen import Frozen, Globs
from sesurgery.spec.plugins import KeysField


class Checkpoint(Frozen):
    """A local weights file: safetensors, or a torch file of tensors alone."""

    alone = "file"

    file: str = Field(description="the file, relative to the spec")
    keys: KeysField = Field(
        None, description="the key map that translates the file's keys; default: the network's own keys"
    )
    except_: Globs | None = Field(
        None, alias="except", description="globs over the network's keys that stay as initialised"
    )
    ignore: Globs | None = Field(None, description="globs over the file's keys that are left out")


CheckpointField = Annotated[
    Checkpoint | None,
    # Mostly there is nothing to say but the file.
    BeforeValidator(
        lambda given: {"file": given} if isinstance(given, str) else given,
        json_schema_input_type=str | Checkpoint | None,
    ),
]
