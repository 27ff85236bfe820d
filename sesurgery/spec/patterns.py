"""Regular expressions that a spec holds."""

from __future__ import annotations

import re

from pydantic_core import PydanticCustomError


def require_pattern(pattern: str, *inner: str) -> None:
    """Raise an error of the spec at `inner`, a place within the plugin's options, if `pattern` does not compile."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        hint = "put a backslash before each of .^$*+?{}[]\\|() that is meant as it stands"
        text = f"{pattern!r} is not a regular expression: {error}"
        # The text comes last: what is put in for it is not read as a template again.
        raise PydanticCustomError("range", "{text}", {"hint": hint, "inner": inner, "text": text}) from None
