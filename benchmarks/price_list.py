"""What SE costs on a dozen networks, block by block, on this machine: the table of docs/verification.md.

    python benchmarks/price_list.py                     a dozen networks, ONNX Runtime and OpenVINO, batch 1
    python benchmarks/price_list.py --only resnet18 --backends onnxruntime
    python benchmarks/price_list.py --check resnet50    prices before training against leave-one-out, block by block
    python benchmarks/price_list.py --table             the table alone, of the results that are there

Prices are those of `sesurgery plan --price`: engines with untrained weights, blocks that are alike left out together.
Of each network the table has the whole tax, the sum of the prices with its error, whether the two agree, and the
dearest block. `--check` prices each block for itself too, in races as long as `sesurgery bench --per-block` has them,
and gives Spearman's correlation of the two lists. Nothing else may run beside it. Results go to
benchmarks/results/price_list.json, network by network: a measurement that was ended is gone on with.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sesurgery import pipeline
from sesurgery.artifacts import cpu_name, to_json, versions, write_text
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks.export import INPUT, convert
from sesurgery.pipeline.plan import NetworkPlan
from sesurgery.pipeline.prices import Subject, prices
from sesurgery.reports import prices as rendered
from sesurgery.spec.latency import Latency
from sesurgery.verification.cost import Prices, dear_first

RESULTS = Path(__file__).resolve().parent / "results" / "price_list.json"
NETWORKS: dict[str, tuple[str, str]] = {
    "resnet18": ("timm", "residual"),
    "resnet50": ("timm", "residual"),
    "resnext50_32x4d": ("timm", "residual"),
    "wide_resnet50_2": ("timm", "residual"),
    "mobilenetv2_100": ("timm", "inner"),
    "densenet121": ("timm", "concat"),
    "regnetx_032": ("timm", "residual"),
    "convnext_atto": ("timm", "residual"),
    "darknet53": ("timm", "residual"),
    "googlenet": ("torchvision", "concat"),
    "shufflenet_v2_x1_0": ("torchvision", "concat"),
    "efficientnet_b0": ("timm", "residual"),
}
"""Networks by their names, with the library that has them and where SE goes."""
KWARGS = {"googlenet": {"init_weights": False, "aux_logits": False}}
BACKENDS = ("onnxruntime", "openvino")


def planned(name: str) -> NetworkPlan:
    """SE at every site of a network; an EfficientNet has its own taken out first."""
    source, at = NETWORKS[name]
    rules: list[object] = [{"insert": {"block": "se"}, "at": at}]
    if name.startswith("efficientnet"):
        rules = [{"replace": "se", "insert": {"block": "se", "reduction": 24}}]
    spec = {
        "version": 1,
        "name": name,
        "model": {"source": source, "name": name, "kwargs": KWARGS.get(name, {})},
        "input": {"shape": [3, 224, 224]},
        "surgery": rules,
    }
    return pipeline.plan(pipeline.load_spec(spec))


def one_by_one(of: NetworkPlan, backend: str) -> Prices:
    """Each block's price from a race of its own, as long as those of `bench --per-block`."""
    import torch

    with torch.random.fork_rng(devices=[]):
        changed = of.network.apply(of.plan).module
    assert changed is not None
    images = np.random.default_rng(0).normal(size=(1, *of.spec.input.shape)).astype(np.float32)
    model = convert(changed.eval(), of.spec.input.shape, of.spec.export)
    wanted = pipeline.engine({"backend": backend})
    return prices(Subject(of.spec.name, model, of.plan, "", wanted, Latency(), {INPUT: images}, False, False, True))


def spearman(first: Prices, second: Prices) -> float:
    """The rank correlation of the two lists' prices."""
    from scipy.stats import spearmanr

    found = spearmanr([each.time.value for each in first.blocks], [each.time.value for each in second.blocks])
    return float(found.statistic)


def row(name: str, backend: str) -> dict[str, object]:
    """One network on one backend: its price list, or why there is none."""
    start = time.perf_counter()
    try:
        found = pipeline.price_plan(planned(name), pipeline.engine({"backend": backend}))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one network")
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--check", metavar="NETWORK", help="compare with leave-one-out, block by block")
    parser.add_argument("--table", action="store_true", help="print the table of the results that are there")
    chosen = parser.parse_args()
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"rows": [], "checks": []}
    if chosen.check:
        for backend in chosen.backends:
            of = planned(chosen.check)
            quick, slow = pipeline.price_plan(of, pipeline.engine({"backend": backend})), one_by_one(of, backend)
            print(rendered.to_text(quick), rendered.to_text(slow), f"Spearman {spearman(quick, slow):.2f}", sep="\n")
            check = {"network": chosen.check, "backend": backend, "spearman": spearman(quick, slow)}
            kept["checks"].append({**check, "one_by_one": rendered.to_json(slow), "before": rendered.to_json(quick)})
            _keep(kept)
        return
    done = {(each["network"], each["backend"]) for each in kept["rows"]}
    for name in () if chosen.table else [chosen.only] if chosen.only else NETWORKS:
        for backend in chosen.backends:
            if (name, backend) not in done:
                kept["rows"].append(row(name, backend))
                print(table(kept["rows"][-1:]).splitlines()[-1], flush=True)
                _keep(kept)
    print(table(kept["rows"]))


def _keep(kept: Mapping[str, object]) -> None:
    write_text(RESULTS, to_json({**kept, "device": cpu_name(), "versions": versions()}))


if __name__ == "__main__":
    main()
