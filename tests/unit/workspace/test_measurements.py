"""The store: what was measured is read back as it was measured, and only of the files that it was measured of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sesurgery.diagnostics import SesurgeryError
from sesurgery.workspace.measurements import FOLDER, Kind, Of, forget, forget_reason, read_reason, write_reason

ENGINE = Path("engines/x.onnxruntime.fp32.onnx")
OTHER = Path("engines/x.onnxruntime.fp32.onnx.more")


@dataclass(frozen=True)
class Width:
    of: Of
    metres: float
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weight:
    of: Of
    grams: int


WIDTH = Kind("width", Width, "sesurgery measure")
WEIGHT = Kind("weight", Weight, "sesurgery weigh")
NOW = Of("engine", "weights")


def test_what_was_measured_is_read_back(tmp_path: Path) -> None:
    measured = Width(NOW, 0.1, ("it moved",))
    WIDTH.write(tmp_path, ENGINE.name, measured)
    assert WIDTH.read(tmp_path, ENGINE.name, NOW) == measured
    assert WIDTH.file(tmp_path, ENGINE.name) == tmp_path / FOLDER / "x.onnxruntime.fp32.onnx.width.json"
    assert WEIGHT.read(tmp_path, ENGINE.name, NOW) is None
    assert WIDTH.read(tmp_path, OTHER.name, NOW) is None


@pytest.mark.parametrize("of", [Of("engine", "other"), Of("other", "weights")], ids=str)
def test_what_was_measured_of_other_files_is_not_told(of: Of, tmp_path: Path) -> None:
    WIDTH.write(tmp_path, ENGINE.name, Width(NOW, 0.1))
    assert WIDTH.read(tmp_path, ENGINE.name, of) is None


def test_a_file_of_another_form_is_se401_and_names_the_command(tmp_path: Path) -> None:
    WIDTH.write(tmp_path, ENGINE.name, Width(NOW, 0.1))
    WIDTH.file(tmp_path, ENGINE.name).write_text("{}")
    with pytest.raises(SesurgeryError, match=r"SE401.*is not what was measured: of: Field required") as caught:
        WIDTH.read(tmp_path, ENGINE.name, NOW)
    assert caught.value.diagnostics[0].hint == "measure again, with `sesurgery measure`"


def test_all_of_one_engine_is_forgotten_and_nothing_of_another(tmp_path: Path) -> None:
    for engine in (ENGINE, OTHER):
        WIDTH.write(tmp_path, engine.name, Width(NOW, 0.1))
        WEIGHT.write(tmp_path, engine.name, Weight(NOW, 3))
        write_reason(tmp_path, engine, "it cannot run here")
    forget(tmp_path, ENGINE)
    assert [kind.read(tmp_path, ENGINE.name, NOW) for kind in (WIDTH, WEIGHT)] == [None, None]
    assert [kind.read(tmp_path, OTHER.name, NOW) for kind in (WIDTH, WEIGHT)] == [Width(NOW, 0.1), Weight(NOW, 3)]
    assert (read_reason(tmp_path, ENGINE), read_reason(tmp_path, OTHER)) == (None, "it cannot run here")
    forget_reason(tmp_path, OTHER)
    assert read_reason(tmp_path, OTHER) is None


def test_nothing_is_forgotten_where_nothing_was_measured(tmp_path: Path) -> None:
    forget(tmp_path, ENGINE)
    assert list(tmp_path.iterdir()) == []
