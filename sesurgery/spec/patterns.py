"""Regular expressions that a spec holds."""

from __future__ import annotations

import re

from pydantic_core import PydanticCustomError


def require_pattern(pattern: str, *inner: str) -> None:
    """Raise an error of the spec at `inner`, a place within the plugin's options, for what is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        hint = "put a backslash before each of .^$*+?{}[]\\|() that is meant as it stands"
        text = f"{pattern!r} is no regular expression: {error}"
        # Braces of a template are its own.
        raise PydanticCustomError("range", "{text}", {"text": text, "inner": inner, "hint": hint}) from None
