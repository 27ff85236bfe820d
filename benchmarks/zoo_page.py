"""What benchmarks/zoo_specs.py found, as lines and as docs/zoo.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HEAD = """# The zoo at its full size

Every spec of `specs/zoo/` (`sesurgery list zoo`), measured by

    python benchmarks/zoo_specs.py
    python benchmarks/zoo_specs.py --page     # this page, from benchmarks/results/zoo_specs.json

on {cpu}, with
{versions}.
Networks have fresh values, and norms the statistics of two random images.

## Parameters beside others'

*plain + blocks* is a library's network without SE, and blocks by the paper's formula on its maps: it has no SE there.
Where a reference has other options than the spec, it is compared with the spec under the options beside it,
and *here* are its parameters then. *outputs* is the largest difference from the reference, whose weights were read
through a key map; *removed* that of the reference without its gates from our plain network. Both are relative to the
largest output, of two images at full size. Where a cell is empty, no key map fits:
`tests/unit/networks/test_keymaps.py` holds both for every layout on networks of one unit a stage.

"""

_BETWEEN = """
What stands here is of whole networks. `tests/test_zoo.py` plans and counts whole networks, too; the training step and
the exported file that it tries are of a short form: of equal units in a row one is kept (DenseNet has two layers a
block), and images have at most 64 x 64 pixels, 128 x 128 for Inception v3, v4 and Inception-ResNet-v2.

Every difference of parameters has its reason in the table. `seresnet46` is in no library; its plain parameters are
counted by hand in `tests/test_zoo.py`.

## Costs

*ONNX* is the largest difference of the exported file in ONNX Runtime from the network in double precision, relative to
the largest output, and *torch* that of the network in single precision. Norms of a fresh network magnify rounding, in
Inception v4 a thousandfold: the file is as near to the exact values as the network itself.

"""


def row_of(name: str, found: dict[str, Any]) -> list[str]:
    """Lines of one network: itself, and each of its references."""
    lines = [
        f"{name}: {found['sites']} sites, {found['plain']:,} -> {found['params']:,} parameters, {found['macs']:,} MACs,"
        f" ONNX {_known(found.get('onnx'))}, torch {_known(found.get('torch'))} ({found['seconds']} s)"
    ]
    return lines + ["    " + ", ".join(_cells(reference)) for reference in found["references"]]


def _cells(reference: dict[str, Any]) -> list[str]:
    options = [f"{key.rpartition('.')[2]}: {value}" for key, value in reference["changes"].items() if "insert" in key]
    backbone = reference["changes"].get("model.name", "").rpartition(".")[2]
    return [
        f"{reference['library']} {reference['name']}" + (" plain + blocks" if reference["plain"] else ""),
        f"{reference['params']:,}",
        f"{reference['ours']:,}",
        f"{reference['ours'] - reference['params']:+,}" if reference["ours"] != reference["params"] else "0",
        _known(reference.get("outputs")),
        _known(reference.get("removed")),
        "; ".join([*options, *([backbone] if backbone else []), *([reference["why"]] if reference["why"] else [])]),
    ]


def _known(difference: float | None) -> str:
    return "" if difference is None else f"{difference:.1e}" if difference else "0"


def write_page(results: dict[str, Any], target: Path) -> None:
    networks = results["networks"]
    named = ", ".join(f"{name} {results['versions'][name]}" for name in ("torch", "timm", "torchvision", "onnxruntime"))
    text = _HEAD.format(cpu=results["device"], versions=named)
    text += "| network | reference | its parameters | here | difference | outputs | removed | options, reason |\n"
    text += "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |\n"
    for name, found in networks.items():
        for reference in found["references"]:
            text += f"| {name} | " + " | ".join(_cells(reference)) + " |\n"
    text += _BETWEEN + "| network | sites | plain | with SE | MACs | ONNX | torch |\n| ---" + " | ---:" * 6 + " |\n"
    for name, found in networks.items():
        cells = [
            str(found["sites"]),
            *(f"{found[key]:,}" for key in ("plain", "params", "macs")),
            *(_known(found.get(key)) for key in ("onnx", "torch")),
        ]
        text += f"| {name} | " + " | ".join(cells) + " |\n"
    target.write_text(text, encoding="utf-8")
