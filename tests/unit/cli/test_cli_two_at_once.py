"""Two commands at once in one workspace."""

from __future__ import annotations

from pathlib import Path

from fixtures import processes

from sesurgery.workspace import RunManifest, require_intact

SPEC = """\
version: 1
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8, in_channels: 1}}
input: {shape: [1, 8, 8]}
surgery:
  - insert: {block: se, reduction: 4}
    at: residual
train: {data: {dataset: digits, held_out: 0.1}, epochs: 1, batch_size: 512, threads: 1}
engines: [{backend: tensorrt, precision: fp32}]
"""


def test_two_runs_started_together_have_a_folder_each(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    both = [processes.sesurgery(tmp_path, "run", "tiny.yaml") for _ in range(2)]
    assert [one.end() for one in both] == [0, 0], [one.err for one in both]
    folders = [tmp_path / "runs" / name for name in ("tiny", "tiny-2")]
    assert sorted((tmp_path / "runs").glob("tiny*")) == folders
    # Each says its own, and each is whole: trained, from the same seed to the same weights.
    assert sorted(folder.name for folder in folders for one in both if f"-> runs/{folder.name}\n" in one.err) == [
        "tiny",
        "tiny-2",
    ]
    first, second = (require_intact(folder / "weights.safetensors", RunManifest) for folder in folders)
    assert first.details.epochs == second.details.epochs == 1
    assert first.sha256 == second.sha256
    assert all((folder / "report.html").is_file() for folder in folders)
