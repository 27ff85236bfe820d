"""docs/support.md from the zoo's results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zoo_libraries import LIBRARIES, names

_HEAD = """# Which networks are supported

Every network below was taken through every step by

    python benchmarks/zoo.py
    python benchmarks/zoo.py --from huggingface
    python benchmarks/zoo.py --from ultralytics
    python benchmarks/zoo.py --from pytorchcv smp monai pretrainedmodels efficientnet_pytorch
    python benchmarks/zoo.py --from detectors
    python benchmarks/zoo.py --fill 3600
    python benchmarks/zoo.py --table     # this page, from benchmarks/results/zoo.json

with identity blocks at the first of the placements `residual`, `concat`, `conv` that finds sites in it, at the smallest
input that it takes. What the columns mean stands at the head of that program. `samvit_base_patch16` is built for 256 x
256: training at its own 1024 x 1024 was ended for memory on a machine of 24 GiB.

Networks of torchvision and timm were measured on the code up to commit 383e199; those of Ultralytics, and networks
whose sites had changed since, on that of 17f1e82 to ea12722. Those whose sites changed after that, and those whose
outputs had not depended on the image (their weights are drawn now), were measured on 2b2da33 to dc57735, those of
transformers, by their default configs, and nest_tiny, nest_tiny_jx on 4b112f2, mvitv2_small and mobilenetv5_300m on
fa7188c. All others were planned on b0a5cc0, too, and have the sites of the table there; their leaves are those of
that day. CvtForImageClassification ends on its class token alone, so that what the last attention asks of the map
reaches no output, and a block there is refused.

Of five libraries that are no dependency, `benchmarks/zoo_libraries.py` chose {chosen} networks before any was examined,
the smallest first; {left} have not been reached and are not listed: {missing}.
They were measured on the code of 2c5c159, some that had fallen once more on that of cdc1f6c, and the second half on
that of fa7188c; there mixnet_s was ended after 400 s, beside other programs, and counts as not reached. An untrained
CondenseNet reads the first of its channels alone (its index is zero until weights are loaded): a block behind it may be
cut off, and is refused.

*same sites* counts the networks whose own ONNX file, written before surgery, offers the same sites as the network
(keys, channels, resolutions; modules that are shared by either of their names), of those for which it was compared.
*keys kept* counts those whose changed network has every key of the original, with its value, of those that were asked;
*depends* those whose outputs another image moves by a hundredth of the largest or more, of those that were asked: where
it does not, equal outputs say little. Both columns are younger than most rows, and `--fill` adds them: the network
is built and planned again, has the sites of the table, and its outputs are compared again.

Of torchvision's detectors, which are called with a list of images, `submodule: backbone` is operated on: an FPN, of
which all maps are compared, in the ONNX file too. They, yolov3-tiny, yolov6n and espnetv2_wd2 were measured last, on
the code that turns down answers which are concatenated on their way to the output.

"""


_SOURCES = ("torchvision", "detectors", "timm", "huggingface", "ultralytics", *LIBRARIES)


def write_table(results: Path, target: Path, columns: Sequence[str]) -> None:
    """Write the page; networks that pass every column are listed by source, the others with their reason."""
    data = json.loads(results.read_text(encoding="utf-8"))
    rows = data["models"]
    versions = data["versions"]
    measured = {row["model"] for row in rows}
    chosen = [name for library in LIBRARIES for name in names(library)]
    left = [name for name in chosen if name not in measured]
    counted = Counter(name.partition(":")[0] for name in left)
    missing = ", ".join(f"{count} of {LIBRARIES[library]}" for library, count in counted.items())
    lines = [_HEAD.format(chosen=len(chosen), left=len(left), missing=missing)]
    for source in _SOURCES:
        own = [row for row in rows if row["model"].startswith(source + ":")]
        machines = {(row.get("device", data["device"]), _named(row.get("versions", versions), source)) for row in own}
        lines += [f"Networks of {source}: measured on {device} with {named}.\n" for device, named in sorted(machines)]
    lines.append("\n")
    lines.append(
        "| source | networks | pass every column | " + " | ".join(columns) + " | same sites | keys kept | depends |\n"
    )
    lines.append("| --- " * (6 + len(columns)) + "|\n")
    for source in _SOURCES:
        own = [row for row in rows if row["model"].startswith(source + ":")]
        if own:
            lines.append(_line(source, own, columns))
    lines.append(_line("all", rows, columns))
    failed = [row for row in rows if not _passed(row, columns)]
    if failed:
        lines.append("\n## What fails, and why\n\n| network | stops at | reason |\n| --- | --- | --- |\n")
        lines += [f"| {row['model']} | {_stop(row, columns)} | {_escaped(row.get('reason', ''))} |\n" for row in failed]
    differ = [row for row in rows if row.get("sites_agree")]
    if differ:
        lines.append("\n## Other sites in the ONNX file\n\n| network | what differs |\n| --- | --- |\n")
        lines += [f"| {row['model']} | {_escaped(row['sites_agree'])} |\n" for row in differ]
    still = [row for row in rows if row.get("moves", 1) < 0.01]
    if still:
        lines.append("\n## Outputs that hardly depend on the image\n\nEqual outputs say little of these networks.\n\n")
        lines.append("| network | moved by another image, of the largest output |\n| --- | --- |\n")
        lines += [f"| {row['model']} | {row['moves']:.1e} |\n" for row in still]
    lines.append(
        "\n## What passes\n\nSites at the placement, input size, modules that tracing takes whole, and the largest\n"
        "difference of the ONNX file from the model, relative to the largest output.\n"
    )
    lines.append("\n")
    lines.append("| network | placement | sites | input | leaves | ONNX |\n| --- | --- | --- | --- | --- | --- |\n")
    lines += [
        f"| {row['model']} | {row['placement']} | {row['sites']} | {row['size']} | {row['leaves']} "
        f"| {row['export_difference']:.1e} |\n"
        for row in rows
        if _passed(row, columns)
    ]
    target.write_text("".join(lines), encoding="utf-8")


def _line(title: str, rows: Sequence[dict], columns: Sequence[str]) -> str:
    passed = sum(_passed(row, columns) for row in rows)
    counts = [sum(bool(row.get(column)) for row in rows) for column in columns]
    compared = [row for row in rows if "sites_agree" in row]
    agree = f"{sum(not row['sites_agree'] for row in compared)} of {len(compared)}"
    asked = [row["keys"] for row in rows if "keys" in row]
    kept = f"{sum(asked)} of {len(asked)}"
    moves = [row["moves"] for row in rows if "moves" in row]
    depends = f"{sum(value >= 0.01 for value in moves)} of {len(moves)}"
    share = f"{passed} ({passed / len(rows):.1%})"
    return f"| {title} | {len(rows)} | {share} | " + " | ".join([*map(str, counts), agree, kept, depends]) + " |\n"


def _named(versions: dict, source: str) -> str:
    library = {"huggingface": "transformers", "detectors": "torchvision"}.get(source, source)
    names = ("torch", library, "onnxruntime")
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def _passed(row: dict, columns: Sequence[str]) -> bool:
    return all(row.get(column) for column in columns)


def _stop(row: dict, columns: Sequence[str]) -> str:
    return next(column for column in columns if not row.get(column))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("\x1b[96m", "").replace("\x1b[0m", "")
