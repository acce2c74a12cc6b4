"""Exporters and calibrators talk a lot; their words are kept from the screen, and nothing else changes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

TALKERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "nncf", "openvino", "root")


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Holds back warnings, prints and log records below an error; everything is as it was afterwards."""
    loggers = [logging.getLogger(None if name == "root" else name) for name in TALKERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
