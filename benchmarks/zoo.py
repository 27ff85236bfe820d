"""Which networks can be operated on: every step on every model, with the reason where one fails.

    python benchmarks/zoo.py                 torchvision's convolutional classifiers and the sample of timm below
    python benchmarks/zoo.py --from huggingface   the image classes and backbones of transformers that convolve
    python benchmarks/zoo.py --from ultralytics   families and tasks of Ultralytics, where it is installed
    python benchmarks/zoo.py --from pytorchcv smp monai pretrainedmodels efficientnet_pytorch    other libraries
    python benchmarks/zoo.py timm:resnet18   some models
    python benchmarks/zoo.py --sites 600     the column `sites` for rows that have none, the quickest rows first
    python benchmarks/zoo.py --table         docs/support.md from the committed results

A model is given the first of the placements residual, concat, conv that finds sites in it, with identity blocks, at the
smallest input that it takes. It passes a column when

    plan     sites are found
    apply    the blocks are inserted and proved to run
    equal    outputs in evaluation equal the original's (largest difference at most 1e-5 of the largest output)
    train    one training step gives a finite gradient to some parameter of every block, and to no one else's less
    modes    train() and eval() reach every module, and evaluation after it still equals the original
    replay   a run that is saved and read back gives the same outputs
    export   the ONNX file agrees with the model at two batch sizes other than the exported one, in ONNX Runtime
             (largest difference at most 1e-3 of the largest output)
    keys     every key of the original is there, with its value; a column of its own, which younger rows have
    sites    planned on the ONNX file of the network as it was, the same keys, channels and resolutions come out; a
             column of its own, which younger rows have

Equal outputs say something only where outputs depend on the image. Those of some fresh networks do not (weights with a
deviation of 0.02 through twenty layers): where another image moves no output by a hundredth of the largest, the network
gets weights that let the image through, layer by layer, and `moves` says by how much it moves them then; younger rows
have it.

Each model has a process of its own with a time limit. Results are added to benchmarks/results/zoo.json as they come, so
that a run that was stopped goes on where it was. `--again` examines models that have a result already.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import copy
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Here, and not where it is used: a child that is forked while another thread imports waits for it for ever.
import zoo_libraries

from sesurgery.artifacts import cpu_name, locked, to_json, versions, write_text

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "zoo.json"
TABLE = ROOT.parent / "docs" / "support.md"
COLUMNS = ("plan", "apply", "equal", "train", "modes", "replay", "export")
PLACEMENTS = ("residual", "concat", "conv")
SIZES = (64, 96, 128, 160, 192, 224, 256, 299, 331, 384, 448)
SMALLER = {"timm:samvit_base_patch16": 256}
TRANSFORMERS = ("vit_", "swin_")
YOLO = (
    *("yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov8n-ghost", "yolov8n-p2", "yolov8n-seg", "yolov8n-pose"),
    *("yolov8n-obb", "yolov8n-cls", "yolov8-rtdetr", "yolov9t", "yolov10n", "yolo11n", "yolo11n-seg", "yolo11n-cls"),
    *("yolo12n", "yolo12n-cls", "yolo26n", "yolo26n-cls", "rtdetr-resnet50"),
)
SECONDS = 400
DRAWS = 12
TOLERANCE = 1e-5
EXPORT_TOLERANCE = 1e-3
MOVES = 1e-2
"""How far another image must move the outputs, of their largest value."""


def torchvision_models() -> list[str]:
    """Torchvision's classification models but its pure transformers."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    return [f"torchvision:{name}" for name in names if not name.startswith(TRANSFORMERS)]


def timm_models(per_module: int = 2) -> list[str]:
    """The smallest few models of every module of timm, by parameters, that hold a 2-D convolution."""
    import timm
    from torch import nn

    chosen = []
    for module in timm.list_modules():
        # timm's own test networks are tiny, and nobody uses them.
        names = [name for name in timm.list_models(module=module) if not name.startswith("test_")]
        sized = []
        for name in names:
            model = _built("timm", name, "meta")
            if model is None and name in names[:3]:
                model = _built("timm", name, "cpu")
            if model is not None and any(isinstance(part, nn.Conv2d) for part in model.modules()):
                sized.append((sum(part.numel() for part in model.parameters()), name))
        chosen += [f"timm:{name}" for _, name in sorted(sized)[:per_module]]
    return chosen


def huggingface_models() -> list[str]:
    """Image classifiers and backbones of transformers, by their default configs, with two 2-D convolutions or more."""
    from torch import nn
    from transformers.models.auto import modeling_auto as known

    chosen = []
    for names in (known.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, known.MODEL_FOR_BACKBONE_MAPPING_NAMES):
        for value in names.values():
            for name in value if isinstance(value, tuple) else (value,):
                # A transformer's patches are one convolution. Networks of timm are examined as timm's.
                model = None if name.startswith("Timm") else _built("huggingface", name, "meta")
                if model is not None and sum(isinstance(part, nn.Conv2d) for part in model.modules()) > 1:
                    chosen.append(f"huggingface:{name}")
    return list(dict.fromkeys(chosen))


def ultralytics_models() -> list[str]:
    """The smallest network of the families and tasks of Ultralytics."""
    return [f"ultralytics:{name}.yaml" for name in YOLO]


def _built(source: str, name: str, device: str):
    """The network without values; None where it cannot be built so (some look at their values while being built)."""
    import timm
    import torch
    import torchvision

    def from_transformers(name: str):
        import transformers

        kind = getattr(transformers, name)
        return kind(kind.config_class())

    makers = {"timm": timm.create_model, "torchvision": torchvision.models.get_model, "huggingface": from_transformers}
    makers |= {library: partial(zoo_libraries.build, library) for library in zoo_libraries.LIBRARIES}
    make = makers.get(source)
    if make is None:
        return None
    try:
        with torch.device(device), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(name)
    except Exception:  # what stands in the way is the model's affair, and said when it is examined
        return None


def by_size(models: list[str]) -> list[str]:
    """The same models, the smallest first, so that a run that is stopped has seen as many as possible."""
    sized = []
    for model_id in models:
        source, _, name = model_id.partition(":")
        model = _built(source, name, "meta")
        # One of unknown size is examined last.
        size = sum(part.numel() for part in model.parameters()) if model is not None else sys.maxsize
        sized.append((size, model_id))
    return [model_id for _, model_id in sorted(sized)]


def examine(model_id: str) -> dict[str, object]:
    """Take one model through every step; what fails carries its reason."""
    warnings.simplefilter("ignore")
    import torch

    from sesurgery import pipeline
    from sesurgery.diagnostics import SesurgeryError

    torch.set_num_threads(1)
    started = time.perf_counter()
    row: dict[str, object] = {"model": model_id}
    try:
        _steps(model_id, row, pipeline, torch)
    except SesurgeryError as error:
        row["reason"] = error.diagnostics[0].message[:300]
    except Exception as error:
        text = str(error).strip().splitlines()
        row["reason"] = f"{type(error).__name__}: {text[0] if text else ''}"[:300]
    row["seconds"] = round(time.perf_counter() - started, 1)
    row["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
    return row


def _steps(model_id, row, pipeline, torch) -> None:
    planned, spec = _plan(model_id, row, pipeline)
    row["plan"] = True
    original = planned.network.module.eval()
    image = torch.randn(2, *spec.input.shape, generator=torch.Generator().manual_seed(0))
    _let_through(original, image, row, torch)
    # A forward may keep what it computed (Ultralytics' anchors), and is another one then.
    unused = copy.deepcopy(original)
    from sesurgery.networks import checkpoint
    from sesurgery.networks.export import export
    from sesurgery.networks.sources import surgeon_for
    from sesurgery.surgeons.fx.inputs import tensors
    from sesurgery.workspace import RunDetails

    changed = surgeon_for(spec).apply(original, planned.plan).eval()
    row["apply"] = True
    values = changed.state_dict()
    row["keys"] = all(key in values and torch.equal(values[key], value) for key, value in original.state_dict().items())
    row["difference"] = _difference(original, changed, image, torch)
    row["equal"] = row["difference"] <= TOLERANCE
    if not row["equal"]:
        raise ValueError(f"outputs differ by {row['difference']:.2g} of the largest")
    row["train"] = _train(changed, planned.plan, image, torch)
    changed = surgeon_for(spec).apply(unused, planned.plan)
    changed.train()
    reached = all(part.training for part in changed.modules())
    changed.eval()
    reached &= not any(part.training for part in changed.modules())
    row["modes"] = reached and _difference(original, changed, image, torch) <= TOLERANCE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        costs = dict.fromkeys(("params_before", "params_after", "macs_before", "macs_after"), 0)
        checkpoint.save(folder, changed, spec, planned.plan, "zoo", RunDetails(**costs))
        again = checkpoint.read(folder, pipeline.catalogs()).network
        row["replay"] = _difference(changed, again, image, torch) == 0
        # As the verb does it, of a network that has not run: one that has may keep the size of a batch (Ultralytics).
        unrun = checkpoint.read(folder, pipeline.catalogs()).network
        report = export(unrun, spec.input.shape, Path(name) / "net.onnx", spec.export)
        with torch.no_grad():
            row["export_difference"] = report.worst / _largest(tensors(changed(image)))
        row["export"] = row["export_difference"] <= EXPORT_TOLERANCE
        row["sites_agree"] = sites_agree(unused, planned.plan, spec)
        if not row["export"]:
            raise ValueError(f"the ONNX file differs by {row['export_difference']:.2g} of the largest output")


def sites_agree(network, plan, spec) -> str:
    """Empty where the network's ONNX file offers the plan's sites; else what does not agree first."""
    from sesurgery import planner
    from sesurgery.networks.export import convert
    from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

    try:
        file = convert(network.eval(), spec.input.shape, spec.export)
        other = planner.plan(spec, OnnxSurgeon(spec.input.shape).view(file))
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    ours, theirs = (
        [(site.key, site.channels, site.height, site.width) for site in found.sites] for found in (plan, other)
    )
    if ours == theirs or _by_module(ours, network) == _by_module(theirs, network):
        return ""
    only, missing = [site for site in theirs if site not in ours], [site for site in ours if site not in theirs]
    return f"{len(ours)} sites in torch, {len(theirs)} in ONNX; missing {missing[:1]}, instead {only[:1]}"


def _by_module(sites, network) -> list[tuple[object, ...]]:
    """Sites by the first name of their module: a shared module has several, and the exporter may take another one."""
    first: dict[object, str] = {}
    named = {path: first.setdefault(part, path) for path, part in network.named_modules(remove_duplicate=False)}
    scopes = [key.partition("/")[2].rpartition("[")[0] for key, *_ in sites]
    return sorted((named.get(scope, scope), *rest) for scope, (_, *rest) in zip(scopes, sites, strict=True))


def examine_sites(model_id: str) -> dict[str, object]:
    """The column `sites` alone, of a model that has a row."""
    warnings.simplefilter("ignore")
    import torch

    from sesurgery import pipeline

    torch.set_num_threads(1)
    row: dict[str, object] = {}
    try:
        planned, spec = _plan(model_id, row, pipeline)
        agree = sites_agree(planned.network.module, planned.plan, spec)
        return {"model": model_id, "sites_agree": agree, "sites": row["sites"]}
    except Exception as error:
        return {"model": model_id, "sites_agree": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def _plan(model_id: str, row, pipeline):
    """The first placement that finds sites, at the first size that the model takes."""
    from sesurgery.diagnostics import SesurgeryError

    name = model_id.partition(":")[2]
    last: SesurgeryError | None = None
    for size in _sizes(model_id):
        for placement in PLACEMENTS:
            given = {
                "version": 1,
                "name": name.replace("/", "_"),
                "model": _model(model_id),
                "input": {"shape": [3, size, size]},
                "surgery": [{"insert": {"block": "se", "init": "identity", "min_width": 8}, "at": placement}],
                # Fresh networks may put out thousands: the difference is judged below, relative to the outputs.
                "export": {"max_abs": 1e30},
            }
            spec = pipeline.load_spec(given)
            try:
                planned = pipeline.plan(spec)
            except SesurgeryError as error:
                last = error
                if error.diagnostics[0].code == "SE201":
                    continue
                break
            row |= {
                "placement": placement,
                "size": size,
                "sites": len(planned.sites),
                "leaves": len(planned.network.leaves),
            }
            return planned, spec
        if last is not None and last.diagnostics[0].code not in ("SE304",):
            break
    assert last is not None
    raise last


def _model(model_id: str) -> dict[str, object]:
    source, _, name = model_id.partition(":")
    if source in zoo_libraries.LIBRARIES:
        return zoo_libraries.model_of(source, name)
    return {"source": source, "name": name, "kwargs": _kwargs(model_id)}


def _sizes(model_id: str) -> tuple[int, ...]:
    """The network's own size alone where it is fixed; otherwise the small ones first."""
    source, _, name = model_id.partition(":")
    if name in ("inception_v3", "googlenet") and source == "torchvision":
        # Their auxiliary heads, which run in training alone, need the size they were made for.
        return (299,) if name == "inception_v3" else (224,)
    if source == "timm":
        import timm

        if model_id in SMALLER:
            return (SMALLER[model_id],)
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.fixed_input_size:
            return (config.input_size[-1],)
    return zoo_libraries.sizes(source, name) or SIZES


def _kwargs(model_id: str) -> dict[str, object]:
    # Their constructors warn and take half a minute when they are to draw from scipy's truncated normal.
    if model_id in ("torchvision:inception_v3", "torchvision:googlenet"):
        return {"init_weights": False}
    # At its own 1024 x 1024, training attends over 4096 places and takes more than 24 GiB.
    return {"img_size": SMALLER[model_id]} if model_id in SMALLER else {}


def _let_through(network, image, row, torch) -> None:
    """Give a network whose outputs hardly depend on the image weights that let it through; raises if none do."""
    # On copies: a forward may keep what it computed.
    row["moves"] = _moves(copy.deepcopy(network), image, torch)
    if row["moves"] < MOVES:
        drawn = copy.deepcopy(network)
        _scale_layers(drawn, image, torch)
        network.load_state_dict(drawn.state_dict())
        row["moves"] = _moves(copy.deepcopy(network), image, torch)
        row["drawn"] = True
    if row["moves"] < MOVES:
        raise ValueError(f"another image moves its outputs by {row['moves']:.2g} of the largest alone")


def _moves(network, image, torch) -> float:
    from sesurgery.surgeons.fx.inputs import tensors

    other = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = [tuple(tensors(network(each))) for each in (image, other)]
    apart = max(float((one - two).abs().max()) for one, two in zip(*outputs, strict=True) if one.is_floating_point())
    return apart / _largest(outputs[0])


def _scale_layers(network, image, torch) -> None:
    """Draw the layers' weights, and divide each layer's by the deviation of what it puts out on the image.

    Mishkin and Matas, All you need is a good init (arXiv 1511.06422), in one pass.
    """

    def scale(layer, _, output) -> object:
        deviation = float(output.std())
        if not 0 < deviation < float("inf"):
            return None
        layer.weight.data /= deviation
        if layer.bias is not None:
            layer.bias.data /= deviation
        return output / deviation

    layers = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for part in network.modules():
            if isinstance(part, layers):
                torch.nn.init.kaiming_normal_(part.weight)
                hooks.append(part.register_forward_hook(scale))
            elif isinstance(part, torch.nn.BatchNorm2d) and part.affine:
                # Transformers draws them about zero, so that the shift drowns the image.
                part.reset_parameters()
        for name, part in network.named_parameters():
            if not part.any() and not name.endswith("bias"):
                torch.nn.init.normal_(part, std=0.1)
        network(image)
    for hook in hooks:
        hook.remove()


def _difference(one, other, image, torch) -> float:
    from sesurgery.surgeons.fx.inputs import tensors

    with torch.no_grad():
        expected, found = [*tensors(one(image))], [*tensors(other(image))]
    apart = max(float((mine - theirs).abs().max()) for mine, theirs in zip(expected, found, strict=True))
    return apart / _largest(expected)


def _largest(outputs) -> float:
    return max(1e-12, *(float(item.abs().max()) for item in outputs))


def _train(changed, plan, image, torch) -> bool:
    """One training step; every block must get a finite gradient that is not zero, within a few draws of drop-paths."""
    from sesurgery.surgeons.fx.inputs import tensors

    changed.train()
    for part in changed.parameters():
        # Branches whose last norm starts at zero hide what lies before them.
        if not part.detach().any():
            torch.nn.init.normal_(part, std=0.02)
    optimizer = torch.optim.SGD(changed.parameters(), lr=1e-3)
    blocks = {site.key: changed.get_submodule(site.module) for site in plan.sites}
    batch = torch.cat([image, image.flip(0) * 0.5])
    with torch.no_grad():
        plain = isinstance(changed(batch), dict)
    left = dict(blocks)
    for _ in range(DRAWS):
        outputs = [item for item in tensors(changed(batch)) if item.requires_grad]
        # A classifier's auxiliary heads are left out; a detector's outputs are all its own.
        outputs = outputs if plain else outputs[:1]
        sum((item * torch.randn_like(item)).sum() for item in outputs).backward()
        # A drop-path takes whole branches out, so a block may have to wait for its turn.
        left = {key: block for key, block in left.items() if not any(_moved(part) for part in block.parameters())}
        if not left:
            break
    for key, block in blocks.items():
        known = [part.grad for part in block.parameters() if part.grad is not None]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in known):
            raise ValueError(f"{key} got a gradient that is not finite")
    if left:
        raise ValueError(f"{', '.join(list(left)[:3])} got no gradient in {DRAWS} passes")
    optimizer.step()
    return True


def _moved(part) -> bool:
    return part.grad is not None and bool(part.grad.any())


def _alone(model_id: str, seconds: int, look=examine) -> dict[str, object]:
    """Examine one model in a child that is ended when its time is up."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        os.setpgrp()
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (the exporter talks)
        sender.send(look(model_id))

    child = context.Process(target=work)
    child.start()
    sender.close()
    try:
        row = receiver.recv() if receiver.poll(seconds) else {"model": model_id, "reason": f"took over {seconds} s"}
    except EOFError:
        child.join(5)
        row = {"model": model_id, "reason": f"the process ended with {child.exitcode}"}
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return row


def _warm() -> None:
    """Import what every child needs, and let the exporter read its registry, once and before any thread is started."""
    import onnxruntime  # noqa: F401
    import torch

    from sesurgery import pipeline
    from sesurgery.networks import checkpoint, export  # noqa: F401
    from sesurgery.spec.export import Export
    from sesurgery.surgeons.onnx import surgeon  # noqa: F401

    torch.set_num_threads(1)
    pipeline.catalogs()
    export.convert(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)).eval(), (3, 8, 8), Export())


def measure(models: list[str], again: bool, seconds: int, jobs: int) -> None:
    """Examine the models that have no result yet, some at a time."""
    known = set() if again else {row["model"] for row in _results()}
    todo = [model for model in models if model not in known]
    _warm()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        rows = [pool.submit(_alone, model, seconds) for model in todo]
        for count, done in enumerate(concurrent.futures.as_completed(rows), start=1):
            row = done.result()
            _add(row)
            passed = all(row.get(column) for column in COLUMNS)
            verdict = "pass" if passed else "FAIL"
            print(f"{count}/{len(todo)} {verdict} {row['model']} {row.get('reason', '')}", flush=True)


def measure_sites(seconds: int, limit: int, jobs: int) -> None:
    """Fill in the column `sites` of rows without it, the quickest rows first, for `limit` seconds in all."""
    started = time.monotonic()
    todo = [row for row in _results() if all(row.get(column) for column in COLUMNS) and "sites_agree" not in row]

    def look(row: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
        late = time.monotonic() - started > limit
        return row, {} if late else _alone(row["model"], seconds, examine_sites)

    _warm()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        asked = [pool.submit(look, row) for row in sorted(todo, key=lambda row: row["seconds"])]
        for count, done in enumerate(concurrent.futures.as_completed(asked), start=1):
            row, found = done.result()
            if not found:
                continue
            agree = found.get("sites_agree", found.get("reason", ""))
            if found.get("sites", row["sites"]) != row["sites"]:
                print(f"{row['model']} has {found['sites']} sites now, not {row['sites']}: measure its row again")
                continue
            _add({**row, "sites_agree": agree}, stamped=False)
            print(f"{count}/{len(todo)} {row['model']} {agree or 'the same sites'}", flush=True)


def _results() -> list[dict[str, object]]:
    return json.loads(RESULTS.read_text())["models"] if RESULTS.is_file() else []


def _add(row: dict[str, object], *, stamped: bool = True) -> None:
    """Write one row in, with this machine unless it has its own; another run of this program may be writing others."""
    with locked(RESULTS.parent):
        rows = {known["model"]: known for known in _results()}
        source = str(row["model"]).partition(":")[0]
        stamp = {"device": cpu_name(), "versions": versions() | zoo_libraries.version(source)}
        rows[row["model"]] = row | (stamp if stamped else {})
        before = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        # What rows without a machine of their own were measured on.
        first = {key: before.get(key, given) for key, given in (("device", cpu_name()), ("versions", versions()))}
        data = {**first, "models": [rows[key] for key in sorted(rows)]}
        write_text(RESULTS, to_json(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    known = ("torchvision", "timm", "huggingface", "ultralytics", *zoo_libraries.LIBRARIES)
    parser.add_argument("--from", dest="source", choices=known, nargs="+", help="of these alone")
    parser.add_argument("--again", action="store_true", help="examine models that have a result already, too")
    parser.add_argument("--sites", type=int, metavar="SECONDS", help="fill in the column `sites` for that long")
    parser.add_argument("--jobs", type=int, default=2, help="models at a time")
    parser.add_argument("--table", action="store_true", help="write docs/support.md from the results")
    parser.add_argument("--per-module", type=int, default=2, help="models of every module of timm")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="time limit of one model")
    given = parser.parse_args()
    if given.table:
        from zoo_table import write_table

        write_table(RESULTS, TABLE, COLUMNS)
        return
    if given.sites is not None:
        measure_sites(given.seconds, given.sites, given.jobs)
        return
    sources = {
        "torchvision": torchvision_models,
        "timm": lambda: timm_models(given.per_module),
        "huggingface": huggingface_models,
        "ultralytics": ultralytics_models,
        **{library: partial(zoo_libraries.names, library) for library in zoo_libraries.LIBRARIES},
    }
    chosen = given.source or ["torchvision", "timm"]
    models = given.models or by_size([model for source in chosen for model in sources[source]()])
    measure(models, given.again, given.seconds, given.jobs)


if __name__ == "__main__":
    main()
