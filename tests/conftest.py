"""What all tests share."""

import os

import pytest

# The suite runs on few cores, often several workers at once: threads that spin cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write golden files anew from what is found")


@pytest.fixture
def update_golden(request):
    return request.config.getoption("--update-golden")
