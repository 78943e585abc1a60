"""Verbs run inside the test process: what they change there is undone."""

from __future__ import annotations

import logging
import signal

import pytest


@pytest.fixture(autouse=True)
def restored_process():
    """Undo what a command did to loggers and to Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)
    for name in ("st_cdgm", "py.warnings"):
        logger = logging.getLogger(name)
        for added in list(logger.handlers):
            logger.removeHandler(added)
            added.close()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    logging.captureWarnings(False)
