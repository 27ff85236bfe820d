"""Blocks into trained networks, trained before the rest: is anything lost, at insertion and after two epochs?

    sesurgery study specs/studies/worth.yaml         trains the plain networks, five seeds; an hour
    python benchmarks/blocks_first.py                in the same folder; three minutes

Each plain network of the study gets blocks that start as the identity, and two epochs of `preset: blocks_first` on the
same images: one of the blocks alone, one of everything at a tenth of the rate. Printed are the held-out top-1 of the
plain network, at insertion and afterwards, and the comparison over the seeds. Runs go to runs/, the results to
benchmarks/results/blocks_first.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results" / "blocks_first.json"
STUDY = Path("studies") / "worth" / "runs"
EPOCHS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    from provenance import provenance

    from sesurgery import pipeline
    from sesurgery.artifacts import to_json, write_text
    from sesurgery.pipeline.compare import compare_seeds
    from sesurgery.pipeline.train import TrainRequest
    from sesurgery.reports.text.comparison import seeds_to_text

    plain = sorted(STUDY.glob("plain-*-seed*"))
    if not plain:
        parser.error(f"there are no plain runs in {STUDY}: run `sesurgery study specs/studies/worth.yaml` here first")
    taken, runs, rows = provenance(), [], []
    for run in plain:
        spec = pipeline.load_spec(run / "spec.yaml")
        spec = spec.with_(
            {
                "name": f"blocks-first-seed{spec.train.seed}",
                "model.checkpoint": (run / "weights.safetensors").resolve().as_posix(),
                "surgery": [{"insert": {"block": "se", "reduction": 4, "min_width": 8, "init": "identity"},
                             "at": "residual"}],
                "train": {"data": {"dataset": "fashion_mnist", "train_samples": 4000, "held_out_samples": 4000},
                          "preset": "blocks_first", "epochs": EPOCHS, "threads": 1, "seed": spec.train.seed,
                          "augment": {"flip": True, "shift": 2, "resized_crop": None}},
            }
        )  # fmt: skip
        folder = pipeline.apply(spec, pipeline.Workspace(), f"{spec.name}.yaml").folder
        scores = [pipeline.evaluate(each).top1 for each in (run, folder)]
        pipeline.train(TrainRequest(folder))
        scores.append(pipeline.evaluate(folder).top1)
        runs.append(folder)
        rows.append({"seed": spec.train.seed, "plain": scores[0], "inserted": scores[1], "trained": scores[2]})
        print(f"seed {spec.train.seed}: plain {scores[0]:.2%}, at insertion {scores[1]:.2%}, after {scores[2]:.2%}")
    found = compare_seeds(runs, plain)
    print(seeds_to_text(found))
    told = {
        **taken,
        "epochs": EPOCHS,
        "rows": rows,
        "difference": asdict(found.difference),
        "verdict": found.verdict,
    }
    write_text(out, to_json(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
