"""Names that specs and checkpoints of earlier releases hold."""

import subprocess
import sys

from sesurgery.networks import cifar_resnet

CODE = "from sesurgery.models.cifar_resnet import resnet20; print(resnet20.__module__)"


def test_a_former_name_works_and_names_the_new_one():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == cifar_resnet.__name__
    warning = "FutureWarning: sesurgery.models.cifar_resnet is now sesurgery.networks.cifar_resnet"
    assert warning in done.stderr
