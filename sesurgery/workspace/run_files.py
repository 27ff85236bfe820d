"""What the files in a run's folder are called: known without torch, which reads and writes them."""

from __future__ import annotations

SPEC, PLAN, WEIGHTS = "spec.yaml", "plan.json", "weights.safetensors"
