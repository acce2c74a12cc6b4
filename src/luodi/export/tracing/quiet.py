"""Exporters and calibrators talk a lot; their words are kept from the screen, and nothing else changes."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Generator

TALKERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "nncf")


@contextlib.contextmanager
def hushed() -> Generator[None]:
    """Holds back warnings, and log records below an error of the exporters and of the root logger."""
    loggers = [logging.getLogger(), *map(logging.getLogger, TALKERS)]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def without_bars() -> Generator[None]:
    """Holds back what is printed as well: for packages that draw progress bars of their own."""
    with hushed(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def unreported() -> Generator[None]:
    """Hides the package through which NNCF, once imported, would report its use to its makers: nothing leaves here."""
    name = "openvino_telemetry"
    held = sys.modules.pop(name, None)
    sys.modules[name] = None  # ty: ignore[invalid-assignment]  # an import of it now fails, which NNCF allows for
    try:
        yield
    finally:
        del sys.modules[name]
        if held is not None:
            sys.modules[name] = held
