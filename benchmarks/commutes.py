"""The commuting square at full size: surgery and then export gives what export and then surgery gives.

    python benchmarks/commutes.py               the networks below, each at the size it is used with
    python benchmarks/commutes.py resnet50      some of them

Each network's norms get statistics as a training leaves them, and weights that let the image through. It is exported
once; then every rule is planned and carried out on both sides, the blocks of the file with the values of the network's.
Sites must agree in key, scope, stage, channels and size, and the outputs of the two files on two images within 1e-5 of
the largest output. Beside it stands by how much they differ from the changed network in torch, which is what ONNX
Runtime and torch round differently. A network has a process of its own. Results are written as they come.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
RESULTS = Path(__file__).resolve().parent / "results" / "commutes.json"
TOLERANCE = 1e-5
SE = {"block": "se"}
# Network, image size, rules.
NETWORKS: dict[str, tuple[int, tuple[dict[str, Any], ...]]] = {
    "resnet50": (224, tuple({"insert": SE, "at": at} for at in ("residual", "pre", "post", "identity", "inner"))),
    "mobilenet_v3_large": (224, ({"remove": "se"}, {"insert": SE, "at": "residual"}, {"insert": SE, "at": "identity"})),
    "efficientnet_b0": (224, ({"remove": "se"}, {"insert": SE, "at": "residual"}, {"insert": SE, "at": "post"})),
    "regnet_y_400mf": (224, ({"replace": "se", "insert": SE, "name": "gate"}, {"insert": SE, "at": "post"})),
    "densenet121": (224, ({"insert": SE, "at": "conv", "every": 10},)),
    "inception_v3": (299, ({"insert": SE, "at": "concat"},)),
    "convnext_tiny": (224, ({"insert": SE, "at": "residual"}, {"insert": SE, "at": "post"})),
}


def prepared(name: str, size: int) -> Any:
    """The network with moved norms, and logits of about one."""
    import torch
    import torchvision
    from torch import nn

    torch.manual_seed(0)
    extra = {"init_weights": False, "aux_logits": True} if name == "inception_v3" else {}
    model = torchvision.models.get_model(name, **extra).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    last = [module for path, module in model.named_modules() if isinstance(module, nn.Linear) and "Aux" not in path][-1]
    with torch.inference_mode():
        largest = model(torch.randn(2, 3, size, size)).abs().max()
    last.weight.data /= largest
    last.bias.data /= largest
    return model


def _answer(model: Any, image: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]


def _outline(plan: Any) -> list[tuple[object, ...]]:
    rows = [*plan.sites, *plan.removals]
    return [(row.key, row.scope, row.stage, row.channels, row.height, row.width) for row in rows]


def examine(name: str) -> list[dict[str, Any]]:
    """One row a rule: sites of both sides, whether they agree, and by how much the outputs differ."""
    import tempfile

    import numpy as np
    import torch

    from sesurgery import pipeline, planner
    from sesurgery.networks.export import export
    from sesurgery.onnxgraph import io as onnx_io
    from sesurgery.spec.export import Export
    from sesurgery.surgeons.fx.surgeon import FxSurgeon
    from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    size, rules = NETWORKS[name]
    shape, model = (3, size, size), prepared(name, size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        # What is compared here are two files; the export's own check is about the network.
        export(copy.deepcopy(model), shape, path, Export(check_batches=(1,), max_abs=1000))
        file = onnx_io.load(path)
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    rows = []
    through_fx, through_onnx = FxSurgeon(shape), OnnxSurgeon(shape)
    for rule in rules:
        started = time.perf_counter()
        spec = pipeline.load_spec(
            {
                "version": 1,
                "model": {"source": "torchvision", "name": name},
                "input": {"shape": list(shape)},
                "surgery": [rule],
            }
        )
        in_network = planner.plan(spec, through_fx.view(model))
        in_file = planner.plan(spec, through_onnx.view(file))
        torch.manual_seed(0)
        changed = through_fx.apply(copy.deepcopy(model), in_network).eval()
        values = {key: value.numpy() for key, value in changed.state_dict().items()}
        result = through_onnx.apply(file, in_file, values)
        with torch.inference_mode():
            expected = changed(image).numpy()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.onnx"
            export(changed, shape, path, Export(check_batches=(1,), max_abs=1000))
            exported = _answer(onnx_io.load(path), image)
        found = _answer(result, image)
        largest = float(np.abs(expected).max())
        rows.append(
            {
                "network": name,
                "rule": " ".join(f"{key}={_short(value)}" for key, value in rule.items() if key != "name"),
                "sites": len(_outline(in_file)),
                "same_sites": _outline(in_network) == _outline(in_file),
                "from_network": float(np.abs(found - expected).max()) / largest,
                "from_exported": float(np.abs(found - exported).max()) / largest,
                "changed_by": float(np.abs(found - _answer(file, image)).max()) / largest,
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    return rows


def _short(value: Any) -> str:
    return str(value["block"]) if isinstance(value, dict) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(examine(given.one)))
        return 0

    from provenance import provenance

    from sesurgery.artifacts import to_json, write_text

    taken, failed = provenance(), False
    for name in given.names or NETWORKS:
        done = subprocess.run([sys.executable, __file__, "--one", name], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{name}: ended with {done.returncode}")
            failed = True
            continue
        # Another run may have added to the results meanwhile.
        before = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
        found = {other: [row for row in before if row["network"] == other] for other in NETWORKS}
        found[name] = json.loads(done.stdout.splitlines()[-1])
        for row in found[name]:
            good = row["same_sites"] and row["from_exported"] <= TOLERANCE
            failed |= not good
            print(
                f"{'pass' if good else 'FAIL'} {row['network']:20} {row['rule']:28} {row['sites']:4} sites  "
                f"network {row['from_network']:.1e}  exported {row['from_exported']:.1e}  {row['seconds']} s",
                flush=True,
            )
        rows = [row for listed in found.values() for row in listed]
        told = {**taken, "tolerance": TOLERANCE, "rows": rows}
        write_text(RESULTS, to_json(told))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
