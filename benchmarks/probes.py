"""How far engines that are right leave the model on inputs that nobody photographed.

    python benchmarks/probes.py             # five networks of timm, fp32 and fp16
    python benchmarks/probes.py resnet50    # these

Networks with untrained weights, whose norms have seen 16 images. An engine is what ONNX Runtime or OpenVINO builds, and
in fp16 also what the file says, with its roundings; for each the largest error on each probe of `sesurgery verify`. A
default for `max_relative` would have to lie above all of them. docs/verification.md has what came out.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from sesurgery.backends.base import BuildOptions
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.backends.openvino import OpenVINO
from sesurgery.lowering.base import run as lower
from sesurgery.lowering.precision.half import SAFE, Precision
from sesurgery.lowering.precision.ranges import measure
from sesurgery.networks.export import convert
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.half_meaning import in_single
from sesurgery.spec.export import Export
from sesurgery.training.evaluation import logits
from sesurgery.verification.predicting import predict
from sesurgery.verification.probes import compare_probe, probes

NETWORKS = ("seresnet18", "mobilenetv3_small_100", "efficientnet_b0", "densenet121", "resnet50")
SHAPE, SAMPLES, MEASURED = (3, 96, 96), 16, 8
Images = NDArray[np.float32]
Model = Callable[[Images], NDArray[np.generic]]


def network_of(name: str) -> tuple[nn.Module, Images]:
    """A network whose norms are as a training leaves them, and the images that they have seen."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=10)
    random = np.random.default_rng(0)
    images = np.stack([numerics.random_image(random, SHAPE) for _ in range(SAMPLES)]).astype(np.float32)
    images += random.normal(0, 0.5, (SAMPLES, 3, 1, 1)).astype(np.float32)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.6, 1.4)
                module.bias.normal_(0, 0.2)
                module.momentum = None
        network.train()(torch.from_numpy(images))
    return network.eval(), images


@contextlib.contextmanager
def engines(file: onnx.ModelProto, precision: str) -> Iterator[dict[str, Model]]:
    """What computes a file, by name."""
    found: dict[str, Model] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        source = Path(folder) / "net.onnx"
        onnx.save(file, source)
        for name, backend in (("onnxruntime", OnnxRuntime()), ("openvino", OpenVINO())):
            engine = Path(folder) / f"{name}{backend.suffix}"
            backend.build(source, engine, BuildOptions(precision))  # type: ignore[arg-type]
            runner = stack.enter_context(backend.load(engine, 1))
            found[name] = lambda images, runner=runner: predict(runner, images, 1)  # type: ignore[misc]
        if precision != "fp32":
            run, end = numerics.runner(in_single(file)), file.graph.output[0].name
            fed = file.graph.input[0].name
            found["as the file says"] = lambda images: np.concatenate(
                [run({fed: image[None]})[end] for image in images]
            )
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    torch.set_num_threads(1)
    for name in parser.parse_args().networks:
        network, images = network_of(name)
        made = list(probes(images))
        expected = {probe: logits(network, [torch.from_numpy(inputs)]).numpy() for probe, inputs in made}
        file = convert(network, SHAPE, Export())
        feeds = [{file.graph.input[0].name: images[index : index + 1]} for index in range(MEASURED)]
        half = lower(file, [Precision("fp16", "keep", measure(file, feeds, SAFE))]).model
        for precision, source in (("fp32", file), ("fp16", half)):
            with engines(source, precision) as built:
                for engine, run in built.items():
                    errors = []
                    for probe, inputs in made:
                        found = compare_probe(probe, expected[probe], run(inputs), 1, None)
                        errors.append(f"{probe} {found.max_relative:.2g}" if found else f"{probe} not finite")
                    print(f"{name}, {precision}, {engine}: {', '.join(errors)}", flush=True)


if __name__ == "__main__":
    main()
