"""docs/support.md from the zoo's results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

_HEAD = """# Which networks are supported

Every network below was taken through every step by

    python benchmarks/zoo.py
    python benchmarks/zoo.py --from huggingface
    python benchmarks/zoo.py --from ultralytics
    python benchmarks/zoo.py --table     # this page, from benchmarks/results/zoo.json

with identity blocks at the first of the placements `residual`, `concat`, `conv` that finds sites in it, at the smallest
input that it takes. What the columns mean stands at the head of that program. `samvit_base_patch16` is built for 256 x
256: training at its own 1024 x 1024 was ended for memory on a machine of 24 GiB.

Networks of torchvision and timm were measured on the code up to commit 383e199, those of transformers on that of
c2829f6 (PoolFormer on 84e2dbb, Ultralytics shortly before it), by their default configs.
`--from huggingface` chooses 33 classes; those that are not listed were not finished
on a machine that others used. SegformerForImageClassification and PPLCNetV3Backbone were stopped after 150 s each,
HGNetV2Backbone, `yolo11n`, `yolo12n-cls`, `yolov8n-cls` and `rtdetr-resnet50` after 150 or 170 s: they have no row.
`yolo11n-seg` and `yolov8n` fell for causes that were mended since (what a segmenter
answers; a plan whose digest changed once the network had run), and were not measured again.
Of Ultralytics one network was finished; `tests/unit/networks/test_ultralytics.py` takes ten families through insertion,
equality, keys and a training step.

"""


_SOURCES = ("torchvision", "timm", "huggingface", "ultralytics")


def write_table(results: Path, target: Path, columns: Sequence[str]) -> None:
    """Write the page; networks that pass every column are listed by source, the others with their reason."""
    data = json.loads(results.read_text(encoding="utf-8"))
    rows = data["models"]
    versions = data["versions"]
    lines = [_HEAD]
    for source in _SOURCES:
        own = [row for row in rows if row["model"].startswith(source + ":")]
        machines = {(row.get("device", data["device"]), _named(row.get("versions", versions), source)) for row in own}
        lines += [f"Networks of {source}: measured on {device} with {named}.\n" for device, named in sorted(machines)]
    lines.append("\n")
    lines.append("| source | networks | pass every column | " + " | ".join(columns) + " |\n")
    lines.append("| --- " * (3 + len(columns)) + "|\n")
    for source in _SOURCES:
        own = [row for row in rows if row["model"].startswith(source + ":")]
        if not own:
            continue
        passed = [row for row in own if _passed(row, columns)]
        counts = [sum(bool(row.get(column)) for row in own) for column in columns]
        share = f"{len(passed)} ({len(passed) / len(own):.1%})"
        lines.append(f"| {source} | {len(own)} | {share} | " + " | ".join(map(str, counts)) + " |\n")
    failed = [row for row in rows if not _passed(row, columns)]
    if failed:
        lines.append("\n## What fails, and why\n\n| network | stops at | reason |\n| --- | --- | --- |\n")
        lines += [f"| {row['model']} | {_stop(row, columns)} | {_escaped(row.get('reason', ''))} |\n" for row in failed]
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


def _named(versions: dict, source: str) -> str:
    names = ("torch", "transformers" if source == "huggingface" else source, "onnxruntime")
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def _passed(row: dict, columns: Sequence[str]) -> bool:
    return all(row.get(column) for column in columns)


def _stop(row: dict, columns: Sequence[str]) -> str:
    return next(column for column in columns if not row.get(column))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("\x1b[96m", "").replace("\x1b[0m", "")
