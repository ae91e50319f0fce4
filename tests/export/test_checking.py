"""The check of a written file finds what is wrong at any of its sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from export_models import TASKS, build

from mmseg_polyhistor.export import Difference, ExportError, ExportNetwork, checking, run_file


@pytest.mark.parametrize('bad', [0, 1], ids=['the first size', 'the last size'])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), 1e3])
def test_the_worst_of_all_sizes_is_kept(monkeypatch, value, bad):
    model = build('decoder_only', depths=(1,))
    network = ExportNetwork(model, outputs='logits')

    def outputs(path, form, batches):
        found = [network(images) for images in batches]
        found[bad]['saliency'][0, 0, 3, 4] = value
        return found

    monkeypatch.setattr(checking, 'run_file', outputs)
    sizes = [(1, 32, 32), (2, 40, 24)]
    found = checking.largest_differences(Path('none'), 'onnx', network, model, sizes)
    assert {task: difference.within(1e-3) for task, difference in found.items()} == dict(
        semseg=True, saliency=False, normals=True
    )
    assert tuple(found) == TASKS


def test_the_order_of_differences():
    """Relative to the scale; what is not finite, or has a scale of 0, is beyond all."""
    nan, inf = float('nan'), float('inf')
    assert Difference(0.0, 0.0).relative == 0 and Difference(0.5, 2.0).relative == 0.25
    beyond = [(nan, 1.0), (inf, 1.0), (1.0, nan), (1.0, inf), (nan, nan), (1e-9, 0.0), (nan, 0.0)]
    assert {Difference(*numbers).relative for numbers in beyond} == {inf}
    assert not any(Difference(*numbers).within(1e9) for numbers in beyond)


def test_files_that_do_not_load(onnx, tmp_path):
    for name, form in (('m.onnx', 'onnx'), ('m.pt2', 'torch_export')):
        (tmp_path / name).write_bytes(b'nothing')
        with pytest.raises(ExportError, match=f'{name} cannot be loaded: '):
            run_file(tmp_path / name, form, [torch.zeros(1, 3, 8, 8)])
