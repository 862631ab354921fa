"""Tests run on one thread, since what they compare is small, and draw the same examples every time, so that a run that
fails can be repeated: `HYPOTHESIS_PROFILE=search` draws new ones. Garbage is collected more rarely than by default, and
not among what importing the tests left behind: a session holds a million objects that live to its end, and looking
through them takes half a second, which every test that measures memory did several times."""

import gc
import os
import signal

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

gc.set_threshold(50_000, 20, 50)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what it runs in the background so, and programs that tests start and interrupt would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("same", derandomize=True)
settings.register_profile("search", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()
