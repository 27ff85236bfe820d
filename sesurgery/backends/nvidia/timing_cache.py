"""What a builder measured, kept in a file for the next build: it times every kernel on the GPU, which takes minutes."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

from sesurgery.artifacts import digest_text, locked, writing
from sesurgery.backends.nvidia.settings import Settings

FOLDER = ".timing"


class TimingCache:
    """One file, for one GPU, one version of the library and one choice of flags: times of others mislead."""

    def __init__(self, folder: Path, library: str, gpu: str, settings: Settings) -> None:
        key = digest_text(repr((sorted(settings.flags), settings.level, settings.hardware)))[:8]
        self.path = folder / FOLDER / f"{_slug(library)}-{_slug(gpu)}-{key}.cache"

    def attach(self, config: Any, log: Any) -> str | None:
        """Give a config what the file holds, or an empty cache; says why where the file is of no use."""
        with locked(self.path.parent):
            known = self.path.read_bytes() if self.path.is_file() else b""
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return None
        # Of another GPU or version in spite of its name, or damaged.
        words = "; ".join((*log.errors, *log.warnings)) or "no reason given"
        log.errors.clear()
        empty = config.create_timing_cache(b"")
        if empty is not None:
            config.set_timing_cache(empty, False)
        return f"the timing cache {self.path} is not used: {words}"

    def keep(self, trt: ModuleType, config: Any) -> None:
        """Write down what is known after a build, together with what other builds wrote meanwhile."""
        cache = config.get_timing_cache()
        if cache is None:
            return
        with locked(self.path.parent):
            if self.path.is_file():
                other = config.create_timing_cache(self.path.read_bytes())
                if other is not None:
                    cache.combine(other, False)
            with writing(self.path) as temporary:
                temporary.write_bytes(memoryview(cache.serialize()))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")
