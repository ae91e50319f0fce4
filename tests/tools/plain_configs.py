"""Without the formatting of configs, which takes longer than the steps of a tiny model."""

from __future__ import annotations

import mmengine.config.config
import yapf.yapflib.yapf_api


def leave_configs_plain() -> None:
    """Let mmengine write configs as they are: it has the whole formatted again for every log and checkpoint.

    The official release holds yapf's function from its import on, the forks take it when they need it.
    """
    for module in (mmengine.config.config, yapf.yapflib.yapf_api):
        module.FormatCode = lambda text, **_: (text, False)
