"""The verbs as functions: typed options and paths in, an artefact with its manifest out. Nothing here prints."""

from sesurgery.pipeline.account import account_of_model, account_of_plan
from sesurgery.pipeline.apply import apply
from sesurgery.pipeline.bench import bench
from sesurgery.pipeline.engines import build_engine, build_engines
from sesurgery.pipeline.export import export
from sesurgery.pipeline.init import init
from sesurgery.pipeline.inspect import draw, inspect
from sesurgery.pipeline.lower import lower
from sesurgery.pipeline.onnx import apply_onnx, plan_onnx
from sesurgery.pipeline.plan import plan
from sesurgery.pipeline.refit import refit
from sesurgery.pipeline.report import write_report
from sesurgery.pipeline.run import run
from sesurgery.pipeline.specs import catalogs, engine, load_spec
from sesurgery.pipeline.train import evaluate, train
from sesurgery.pipeline.verify import verify
from sesurgery.pipeline.workspace import Workspace
from sesurgery.serving.package import package
from sesurgery.serving.predict import predict

__all__ = [
    "Workspace",
    "account_of_model",
    "account_of_plan",
    "apply",
    "apply_onnx",
    "bench",
    "build_engine",
    "build_engines",
    "catalogs",
    "draw",
    "engine",
    "evaluate",
    "export",
    "init",
    "inspect",
    "load_spec",
    "lower",
    "package",
    "plan",
    "plan_onnx",
    "predict",
    "refit",
    "run",
    "train",
    "verify",
    "write_report",
]
