"""`sesurgery apply` on an ONNX file, as a user starts it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_file_is_changed_with_the_rules_of_a_spec_for_a_network(sesurgery, empty: Path) -> None:  # type: ignore[no-untyped-def]
    assert sesurgery("apply", "tiny.yaml").code == 0
    assert sesurgery("export", "--plain").code == 0
    ended = sesurgery(
        "apply", "tiny.yaml", "--onnx", "export/tiny.plain.onnx", "-o", "out.onnx", "--weights", "runs/tiny"
    )
    assert ended.code == 0
    assert ended.out.startswith("3 sites, ")
    assert ended.out.rstrip().endswith("-> out.onnx")
    assert Path("out.onnx.manifest.json").is_file()


def test_an_output_without_a_file_to_change_is_a_mistake_of_usage(sesurgery, empty: Path) -> None:  # type: ignore[no-untyped-def]
    ended = sesurgery("apply", "tiny.yaml", "-o", "out.onnx")
    assert ended.code == 2
    assert "goes with --onnx" in ended.err
