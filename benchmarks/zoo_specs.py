"""The zoo's networks at their full size: parameters beside those of other libraries, and outputs equal to theirs.

    python benchmarks/zoo_specs.py                all of them; one that was stopped goes on where it was
    python benchmarks/zoo_specs.py seresnet50     some, again
    python benchmarks/zoo_specs.py --count        sites, parameters and MACs alone, of those that have no result
    python benchmarks/zoo_specs.py --page         docs/zoo.md from the committed results

Of every network: sites, parameters without SE and with it, MACs, and the largest differences from the network in double
precision of its exported file in ONNX Runtime, and of itself in single precision: norms of fresh networks can magnify
rounding a thousandfold. Of every reference of it (benchmarks/zoo_references.py):

    outputs    a weights file of theirs, read by the spec through a key map: the largest difference of the outputs
    removed    their network without its gates from our plain one with the same weights

Differences are relative to the largest output. Networks get fresh values, and norms the statistics of two random
images, so that outputs are of the size that trained networks have.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn
    from zoo_references import Reference

    from sesurgery.spec import Spec

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "zoo_specs.json"


def measure(name: str, whole: bool) -> dict[str, Any]:
    """One network of the zoo, and each of its references; their outputs where the `whole` is asked for."""
    import torch
    from zoo_references import references

    from sesurgery import pipeline
    from sesurgery.spec import zoo

    started = time.perf_counter()
    spec = pipeline.load_spec(zoo.path_of(name))
    images = torch.randn(2, *spec.input.shape, generator=torch.Generator().manual_seed(0)) if whole else None
    planned = pipeline.plan(spec)
    found = {
        "sites": len(planned.sites),
        "plain": planned.before.params,
        "params": planned.after.params,
        "macs": planned.after.macs,
        **({} if images is None else exported(spec, images)),
        "references": [compared(spec, planned.after.params, reference, images) for reference in references(name)],
    }
    return {**found, "seconds": round(time.perf_counter() - started, 1)}


def exported(spec: Spec, images: torch.Tensor) -> dict[str, float]:
    """How far the ONNX file and the network itself are from the network in double precision, on one image."""
    import sesurgery
    from sesurgery.networks.export import convert
    from sesurgery.onnxgraph.sessions import session
    from sesurgery.spec.export import Export

    network, image = settled(sesurgery.apply(spec), images), images[:1]
    opened = session(convert(network, spec.input.shape, Export()))
    (by_file,) = opened.run(None, {opened.get_inputs()[0].name: image.numpy()})
    by_torch = outputs(network, image)
    exact = outputs(network.double(), image.double())
    return {
        "onnx": float((exact - by_file).abs().max() / exact.abs().max()),
        "torch": float((exact - by_torch).abs().max() / exact.abs().max()),
    }


def compared(spec: Spec, ours: int, reference: Reference, images: torch.Tensor | None) -> dict[str, Any]:
    """Parameters of one reference beside ours, and where a key map fits, the differences of the outputs."""
    from zoo_references import by_formula

    from sesurgery import pipeline

    theirs = reference.build()
    params = sum(value.numel() for value in theirs.parameters())
    if reference.blocks is not None:
        params += by_formula(reference.blocks)
    changed = spec.with_(dict(reference.changes)) if reference.changes else spec
    ours = pipeline.plan(changed).after.params if reference.changes else ours
    found = {
        "library": reference.library,
        "name": reference.name,
        "plain": reference.blocks is not None,
        "params": params,
        "ours": ours,
        "changes": {key: value for key, value in reference.changes.items() if key != "model.kwargs"},
        "why": reference.why,
        "expected": reference.difference,
    }
    if reference.keys is None or images is None:
        return found
    return {**found, **differences(changed, reference, settled(theirs, images), images)}


def differences(spec: Spec, reference: Reference, theirs: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """`outputs` and `removed`, of a file in their layout."""
    import torch

    import sesurgery
    from sesurgery.networks import sources

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "theirs.pth"
        torch.save(theirs.state_dict(), file)
        loaded = spec.with_({"model.checkpoint": {"file": str(file), "keys": reference.keys}})
        plain = sources.build(loaded)
        if reference.blocks is not None:
            return {"removed": apart(theirs, plain, images)}
        with_se = sesurgery.apply(loaded)
    without = spec.with_({"model.checkpoint": None, "surgery": [{"remove": "se"}]})
    return {
        "outputs": apart(theirs, with_se, images),
        "removed": apart(sesurgery.apply(without, theirs), plain, images),
    }


def settled(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """The network in eval mode, its norms with the statistics of the images."""
    import torch
    from torch import nn

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    with torch.no_grad():
        network.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()


def outputs(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    import torch

    with torch.no_grad():
        found: torch.Tensor = network.eval()(images)
    return found


def apart(one: nn.Module, other: nn.Module, images: torch.Tensor) -> float:
    given = outputs(one, images)
    return float((given - outputs(other, images)).abs().max() / given.abs().max())


def main() -> None:
    from provenance import provenance
    from zoo_page import row_of, write_page

    from sesurgery.artifacts import to_json, write_text
    from sesurgery.spec import zoo

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="again, where there is a result (default: those that have none)")
    parser.add_argument("--page", action="store_true", help="only write docs/zoo.md")
    parser.add_argument("--count", action="store_true", help="leave outputs out")
    asked = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"networks": {}}
    taken, networks = provenance(), results["networks"]
    warnings.filterwarnings("ignore")
    whole = not asked.count
    lacking = [name for name in zoo.names() if name not in networks or (whole and "onnx" not in networks[name])]
    for name in [] if asked.page else asked.names or lacking:
        networks[name] = measure(name, whole)
        gc.collect()
        for line in row_of(name, networks[name]):
            print(line, flush=True)
        results |= {**taken, "networks": dict(sorted(networks.items()))}
        write_text(RESULTS, to_json(results))
    if asked.page:
        write_page(results, ROOT.parent / "docs" / "zoo.md")


if __name__ == "__main__":
    main()
