"""Values that nobody meant, and small changes of data and of bytes; all of it follows from the generator given."""

import copy
import random

NASTY = (
    None, True, False, 0, -1, 1, 2**31, 2**40, 2**63, 10**30, 1e308, -1e308, 5e-324, float("inf"), float("nan"), 0.5,
    "", " ", "se", "x" * 300, "x" * 5000, "\0", "\x1b[31m", "\ud800", "../x", "/", "a/" * 200, "é" * 200, "1e999",
    [], {}, [[]], [None], {"": 0}, ["se"], {"block": "se"}, {"block": 1}, [10**9], [0], [-1], [1] * 300,
)  # fmt: skip


def nasty(rng: random.Random) -> object:
    return copy.deepcopy(rng.choice(NASTY))


def mutated(data: object, rng: random.Random, times: int | None = None) -> object:
    """A copy of plain data with some places changed: replaced, taken out, doubled, renamed, wrapped or exchanged."""
    data = copy.deepcopy(data)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(data))
        if not places:
            return nasty(rng)
        holder, key = rng.choice(places)
        how = rng.randrange(7)
        if how <= 2:
            holder[key] = nasty(rng)
        elif how == 3:
            del holder[key]
        elif how == 4 and isinstance(holder, dict):
            holder[rng.choice((f"{key}x", "", "<<", f"{key}"[::-1]))] = holder.pop(key)
        elif how == 5:
            holder[key] = rng.choice(([holder[key]], {"block": holder[key]}, str(holder[key])))
        else:
            other, place = rng.choice(places)
            holder[key] = copy.deepcopy(other[place]) if place in _keys(other) else nasty(rng)
    return data


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Bytes with bits flipped, pieces cut out, doubled, or overwritten."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not found:
            break
        at, length = rng.randrange(len(found)), rng.choice((1, 1, 2, 8, 64))
        how = rng.randrange(5)
        if how == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            del found[at : at + length]
        elif how == 2:
            found[at:at] = found[at : at + length]
        elif how == 3:
            found[at : at + length] = rng.randbytes(length)
        else:
            found[at] = rng.choice((0, 0x7F, 0x80, 0xFF))
    return bytes(found[: rng.randrange(len(found) + 1)] if rng.random() < 0.05 else found)


def _places(data: object):
    if isinstance(data, dict | list):
        for key in _keys(data):
            yield data, key
            yield from _places(data[key])


def _keys(data: object) -> list:
    return list(data) if isinstance(data, dict) else list(range(len(data))) if isinstance(data, list) else []
