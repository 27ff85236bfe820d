"""What may be asked of NVIDIA's builders, with the real TensorRT-RTX builder, which needs no GPU."""

import gc
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.nvidia import cuda, serialising
from sesurgery.backends.nvidia.build import EngineBuilder
from sesurgery.backends.nvidia.messages import located
from sesurgery.backends.nvidia.settings import Settings
from sesurgery.backends.nvidia.timing_cache import TimingCache
from sesurgery.backends.tensorrt import TensorRT
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.diagnostics import SesurgeryError
from sesurgery.profiles import ShapeRange, parse_profile

RTX = TensorRTForRTX(capabilities=("SM86",))
needs_rtx = pytest.mark.skipif(RTX.probe().builds is not None, reason=str(RTX.probe().builds))
needs_no_gpu = pytest.mark.skipif(cuda.obstacle() is None, reason="there is a GPU here")

OPEN = """(float[batch,3,height,width] x, float[n,4] s) => (float[batch,3,height,width] y, float[n,4] t) {
    y = Relu(x)
    t = Relu(s)
}"""


@pytest.fixture(autouse=True)
def no_builder_is_left():
    """The library has one logger for all builders that live: that of one in a cycle would hear the next test's."""
    yield
    gc.collect()


def profiles(*texts: str) -> BuildOptions:
    return BuildOptions(profiles=tuple(parse_profile(text) for text in texts), batch=BatchRange(1, 2, 8))


def refused(backend, source: Path, out: Path, options: BuildOptions | None = None) -> str:
    """The message of a build that must fail and leave nothing behind."""
    with pytest.raises(SesurgeryError) as raised:
        backend.build(source, out, options or BuildOptions())
    assert not list(out.parent.glob(f"*{out.name}*"))
    return str(raised.value)


# --- profiles ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(make) -> Path:
    return make(OPEN, "open.onnx")


def built_profiles(source: Path, options: BuildOptions) -> list[dict[str, str]]:
    """What the builder was told, read from the profiles it was given."""
    told = []
    builder = EngineBuilder(RTX.library(), RTX.title, RTX.settings())
    create = builder.builder.create_optimization_profile

    class Spy:
        """The builder, but for the profiles that it makes."""

        def __getattr__(self, name: str):
            return getattr(genuine, name)

        def create_optimization_profile(self):
            told.append(create())
            return told[-1]

    genuine, builder.builder = builder.builder, Spy()
    builder.build(_source.read(source), options, None)
    names = [value.name for value in onnx.load(source).graph.input]
    return [
        {name: str(ShapeRange(*(tuple(shape) for shape in profile.get_shape(name)))) for name in names}
        for profile in told
    ]


@needs_rtx
def test_several_profiles_with_dynamic_sizes_reach_the_builder(opened: Path) -> None:
    options = profiles("x=1,2,4x3x32,64,96x32,64,96", "x=8x3x224x224; s=1,4,16x4")
    assert built_profiles(opened, options) == [
        {"x": "1,2,4x3x32,64,96x32,64,96", "s": "1,2,8x4"},
        {"x": "8x3x224x224", "s": "1,4,16x4"},
    ]


@needs_rtx
def test_a_fixed_file_takes_a_profile_that_says_the_same_and_no_other(fixed_batch: Path, tmp_path: Path) -> None:
    assert built_profiles(fixed_batch, profiles("x=4x3x8x8")) == []
    message = refused(RTX, fixed_batch, tmp_path / "e.engine", profiles("x=1,4,8x3x8x8"))
    assert "SE604]: input 'x', dimension 0: the file says 4, the profile 1,4,8" in message


@dataclass(frozen=True)
class Unfit:
    name: str
    profiles: tuple[str, ...]
    message: str


UNFIT = [
    Unfit("unknown name", ("y=1x3x8x8",), "there is no input 'y'"),
    Unfit("rank", ("x=1x3x8",), "input 'x' has shape [-1, 3, -1, -1], the profile gives 1x3x8"),
    Unfit("fixed dimension", ("x=1x4x8x8",), "input 'x', dimension 1: the file says 3, the profile 4"),
    Unfit(
        "fixed dimension as a range", ("x=1x1,3,3x8x8",), "input 'x', dimension 1: the file says 3, the profile 1,3,3"
    ),
    Unfit("an input left out", ("s=1x4",), "input 'x' has shape [-1, 3, -1, -1]: more than its batch is dynamic"),
    Unfit("the second of two", ("x=1x3x8x8", "x=1x5x8x8"), "profile 2: input 'x', dimension 1: the file says 3"),
    Unfit("too many elements", ("x=1,1,1000000x3x32x32",), "input 'x' has 3072000000 elements at 1,1,1000000x3x32x32"),
]


@needs_rtx
@pytest.mark.parametrize("unfit", UNFIT, ids=lambda unfit: unfit.name)
def test_a_profile_that_does_not_fit_the_network_is_refused(unfit: Unfit, opened: Path, tmp_path: Path) -> None:
    message = refused(RTX, opened, tmp_path / "e.engine", profiles(*unfit.profiles))
    assert f"SE604]: {unfit.message}" in message


@needs_rtx
def test_all_that_does_not_fit_is_named_at_once(opened: Path, tmp_path: Path) -> None:
    message = refused(RTX, opened, tmp_path / "e.engine", profiles("imgae=1x3; s=1x5"))
    assert message.count("SE604") == 3


@needs_rtx
def test_sizes_that_do_not_rise_are_refused_whoever_made_them(opened: Path, tmp_path: Path) -> None:
    fallen = {"x": ShapeRange((2, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))}
    message = refused(RTX, opened, tmp_path / "e.engine", BuildOptions(profiles=(fallen,)))
    assert "input 'x', dimension 0: 2,1,4 does not rise" in message


# --- settings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    options: dict[str, object]
    reads: str
    found: object


ASKED = [
    Asked({}, "get_flag(trt.BuilderFlag.TF32)", False),
    Asked({"tf32": True}, "get_flag(trt.BuilderFlag.TF32)", True),
    Asked({"workspace": 64}, "get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)", 64 << 20),
    Asked({"level": 1}, "builder_optimization_level", 1),
    Asked({"aux_streams": 0}, "max_aux_streams", 0),
    Asked({"capabilities": ("SM86", "SM89")}, "num_compute_capabilities", 2),
]


@needs_rtx
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: str(asked.options))
def test_an_option_reaches_the_builder(asked: Asked, fp32: Path, tmp_path: Path, monkeypatch) -> None:
    seen = []
    keep = EngineBuilder.serialise
    monkeypatch.setattr(
        EngineBuilder,
        "serialise",
        lambda self, network, config, *rest: (seen.append(config), keep(self, network, config, *rest))[1],
    )
    backend = replace(RTX, **asked.options)
    backend.build(fp32, tmp_path / "e.engine", BuildOptions())
    trt = backend.library()
    assert eval(f"config.{asked.reads}", {"config": seen[0], "trt": trt}) == asked.found


@needs_rtx
def test_a_workspace_is_not_capped_unless_asked(fp32: Path, tmp_path: Path) -> None:
    # One MiB removes the only kernel: the builder's own words say so.
    message = refused(replace(RTX, workspace=1), fp32, tmp_path / "e.engine")
    assert "SE604]: TensorRT-RTX cannot build" in message
    assert "no tactics to implement the operation within workspace limit" in message


@needs_rtx
@needs_no_gpu
@pytest.mark.parametrize(
    ("option", "words"),
    [("refit", "CUDA_SUCCESS"), ("stripped", "CUDA_SUCCESS"), ("version_compatible", "Unable to load library")],
)
def test_what_this_library_cannot_do_without_a_driver_is_said_in_its_words(option, words, fp32, tmp_path) -> None:
    message = refused(replace(RTX, **{option: True}), fp32, tmp_path / "e.engine")
    assert "SE604]: TensorRT-RTX cannot build" in message
    assert words in message
    assert ("(refit, stripped) is built where a GPU is" in message) == (option != "version_compatible")


@needs_rtx
def test_a_setting_that_is_not_taken_is_an_error(fp32: Path) -> None:
    # The builder takes 9 and means 5.
    builder = EngineBuilder(RTX.library(), RTX.title, replace(RTX.settings(), level=9))
    with pytest.raises(SesurgeryError, match=r"SE604.*TensorRT-RTX does not take level 9: it gave no reason"):
        builder.build(_source.read(fp32), BuildOptions(), None)


def test_an_engine_without_weights_can_be_given_them_back() -> None:
    assert Settings(stripped=True).flags == ("REFIT_IDENTICAL", "STRIP_PLAN")
    assert Settings(stripped=True, refit=True).flags == ("REFIT", "STRIP_PLAN")
    assert TensorRT(hardware="ampere-plus", level=5).settings() == Settings(hardware="AMPERE_PLUS", level=5)


# --- writing and cancelling -------------------------------------------------------------------------------------------


@needs_rtx
def test_a_plan_is_as_long_whether_it_is_streamed_or_held_in_memory(fp32: Path, tmp_path: Path, monkeypatch) -> None:
    assert serialising.can_stream(RTX.library())
    RTX.build(fp32, tmp_path / "streamed.engine", BuildOptions())
    monkeypatch.setattr(serialising, "can_stream", lambda trt: False)
    RTX.build(fp32, tmp_path / "held.engine", BuildOptions())
    streamed, held = (tmp_path / "streamed.engine").read_bytes(), (tmp_path / "held.engine").read_bytes()
    # Two builds of one network differ in a few bytes now and then, and never in their size.
    assert (len(streamed), streamed[:16]) == (len(held), held[:16])
    assert len(streamed) > 100_000


@needs_rtx
def test_a_disk_that_is_full_is_the_error_that_is_raised(fp32: Path, tmp_path: Path, monkeypatch) -> None:
    make = serialising.writer

    def full(trt, path):
        made = make(trt, path)
        made.file.close()
        made.file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115  (the writer closes it)
        return made

    monkeypatch.setattr(serialising, "writer", full)
    with pytest.raises(OSError, match="No space left"):
        RTX.build(fp32, tmp_path / "e.engine", BuildOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["se.onnx"]


INTERRUPTED = """
import sys
from pathlib import Path
from sesurgery.backends.base import BuildOptions
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX

def tell(what, done, total):
    print(what, flush=True)

try:
    TensorRTForRTX().build(Path(sys.argv[1]), Path(sys.argv[2]), BuildOptions(), {tell})
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@needs_rtx
def test_interrupting_a_build_cancels_it_and_writes_nothing(make, tmp_path: Path) -> None:
    # Deep enough that the signal comes while the builder is at work.
    weights = ", ".join(f"float[64,64,3,3] w{index}" for index in range(40))
    lines = "\n".join(f"t{index + 1} = Conv<pads=[1,1,1,1]>(t{index}, w{index})" for index in range(40))
    path = make(f"(float[batch,64,32,32] t0) => (float[batch,64,32,32] t40) <{weights}> {{ {lines} }}", "deep.onnx")
    out = tmp_path / "engines" / "e.engine"
    program = INTERRUPTED.replace("{tell}", "tell")
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGINT)
    said, complaint = process.communicate(timeout=600)
    assert process.returncode == 0, complaint
    assert said.splitlines()[-1] == "interrupted"
    assert not out.exists()
    assert not list(out.parent.glob(".*.tmp"))


def test_work_that_is_interrupted_is_cancelled_and_waited_for() -> None:
    steps: list[str] = []

    def work() -> None:
        while "cancelled" not in steps:
            time.sleep(0.01)
        steps.append("ended")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            serialising.interruptible(work, lambda: steps.append("cancelled"))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert steps == ["cancelled", "ended"]


def test_what_work_raises_is_raised_where_it_was_asked_for() -> None:
    with pytest.raises(ZeroDivisionError):
        serialising.interruptible(lambda: 1 / 0, lambda: None)
    assert serialising.interruptible(lambda: 7, lambda: None) == 7


# --- words and caches -------------------------------------------------------------------------------------------------


def test_a_builders_words_get_the_module_of_each_node_they_name(fp32: Path) -> None:
    model = onnx.load(fp32)
    entry = model.graph.node[3].metadata_props.add()
    entry.key, entry.value = _source.SCOPES, "['', 'layer1', 'layer1.0.se', 'conv2d_3']"
    source = _source.OnnxFile(fp32, model)
    assert located("no tactic for node_hidden_myl0_7", source) == (
        "no tactic for node_hidden_myl0_7 (node_hidden is in layer1.0.se)"
    )
    assert located("no tactic for node_gate", source) == "no tactic for node_gate"


class Cache:
    """ITimingCache: what it holds are words."""

    def __init__(self, words: bytes) -> None:
        self.words = set(words.split())

    def combine(self, input_cache: "Cache", ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.words |= input_cache.words
        return True

    def serialize(self) -> bytes:
        return b" ".join(sorted(self.words))


class Config:
    def __init__(self) -> None:
        self.cache: Cache | None = None

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Cache:
        return Cache(serialized_timing_cache)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        if b"damaged" in cache.words:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Cache | None:
        return self.cache


def cache_in(folder: Path, **settings) -> TimingCache:
    return TimingCache(folder, "tensorrt-11.4.0.106", "NVIDIA H200, sm_90, CUDA 13.0", Settings(**settings))


def test_a_timing_cache_is_kept_for_one_gpu_version_and_choice_of_flags(tmp_path: Path) -> None:
    names = [cache_in(tmp_path, **settings).path.name for settings in ({}, {"tf32": True}, {"level": 5})]
    assert len(set(names)) == 3
    assert all(name.startswith("tensorrt_11.4.0.106-NVIDIA_H200_sm_90_CUDA_13.0-") for name in names)
    # What changes no kernel's time shares one.
    assert cache_in(tmp_path, workspace=64).path == cache_in(tmp_path).path


def test_what_two_builds_measure_at_once_is_kept_of_both(tmp_path: Path) -> None:
    log = SimpleNamespace(errors=[], warnings=[])
    configs = (Config(), Config())
    for config, word in zip(configs, (b"one", b"two"), strict=True):
        assert cache_in(tmp_path).attach(config, log) is None
        config.cache.words.add(word)
    for config in configs:
        cache_in(tmp_path).keep(None, config)
    assert cache_in(tmp_path).path.read_bytes() == b"one two"
    again = Config()
    cache_in(tmp_path).attach(again, log)
    assert again.cache.words == {b"one", b"two"}


def test_a_timing_cache_of_no_use_is_said_and_replaced(tmp_path: Path) -> None:
    cache, config = cache_in(tmp_path), Config()
    cache.path.parent.mkdir(parents=True)
    cache.path.write_bytes(b"damaged")
    log = SimpleNamespace(errors=["it is of another GPU"], warnings=[])
    assert cache.attach(config, log) == f"the timing cache {cache.path} is not used: it is of another GPU"
    assert config.cache is not None
    assert config.cache.words == set()
