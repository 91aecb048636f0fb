"""The command line with the fake encoder in the model's place, as a program: `python -m tests.e2e.runner search red`.

The model `default` has seed 0 and `other` seed 1, so that a library of one is refused to the other.
`FAKE_DELAY_S` slows every batch down, `FAKE_LOG` counts them across processes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mmsearch import model_choice
from mmsearch.cli import entry
from mmsearch.errors import ModelError
from tests.fakes import FakeEncoder

SEEDS = {"default": 0, "other": 1}


def load_fake(name: str, device: str) -> FakeEncoder:
    if name not in SEEDS:
        raise ModelError(f"no model '{name}'; known: {', '.join(SEEDS)}")
    log = os.environ.get("FAKE_LOG")
    delay_s = float(os.environ.get("FAKE_DELAY_S", "0"))
    return FakeEncoder(name=name, seed=SEEDS[name], delay_s=delay_s, log=Path(log) if log else None)


if __name__ == "__main__":
    model_choice.load_encoder = load_fake
    sys.exit(entry.main())
