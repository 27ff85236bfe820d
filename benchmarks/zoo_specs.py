"""The zoo's networks at their full size: parameters beside those of a reference, and MACs.

    python benchmarks/zoo_specs.py                all of them
    python benchmarks/zoo_specs.py seresnet50     some

The reference is a network of timm, built without values; where timm rounds hidden widths the difference is its own.
Others' figures are in tests/test_zoo.py, with where they are from.
"""

from __future__ import annotations

import argparse

TIMM = {
    "seresnet18": "seresnet18",
    "seresnet34": "seresnet34",
    "seresnet50": "seresnet50",
    "seresnet101": "seresnet101",
    "seresnet152": "seresnet152",
    "seresnext50_32x4d": "seresnext50_32x4d",
    "seresnext101_32x4d": "seresnext101_32x4d",
    "senet154": "senet154",
}


def reference(name: str) -> int | None:
    """Parameters of timm's network with SE, or None where it has none."""
    import timm
    import torch

    if name not in TIMM:
        return None
    with torch.device("meta"):
        return sum(value.numel() for value in timm.create_model(TIMM[name]).parameters())


def main() -> None:
    from sesurgery import pipeline
    from sesurgery.spec import zoo

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=zoo.names())
    print(f"{'network':<24}{'sites':>6}{'plain':>14}{'with SE':>14}{'timm':>14}{'difference':>12}{'MACs':>18}")
    for name in parser.parse_args().names:
        planned = pipeline.plan(pipeline.load_spec(zoo.path_of(name)))
        known, params = reference(name), planned.after.params
        beside = f"{known:>14,}{params - known:>12,}" if known is not None else f"{'-':>14}{'-':>12}"
        row = f"{name:<24}{len(planned.sites):>6}{planned.before.params:>14,}{params:>14,}"
        print(f"{row}{beside}{planned.after.macs:>18,}", flush=True)


if __name__ == "__main__":
    main()
