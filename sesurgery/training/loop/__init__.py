"""Carrying a training out: `fit`, and what Lightning is given, what is recorded, and how it is interrupted."""

from sesurgery.training.loop.fit import FitRequest, FitResult, fit

__all__ = ["FitRequest", "FitResult", "fit"]
