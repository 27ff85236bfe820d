"""The verbs as functions: typed options and paths in, an artefact with its manifest out. Nothing here prints.

A verb is imported when it is first asked for: `pipeline.plan` pays neither for the trainer nor for an engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sesurgery import deferred

if TYPE_CHECKING:
    from sesurgery.pipeline.account import account_of_model, account_of_plan
    from sesurgery.pipeline.apply import FileRequest, apply, apply_onnx
    from sesurgery.pipeline.bench.bench import bench
    from sesurgery.pipeline.bench.prices import price_engine, price_plan
    from sesurgery.pipeline.bench.request import BenchRequest
    from sesurgery.pipeline.build_engine.build_engine import EnginesRequest, build_engine, build_engines
    from sesurgery.pipeline.build_engine.engine_files import as_engine, has_run
    from sesurgery.pipeline.build_engine.request import BuildRequest
    from sesurgery.pipeline.compare import compare, compare_seeds, learning_curve
    from sesurgery.pipeline.data import fetch
    from sesurgery.pipeline.demo import DemoRequest, demo
    from sesurgery.pipeline.export import export
    from sesurgery.pipeline.fine_tune import FineTuneRequest, fine_tune
    from sesurgery.pipeline.gates.by_epoch import gates_by_epoch
    from sesurgery.pipeline.gates.constants import needless
    from sesurgery.pipeline.gates.fold import FoldRequest, fold
    from sesurgery.pipeline.gates.fold_file import FileFoldRequest, fold_file
    from sesurgery.pipeline.gates.gates import gates
    from sesurgery.pipeline.gates.of_file import gates_of_file
    from sesurgery.pipeline.init import init
    from sesurgery.pipeline.inspect import draw, inspect
    from sesurgery.pipeline.lower import LowerRequest, lower
    from sesurgery.pipeline.plan import plan
    from sesurgery.pipeline.prune import prune
    from sesurgery.pipeline.refit import RefitRequest, refit
    from sesurgery.pipeline.report import report_pages, write_comparison, write_report
    from sesurgery.pipeline.run import run
    from sesurgery.pipeline.specs import catalogs, engine, load_spec
    from sesurgery.pipeline.study.estimate import estimate
    from sesurgery.pipeline.study.study import study, study_results
    from sesurgery.pipeline.train import TrainRequest, evaluate, train
    from sesurgery.pipeline.verify.of_file import FileVerifyRequest, verify_file
    from sesurgery.pipeline.verify.verify import stale_section, verify
    from sesurgery.pipeline.watch import watch
    from sesurgery.serving.package import package
    from sesurgery.serving.predict import predict
    from sesurgery.workspace.folders import Workspace

__all__ = [
    "BenchRequest",
    "BuildRequest",
    "DemoRequest",
    "EnginesRequest",
    "FileFoldRequest",
    "FileRequest",
    "FileVerifyRequest",
    "FineTuneRequest",
    "FoldRequest",
    "LowerRequest",
    "RefitRequest",
    "TrainRequest",
    "Workspace",
    "account_of_model",
    "account_of_plan",
    "apply",
    "apply_onnx",
    "as_engine",
    "bench",
    "build_engine",
    "build_engines",
    "catalogs",
    "compare",
    "compare_seeds",
    "demo",
    "draw",
    "engine",
    "estimate",
    "evaluate",
    "export",
    "fetch",
    "fine_tune",
    "fold",
    "fold_file",
    "gates",
    "gates_by_epoch",
    "gates_of_file",
    "has_run",
    "init",
    "inspect",
    "learning_curve",
    "load_spec",
    "lower",
    "needless",
    "package",
    "plan",
    "predict",
    "price_engine",
    "price_plan",
    "prune",
    "refit",
    "report_pages",
    "run",
    "stale_section",
    "study",
    "study_results",
    "train",
    "verify",
    "verify_file",
    "watch",
    "write_comparison",
    "write_report",
]

_PLACES = {
    "BenchRequest": "sesurgery.pipeline.bench.request",
    "BuildRequest": "sesurgery.pipeline.build_engine.request",
    "DemoRequest": "sesurgery.pipeline.demo",
    "EnginesRequest": "sesurgery.pipeline.build_engine.build_engine",
    "FileFoldRequest": "sesurgery.pipeline.gates.fold_file",
    "FileRequest": "sesurgery.pipeline.apply",
    "FileVerifyRequest": "sesurgery.pipeline.verify.of_file",
    "FineTuneRequest": "sesurgery.pipeline.fine_tune",
    "FoldRequest": "sesurgery.pipeline.gates.fold",
    "LowerRequest": "sesurgery.pipeline.lower",
    "RefitRequest": "sesurgery.pipeline.refit",
    "TrainRequest": "sesurgery.pipeline.train",
    "Workspace": "sesurgery.workspace.folders",
    "account_of_model": "sesurgery.pipeline.account",
    "account_of_plan": "sesurgery.pipeline.account",
    "apply": "sesurgery.pipeline.apply",
    "study_results": "sesurgery.pipeline.study.study",
    "apply_onnx": "sesurgery.pipeline.apply",
    "as_engine": "sesurgery.pipeline.build_engine.engine_files",
    "bench": "sesurgery.pipeline.bench.bench",
    "build_engine": "sesurgery.pipeline.build_engine.build_engine",
    "build_engines": "sesurgery.pipeline.build_engine.build_engine",
    "catalogs": "sesurgery.pipeline.specs",
    "compare": "sesurgery.pipeline.compare",
    "compare_seeds": "sesurgery.pipeline.compare",
    "learning_curve": "sesurgery.pipeline.compare",
    "watch": "sesurgery.pipeline.watch",
    "demo": "sesurgery.pipeline.demo",
    "draw": "sesurgery.pipeline.inspect",
    "engine": "sesurgery.pipeline.specs",
    "estimate": "sesurgery.pipeline.study.estimate",
    "evaluate": "sesurgery.pipeline.train",
    "export": "sesurgery.pipeline.export",
    "fetch": "sesurgery.pipeline.data",
    "fine_tune": "sesurgery.pipeline.fine_tune",
    "fold": "sesurgery.pipeline.gates.fold",
    "fold_file": "sesurgery.pipeline.gates.fold_file",
    "gates": "sesurgery.pipeline.gates.gates",
    "gates_by_epoch": "sesurgery.pipeline.gates.by_epoch",
    "gates_of_file": "sesurgery.pipeline.gates.of_file",
    "has_run": "sesurgery.pipeline.build_engine.engine_files",
    "init": "sesurgery.pipeline.init",
    "inspect": "sesurgery.pipeline.inspect",
    "load_spec": "sesurgery.pipeline.specs",
    "lower": "sesurgery.pipeline.lower",
    "needless": "sesurgery.pipeline.gates.constants",
    "package": "sesurgery.serving.package",
    "plan": "sesurgery.pipeline.plan",
    "price_engine": "sesurgery.pipeline.bench.prices",
    "price_plan": "sesurgery.pipeline.bench.prices",
    "prune": "sesurgery.pipeline.prune",
    "predict": "sesurgery.serving.predict",
    "refit": "sesurgery.pipeline.refit",
    "run": "sesurgery.pipeline.run",
    "stale_section": "sesurgery.pipeline.verify.verify",
    "study": "sesurgery.pipeline.study.study",
    "train": "sesurgery.pipeline.train",
    "verify": "sesurgery.pipeline.verify.verify",
    "verify_file": "sesurgery.pipeline.verify.of_file",
    "report_pages": "sesurgery.pipeline.report",
    "write_comparison": "sesurgery.pipeline.report",
    "write_report": "sesurgery.pipeline.report",
}
deferred.names(__name__, _PLACES)
