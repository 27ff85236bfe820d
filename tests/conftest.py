"""What all tests share."""

import atexit
import os
import shutil
import tempfile

import pytest

# The suite runs on few cores, often several workers at once: threads that spin cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Torch keeps what it compiled, and finds it again under another instruction set, where it computes NaN.
if _sets := [os.environ[name] for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA") if name in os.environ]:
    _cache = os.path.join(tempfile.gettempdir(), "-".join(["torchinductor", str(os.getuid()), *_sets]))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", _cache)

# The key that seals artefacts, and the list of trusted folders, are not those of the user who runs the tests.
# They are those of the whole run: its workers inherit them, and use what the others have made.
if "PYTEST_XDIST_WORKER" not in os.environ:
    for _name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        os.environ[_name] = tempfile.mkdtemp(prefix="sesurgery-tests-")
        atexit.register(shutil.rmtree, os.environ[_name], ignore_errors=True)


pytest_plugins = [
    "fixtures.garbage",
    "fixtures.exporter",
    "fixtures.files",
    "fixtures.postgresql",
    "fixtures.processor_time",
    "fixtures.seeding",
    "fixtures.sharing",
    "fixtures.small_se",
    "fixtures.studies",
    "fixtures.tiny",
]


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write golden files again from what is found")


@pytest.fixture
def update_golden(request):
    return request.config.getoption("--update-golden")
