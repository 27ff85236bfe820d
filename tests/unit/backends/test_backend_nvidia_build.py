"""The NVIDIA backends with the real TensorRT-RTX builder, which needs no GPU: what is built, proved and refused."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import onnx
import pytest

from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.nvidia import cuda
from sesurgery.backends.nvidia.build import EngineBuilder
from sesurgery.backends.nvidia.settings import Settings
from sesurgery.backends.tensorrt import TensorRT
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.diagnostics import SesurgeryError

RTX = TensorRTForRTX()
needs_rtx = pytest.mark.skipif(RTX.probe().builds is not None, reason=str(RTX.probe().builds))
needs_no_gpu = pytest.mark.skipif(cuda.obstacle() is None, reason="there is a GPU here")


@needs_rtx
def test_an_fp32_engine_is_built_and_reported(fp32: Path, tmp_path: Path) -> None:
    report = RTX.build(fp32, tmp_path / "engines" / "se.engine", BuildOptions(batch=BatchRange(1, 4, 16)))
    assert report.convolutions == {"fp32": 3}
    assert report.device == "NVIDIA GPUs of compute capability 8.0, 8.6, 8.9, 12.0"
    assert report.seconds > 0
    assert [path.name for path in (tmp_path / "engines").iterdir()] == ["se.engine"]
    assert (tmp_path / "engines" / "se.engine").stat().st_size > 1000


@needs_rtx
def test_an_fp16_engine_has_its_convolutions_in_fp16_and_its_gate_in_fp32(fp16: Path, tmp_path: Path) -> None:
    report = RTX.build(fp16, tmp_path / "se.engine", BuildOptions(precision="fp16"))
    assert report.convolutions == {"fp16": 1, "fp32": 2}


@needs_rtx
def test_weights_outside_the_file_are_found(fp32: Path, tmp_path: Path) -> None:
    onnx.save(onnx.load(fp32), fp32, save_as_external_data=True, location="se.onnx.data", size_threshold=0)
    assert RTX.build(fp32, tmp_path / "se.engine", BuildOptions()).convolutions == {"fp32": 3}


@needs_rtx
def test_a_fixed_batch_builds_without_a_profile_and_is_noted(fixed_batch: Path, tmp_path: Path) -> None:
    report = RTX.build(fixed_batch, tmp_path / "se.engine", BuildOptions())
    assert report.notes[0] == "input 'x' has a fixed batch of 4 in the file: 1 to 64 does not apply"


def refused(source: Path, out: Path, options: BuildOptions | None = None) -> str:
    """The message of a build that must fail and leave nothing behind."""
    with pytest.raises(SesurgeryError) as raised:
        RTX.build(source, out, options or BuildOptions())
    assert not out.exists()
    assert not list(out.parent.glob(".*.tmp"))
    return str(raised.value)


@needs_rtx
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9], ids=["empty", "truncated early", "truncated late"])
def test_a_broken_file_is_refused_before_the_parser_accepts_it(part: float, fp32: Path, tmp_path: Path) -> None:
    content = fp32.read_bytes()
    fp32.write_bytes(content[: int(len(content) * part)])
    assert "SE602" in refused(fp32, tmp_path / "e.engine")


@needs_rtx
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"TensorRT-RTX cannot read .*: the parser found no network in it"),
        (b"garbage", "Failed to parse the ONNX"),
    ],
)
def test_what_the_parser_takes_for_a_network_is_not_built(content: bytes, message: str, tmp_path: Path) -> None:
    # The check before would refuse both; a file that is replaced between the check and the parser gets this far.
    (tmp_path / "net.onnx").write_bytes(content)
    builder = EngineBuilder(RTX.library(), "TensorRT-RTX")
    with pytest.raises(SesurgeryError, match=rf"SE604.*{message}"):
        builder.build(_source.OnnxFile(tmp_path / "net.onnx", onnx.ModelProto()), BuildOptions(), None)


@needs_rtx
@pytest.mark.parametrize("operator", ["acme.Squash", "BitwiseNot"])
def test_an_operator_it_does_not_have_is_named_with_its_node_and_scope(operator, make, tmp_path: Path) -> None:
    path = make(
        f"(int32[batch,4] x) => (int32[batch,4] y) {{ a = Abs(x)\n y = {operator}(a) }}", domains='"": 20, "acme": 1'
    )
    model = onnx.load(path)
    entry = model.graph.node[1].metadata_props.add()
    entry.key, entry.value = _source.SCOPES, "['', 'layer1.0.squash', 'squash']"
    onnx.save(model, path)
    name = operator.removeprefix("acme.")
    message = refused(path, tmp_path / "e.engine")
    assert f"SE604]: node 'node_y' ({name}, in layer1.0.squash): TensorRT-RTX has no operator '{name}'" in message
    assert "plugin" not in message.lower()


@needs_rtx
def test_an_operator_it_has_for_other_types_is_told_in_its_own_words(make, tmp_path: Path) -> None:
    path = make("(bfloat16[batch,4] x) => (bfloat16[batch,4] y) { a = Relu(x)\n y = HardSwish(a) }", domains='"": 22')
    message = refused(path, tmp_path / "e.engine", BuildOptions(precision="bf16"))
    assert "SE604]: node 'node_y' (HardSwish): unsupported node: " in message
    assert "The current type = BF16" in message


@needs_rtx
@pytest.mark.parametrize(("file", "precision"), [("fp32", "fp16"), ("fp16", "fp32")])
def test_an_engine_is_not_given_a_precision_it_does_not_have(file, precision, tmp_path: Path, request) -> None:
    message = refused(request.getfixturevalue(file), tmp_path / "e.engine", BuildOptions(precision=precision))
    assert "SE605]: the network TensorRT-RTX read from" in message


@needs_rtx
def test_a_dynamic_height_without_a_profile_is_refused(make, tmp_path: Path) -> None:
    path = make("(float[batch,3,height,8] x) => (float[batch,3,height,8] y) { y = Relu(x) }")
    message = refused(path, tmp_path / "e.engine")
    assert "input 'x' has shape [-1, 3, -1, 8]: more than its batch is dynamic" in message
    assert "hint: give its sizes: --shape x=SIZE0x3xSIZE2x8" in message


@needs_rtx
def test_what_the_builder_cannot_build_is_said_in_its_own_words(fp32: Path) -> None:
    # There are no fp32 matrix products for Turing.
    builder = EngineBuilder(RTX.library(), "TensorRT-RTX", Settings(capabilities=("SM75",)))
    with pytest.raises(SesurgeryError, match=r"SE604.*TensorRT-RTX cannot build .*FP32 GEMM is not supported"):
        builder.build(_source.read(fp32), BuildOptions(), None)


@needs_rtx
def test_progress_is_told_phase_by_phase(fp32: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    RTX.build(fp32, tmp_path / "e.engine", BuildOptions(), lambda *step: said.append(step))
    whole = [(done, total) for what, done, total in said if what == "Building engine"]
    assert whole[0][0] == 0
    assert whole[-1][0] == whole[-1][1] > 0
    assert all(0 <= done <= total for _, done, total in said)


@needs_rtx
def test_what_progress_raises_ends_the_build_and_reaches_the_caller(fp32: Path, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RTX.build(fp32, tmp_path / "e.engine", BuildOptions(), interrupt)
    assert not (tmp_path / "e.engine").exists()


@needs_rtx
def test_building_prints_nothing(fp32: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    RTX.build(fp32, tmp_path / "e.engine", BuildOptions())
    assert capfd.readouterr() == ("", "")


@needs_rtx
@needs_no_gpu
def test_loading_without_a_gpu_says_why_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*cannot run engines here: no CUDA (.|\n)*hint: an NVIDIA GPU"):
        RTX.load(tmp_path / "e.engine")


@needs_no_gpu
def test_the_reason_for_no_gpu_fits_one_line() -> None:
    assert re.fullmatch(r"(no CUDA d|cuda-bindings is not installed).*", str(cuda.obstacle()))


@needs_no_gpu
def test_a_device_that_cannot_be_opened_says_why() -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*: (no CUDA driver|.*\(CUDA_ERROR_)"):
        cuda.open_device()


def stand_in(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.11.0.33", "12.0.0.1"])
def test_a_version_outside_the_known_range_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, version)
    found = TensorRT().probe()
    assert found.version == version
    assert found.builds == f"TensorRT {version} is not supported: 10.12 or newer, before 12.0"


@needs_no_gpu
@pytest.mark.parametrize("version", ["10.12.0.36", "11.4.0.106"])
def test_tensorrt_needs_a_gpu_to_build(version, fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, version)
    with pytest.raises(SesurgeryError, match=r"SE603.*TensorRT cannot build here: no CUDA"):
        TensorRT().build(fp32, tmp_path / "e.engine", BuildOptions())


def test_what_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = TensorRT().probe()
    assert (found.version, found.builds) == (None, "TensorRT is not installed")
    assert found.remedy == "pip install 'sesurgery[tensorrt]'"


def test_a_library_that_cannot_be_loaded_is_a_reason_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())

    def broken(name: str) -> ModuleType:
        raise OSError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    assert TensorRT().probe().builds == (
        "TensorRT is installed but cannot be imported: libnvinfer.so.11: cannot open shared object file"
    )


@needs_rtx
def test_a_build_that_fails_while_an_earlier_builder_lives_still_says_why(fp32: Path) -> None:
    earlier = EngineBuilder(RTX.library(), "TensorRT-RTX")
    earlier.build(_source.read(fp32), BuildOptions(), None)
    second = EngineBuilder(RTX.library(), "TensorRT-RTX", Settings(capabilities=("SM75",)))
    with pytest.raises(SesurgeryError, match="FP32 GEMM is not supported"):
        second.build(_source.read(fp32), BuildOptions(), None)
    del second
    # What was said of that build is not said again of the next.
    third = EngineBuilder(RTX.library(), "TensorRT-RTX")
    third.build(_source.read(fp32), BuildOptions(), None)
    assert third.log.errors == []
    assert earlier.log.warnings == third.log.warnings == []


@needs_rtx
def test_a_program_that_built_an_engine_ends_as_it_should(fp32: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sesurgery.backends.inputs import onnx_file as _source\n"
        "from sesurgery.backends.nvidia.build import EngineBuilder\n"
        "from sesurgery.backends.base import BuildOptions\n"
        "from sesurgery.backends.tensorrt_rtx import TensorRTForRTX\n"
        "builder = EngineBuilder(TensorRTForRTX().library(), 'RTX')\n"
        "print(builder.build(_source.read(Path(sys.argv[1])), BuildOptions(), None).convolutions)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(fp32)], capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "{'fp32': 3}", "")
