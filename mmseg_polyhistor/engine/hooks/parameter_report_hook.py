"""`ParameterReportHook`: which parameters a run trains, as a table in its log."""

from __future__ import annotations

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from ..param_count import ParameterCounts, count_parameters

__all__ = ['ParameterReportHook', 'parameter_table']


@HOOKS.register_module()
class ParameterReportHook(Hook):
    """Logs a table of the parameters at the start of every training, validation and test run, on rank 0."""

    @master_only
    def before_run(self, runner: Runner) -> None:
        """Log the table."""
        runner.logger.info('Parameters:\n' + parameter_table(count_parameters(runner.model)))


def parameter_table(counts: ParameterCounts) -> str:
    """Counts as a text table, with the encoder's trainable share of its frozen weights."""
    rows = [('encoder', counts.encoder, counts.encoder_frozen)]
    rows += [(f'  adapters.{name}', size, 0) for name, size in counts.adapters.items()]
    rows += [
        ('output norms and decoders', counts.decoder, counts.decoder_frozen),
        ('total', counts.total, counts.frozen),
    ]
    width = max(len(name) for name, *_ in rows)
    lines = [f'{"":{width}}{"trained":>14}{"frozen":>14}{"trained/frozen":>17}']
    for name, trained, frozen in rows:
        share = f'{100 * trained / frozen:.2f} %' if frozen else '-'
        lines.append(f'{name:{width}}{trained:>14,}{frozen:>14,}{share:>17}')
    return '\n'.join(lines)
