"""How many cases the fuzz tests try; `cases` can be imported by name.

By default every run tries the same cases, a few thousand in about a minute. `POLYHISTOR_FUZZ=20` tries 20 times as many,
others in every run, and keeps what fails in `.hypothesis`:

    POLYHISTOR_FUZZ=20 python -m pytest tests/fuzz

At the end of a run that holds fuzz tests, a line tells how many cases they tried.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def pytest_terminal_summary(terminalreporter: object) -> None:
    """Tell the number of cases."""
    from cases import CASES, FACTOR

    if CASES:
        number = FACTOR * sum(CASES.values())
        terminalreporter.write_line(
            f'fuzz: {len(CASES)} tests of {number} cases in all (POLYHISTOR_FUZZ={FACTOR})'
        )
