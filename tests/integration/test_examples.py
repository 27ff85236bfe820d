"""The examples in other people's trainers: each starts from a plain checkpoint and ends with an ONNX file that runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnxruntime
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "plain_pytorch": (),
    "lightning_module": (),
    "timm_train": (),
    "torchvision_detection": (),
    "huggingface_trainer": ("transformers", "accelerate"),
    "segmentation": ("segmentation_models_pytorch",),
    "ultralytics_yolo": ("ultralytics",),
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*NEEDS, "demo"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEEDS)
def test_an_example_inserts_trains_saves_loads_and_exports(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in NEEDS[name]:
        pytest.importorskip(library)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # It leaves with a message where the blocks change what the network computes, or a loaded network is another one.
    module.main(tmp_path)
    said = capsys.readouterr().out
    assert "at insertion" in said
    assert "loaded again" in said
    files = list(tmp_path.rglob("*.onnx"))
    assert files
    for file in files:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        assert session.get_outputs()
