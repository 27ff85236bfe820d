"""Whether training takes more memory where there are more images: `python benchmarks/training_memory.py`.

Two folders of images: 2,000 and 200,000 to train on, and 500 each to hold out. Each name is a hard link to one of a
few PNGs of 8 x 8 pixels, so that the folders cost seconds and no space; a reader cannot tell. On each,
`sesurgery train` trains a ResNet-8 with SE for one epoch in a process of its own, whose largest resident size is taken
from the kernel; with --workers N that of a reading process if it is larger.

It ends with 1 where the hundredfold takes more than 32 MB more. The images as float32 would be 150 MB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sesurgery.artifacts import to_json, write_text

RESULTS = Path(__file__).resolve().parent / "results" / "training_memory.json"
FEW, MANY, HELD_OUT, CLASSES = 2_000, 200_000, 500, 10
MOST_MORE = 32
"""MB."""

SPEC = """version: 1
name: {name}
model:
  source: python
  name: sesurgery.networks.cifar_resnet:CifarResNet
  kwargs: {{depth: 8, num_classes: {classes}}}
input: {{shape: [3, 8, 8]}}
surgery: [{{insert: {{block: se, reduction: 4, min_width: 8}}, at: residual}}]
train:
  data: {{dataset: image_folder, root: {root}}}
  epochs: 1
  batch_size: 100
  threads: 1
  workers: {workers}
"""


def folder(root: Path, images: int) -> Path:
    """`images` to train on and some to hold out, in folders of classes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(CLASSES):
        made = root / f"{number}.png"
        root.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(made)
        for part, count in (("train", images), ("val", HELD_OUT)):
            place = root / part / f"class_{number}"
            place.mkdir(parents=True)
            for index in range(count // CLASSES):
                os.link(made, place / f"image_{index:08d}.png")
    return root


def measured(workspace: Path, name: str) -> dict[str, float]:
    """The largest resident size of a training in MB, the larger of it and of a reading process; and its time."""
    command = [sys.executable, "-m", "sesurgery", "train", f"runs/{name}"]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=workspace, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: see above")
    return {"megabytes": round(used.ru_maxrss / 1024, 1), "seconds": round(time.perf_counter() - started, 1)}


def main() -> int:
    from provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--no-results", action="store_true", help="print, and leave the results' file alone")
    given = parser.parse_args()
    told, rows = provenance(), []
    with tempfile.TemporaryDirectory() as made:
        workspace = Path(made)
        for images in (given.few, given.many):
            name = f"images{images}"
            root = folder(workspace / "data" / name, images)
            text = SPEC.format(name=name, root=root, classes=CLASSES, workers=given.workers)
            (workspace / f"{name}.yaml").write_text(text)
            apply = [sys.executable, "-m", "sesurgery", "apply", f"{name}.yaml"]
            subprocess.run(apply, cwd=workspace, check=True, stdout=subprocess.DEVNULL)
            rows.append({"images": images, **measured(workspace, name)})
            print(f"{images:,} images: {rows[-1]}", flush=True)
    more = round(rows[1]["megabytes"] - rows[0]["megabytes"], 1)
    print(f"{rows[1]['images']:,} images take {more:+} MB against {rows[0]['images']:,}; at most {MOST_MORE} may be")
    if not given.no_results:
        write_text(RESULTS, to_json({**told, "workers": given.workers, "rows": rows, "more_megabytes": more}))
    return int(more > MOST_MORE)


if __name__ == "__main__":
    sys.exit(main())
