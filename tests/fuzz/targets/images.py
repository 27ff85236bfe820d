"""Image files for `predict`: damaged, of every mode and format, and larger than any memory.

Most are read as `predict` reads them; of some the engine of the workspace makes a prediction, as the command does.
"""

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from sesurgery.serving import predict
from sesurgery.training.preprocessing import Preprocessing
from tests.fuzz.oracle import BadError, Outcome, called, cli, state
from tests.fuzz.targets.artefacts import ENGINE, named
from tests.fuzz.values import flipped

PREPARED = (
    Preprocessing("L", 1, (16, 16), None, 1 / 255, (0.5,), (0.5,)),
    Preprocessing("L", 3, 16, (16, 16), 1 / 255, (0.5,), (0.5,)),
    Preprocessing("RGB", 3, 24, (16, 16), 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "bicubic"),
)
MODES = ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA")


def image(rng: random.Random, folder: Path) -> Outcome:
    path = folder / "image"
    if rng.random() < 0.05:
        path.write_bytes(_bomb(rng))
    else:
        data = _any(rng)
        path.write_bytes(flipped(data, rng) if rng.random() < 0.8 else data)
    if rng.random() < 0.1:
        return _predicted(path)
    prepared = rng.choice(PREPARED)

    def read() -> None:
        found = predict.read_image(path, prepared)
        if found.shape != (prepared.channels, 16, 16) and isinstance(prepared.resize, tuple):
            raise BadError(f"an image became {found.shape}")
        if not np.isfinite(found).all():
            raise BadError("an image became NaN")

    return called(read)


def _predicted(path: Path) -> Outcome:
    """By the command, beside an image that is good: that one gets its answer, and nothing is written."""
    workspace = Path(os.environ["SESURGERY_FUZZ_WORKSPACE"])
    good = workspace / "image.png"
    before = state(path.parent)
    outcome = cli("predict", str(workspace / named(ENGINE, workspace)), str(path), str(good))
    if outcome.kind == "done" and "image.png" not in outcome.text:
        raise BadError(f"a good image beside it got no answer: {outcome.text}")
    if state(path.parent) != before:
        raise BadError("predict wrote a file")
    return outcome


def _any(rng: random.Random) -> bytes:
    size = rng.choice(((1, 1), (16, 16), (40, 7), (1, 900)))
    # PIL has a noise of its own, which no seed repeats.
    made = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
    mode = rng.choice(MODES)
    made = (
        made.convert("RGB").convert(mode)
        if mode not in ("I;16", "I", "F")
        else made.convert("I" if mode != "F" else mode)
    )
    stream = io.BytesIO()
    for name in (rng.choice(FORMATS), "TIFF", "PNG"):
        try:
            made.save(stream, name)
            return stream.getvalue()
        except (OSError, ValueError, KeyError):
            stream = io.BytesIO()
    return b""


def _bomb(rng: random.Random) -> bytes:
    """A PNG of some bytes that says it has very many pixels."""
    wide, high = rng.choice(((60000, 60000), (9000, 9000), (1, 2**31 - 1), (65536, 1), (0, 5)))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


TARGETS = {"image": image}
