"""Whether the prices of blocks add up to the whole tax, and whether `plan --price` ranks sites as their own races do.

    python benchmarks/prices.py                                  SE-ResNet-50 on ONNX Runtime, some 10 minutes
    python benchmarks/prices.py --network efficientnet_b0 --backend openvino
    python benchmarks/prices.py --one-by-one                     each block left out alone, in the place of pairs
    python benchmarks/prices.py --one-batch                      engines for batch 1 alone, not for a range
    python benchmarks/prices.py --as-exported                    engines of the file as exported, without lowering
    python benchmarks/prices.py --only plan                      `plan --price` alone, in 3 minutes
    python benchmarks/prices.py --network tiny --seconds 1       a ResNet-8, in half a minute: whether this runs

First the price list that `sesurgery plan --price` makes, where blocks that are alike are weighed together. Then that of
`sesurgery bench --per-block`, where each block is weighed for itself, in engines with other weights: those of the first
network, each up to a tenth larger or smaller. Of either list: the sum of the prices, the measured tax, whether they
agree within their errors, and seconds in all. Of both: Spearman's correlation of the blocks' prices, and beside it what
this correlation would be with the errors that the two lists have, were the first right. Where that is small, the second
list is too noisy to judge the first.

Nothing else may run beside it. Results go to benchmarks/results/prices.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from price_list import planned
from scipy.stats import spearmanr

from sesurgery import pipeline
from sesurgery.artifacts import to_json, write_text
from sesurgery.pipeline.bench.prices import PER_BLOCK, plan_subject
from sesurgery.pipeline.bench.pricing import Subject, prices
from sesurgery.reports.text import prices as rendered
from sesurgery.verification.cost import Prices

RESULTS = Path(__file__).resolve().parent / "results" / "prices.json"
ASKED = 0.8
DRAWS = 400
STUDENT = 2.0
"""How many standard errors an interval reaches, about."""


def with_other_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with every weight up to a tenth larger or smaller."""
    random, other = np.random.default_rng(1), onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            changed = (array * random.uniform(0.9, 1.1, array.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    return other


def block_by_block(subject: Subject, seconds: float | None, one_by_one: bool) -> Prices:
    """The list of `bench --per-block` for a network with other weights."""
    more = PER_BLOCK.more_seconds if seconds is None else seconds
    races = PER_BLOCK.model_copy(
        update={"batch": subject.latency.batch, "threads": subject.latency.threads, "more_seconds": more}
    )
    return prices(
        replace(
            subject,
            model=with_other_weights(subject.model),
            latency=races,
            trained=True,
            together=False,
            one_by_one=one_by_one,
        )
    )


def values(found: Prices) -> np.ndarray:
    return np.array([block.time.value for block in found.blocks])


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(spearmanr(first, second).statistic)


def attainable(first: Prices, second: Prices) -> float:
    """The median correlation of two lists with these errors, where the first holds the truth."""
    random, truth = np.random.default_rng(0), values(first)
    # Blocks weighed together are off together, so that the first list's own errors leave its ranking as it is.
    noise = np.array([block.time.reach for block in second.blocks]) / STUDENT
    return float(np.median([spearman(truth, truth + noise * random.normal(size=len(truth))) for _ in range(DRAWS)]))


def told(what: str, found: Prices, seconds: float) -> str:
    """A list, and one line on what it adds up to."""
    agree = "agrees" if found.agrees else "does NOT agree"
    return (
        f"{what}\n{rendered.to_text(found)}sum {1e3 * found.summed.value:.3f} +- {1e3 * found.summed.reach:.3f} ms "
        f"{agree} with the tax measured, {1e3 * found.total.value:.3f} +- {1e3 * found.total.reach:.3f} ms; "
        f"{sum(block.time.told for block in found.blocks)} of {len(found.blocks)} prices told from nothing; "
        f"{seconds:.0f} s\n"
    )


def main() -> None:
    from provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50", help="one of benchmarks/price_list.py, or tiny")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--only", choices=("plan",))
    parser.add_argument("--one-batch", action="store_true", help="engines for batch 1 alone")
    parser.add_argument("--as-exported", action="store_true", help="engines without lowering, where blocks cost more")
    parser.add_argument("--one-by-one", action="store_true")
    parser.add_argument("--seconds", type=float, help="to narrow the intervals of each list")
    parser.add_argument("--no-results", action="store_true", help="print, and leave the results' file alone")
    given = parser.parse_args()
    taken, began = provenance(), time.perf_counter()
    network = planned(given.network)
    sizes = {"batch": {"min": 1, "opt": 1, "max": 1}} if given.one_batch else {}
    subject = plan_subject(network, pipeline.engine({"backend": given.backend, **sizes}), seconds=given.seconds)
    subject = replace(subject, lowering=()) if given.as_exported else subject
    before = prices(subject)
    took = time.perf_counter() - began
    print(told("plan --price", before, took), flush=True)
    row: dict[str, object] = {"plan": rendered.to_json(before), "plan_seconds": took}
    if given.only is None:
        began = time.perf_counter()
        after = block_by_block(subject, given.seconds, given.one_by_one)
        took = time.perf_counter() - began
        kind = "each block left out alone" if given.one_by_one else "bench --per-block"
        print(told(kind, after, took))
        found, most = spearman(values(before), values(after)), attainable(before, after)
        print(
            f"Spearman of the two lists {found:.2f} (asked above {ASKED}: {'yes' if found > ASKED else 'NO'}); "
            f"{most:.2f} is what the second list's errors leave of a perfect ranking"
        )
        key = "one_by_one" if given.one_by_one else "per_block"
        row |= {key: rendered.to_json(after), f"{key}_seconds": took, f"{key}_spearman": found}
        row |= {f"{key}_attainable": most}
    if not given.no_results:
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"rows": {}}
        kinds = [("one batch", given.one_batch), ("as exported", given.as_exported)]
        name = " ".join([given.network, given.backend, *(kind for kind, asked in kinds if asked)])
        known["rows"][name] = {**known["rows"].get(name, {}), **row}
        write_text(RESULTS, to_json({**known, **taken}))


if __name__ == "__main__":
    main()
