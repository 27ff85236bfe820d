"""What SE costs on a dozen networks, block by block, on this machine: the table of docs/verification.md.

    python benchmarks/price_list.py                     a dozen networks, ONNX Runtime, batch 1, some 50 minutes
    python benchmarks/price_list.py --backends onnxruntime openvino --seconds 30
    python benchmarks/price_list.py --only resnet18     one of them, again
    python benchmarks/price_list.py --table             the table alone, of the results that are there

Prices are those of `sesurgery plan --price`: engines with untrained weights, blocks that are alike weighed together.
`--seconds` is what its races may spend on narrowing the intervals. Of each network the table has the whole tax, the sum
of the prices with its error, whether the two agree, and the dearest block. Nothing else may run beside it. Results go
to benchmarks/results/price_list.json, network by network: an interrupted measurement is resumed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

from sesurgery import pipeline
from sesurgery.artifacts import to_json, write_text
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline.plan import NetworkPlan
from sesurgery.reports.text import prices as rendered
from sesurgery.verification.cost import dear_first

RESULTS = Path(__file__).resolve().parent / "results" / "price_list.json"
NETWORKS: dict[str, tuple[str, str]] = {
    "resnet18": ("timm", "residual"),
    "resnet50": ("timm", "residual"),
    "resnext50_32x4d": ("timm", "residual"),
    "wide_resnet50_2": ("timm", "residual"),
    "mobilenetv2_100": ("timm", "inner"),
    "densenet121": ("timm", "conv"),
    "regnetx_032": ("timm", "residual"),
    "convnext_atto": ("timm", "residual"),
    "darknet53": ("timm", "residual"),
    "googlenet": ("torchvision", "concat"),
    "shufflenet_v2_x1_0": ("torchvision", "concat"),
    "efficientnet_b0": ("timm", "residual"),
}
"""Networks by their names, with the library that has them and where SE goes."""
KWARGS = {"googlenet": {"init_weights": False, "aux_logits": False}}
BACKENDS = ("onnxruntime",)
SECONDS = 10.0
TINY = "tiny"
"""A ResNet-8 for 8 x 8 pixels, which is in no table: to see whether all this runs."""


def planned(name: str) -> NetworkPlan:
    """SE at every site of a network; an EfficientNet has its own taken out first."""
    rules: list[object] = [{"insert": {"block": "se"}, "at": "residual"}]
    model: dict[str, object] = {
        "source": "python",
        "name": "sesurgery.networks.cifar_resnet:CifarResNet",
        "kwargs": {"depth": 8, "in_channels": 1},
    }
    if name != TINY:
        source, at = NETWORKS[name]
        rules = [{"insert": {"block": "se"}, "at": at}]
        model = {"source": source, "name": name, "kwargs": KWARGS.get(name, {})}
    if name.startswith("efficientnet"):
        rules = [{"replace": "se", "insert": {"block": "se", "reduction": 24}}]
    shape = [1, 8, 8] if name == TINY else [3, 224, 224]
    spec = {"version": 1, "name": name, "model": model, "input": {"shape": shape}, "surgery": rules}
    return pipeline.plan(pipeline.load_spec(spec))


def row(name: str, backend: str, seconds: float) -> dict[str, object]:
    """One network on one backend: its price list, or why there is none."""
    start = time.perf_counter()
    try:
        found = pipeline.price_plan(planned(name), pipeline.engine({"backend": backend}), seconds=seconds)
    except SesurgeryError as error:
        return {"network": name, "backend": backend, "why": error.diagnostics[0].message}
    return {
        "network": name,
        "backend": backend,
        "seconds": time.perf_counter() - start,
        "dearest": dear_first(found.blocks)[0].key,
        "prices": rendered.to_json(found),
    }


def table(rows: list[Mapping[str, object]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | backend | blocks | time, ms | all blocks, ms | tax | sum of the prices, ms | agree | dearest |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for each in rows:
        if "why" in each:
            lines.append(f"| {each['network']} | {each['backend']} | | | | | | | {each['why']} |")
            continue
        found = each["prices"]
        assert isinstance(found, Mapping)
        cells = [
            str(each["network"]),
            str(each["backend"]),
            str(len(found["blocks"])),
            f"{1e3 * found['whole']:.2f}",
            _ms(found["total"]),
            f"{100 * found['tax']:+.1f} %",
            _ms(found["sum"]),
            "yes" if found["agrees"] else "no",
            f"`{each['dearest']}`",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ms(time: Mapping[str, float]) -> str:
    return f"{1e3 * time['value']:.2f} ({1e3 * time['low']:.2f} to {1e3 * time['high']:.2f})"


def main() -> None:
    from provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one network")
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--table", action="store_true", help="print the table of the results that are there")
    chosen = parser.parse_args()
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"rows": []}
    taken = provenance()
    names = () if chosen.table else (chosen.only,) if chosen.only else tuple(NETWORKS)
    for name, backend in ((name, backend) for name in names for backend in chosen.backends):
        known = [each for each in kept["rows"] if (each["network"], each["backend"]) == (name, backend)]
        if known and not chosen.only:
            continue
        found = row(name, backend, chosen.seconds)
        # A row says of which code it is: the list is finished by another commit than it was begun by.
        found |= {key: taken[key] for key in ("commit", "device", "load")}
        kept["rows"] = [each for each in kept["rows"] if each not in known] + [found]
        print(f"{table([found]).splitlines()[-1]} {found.get('seconds', 0):.0f} s", flush=True)
        write_text(RESULTS, to_json({**kept, **taken}))
    print(table(kept["rows"]))


if __name__ == "__main__":
    main()
