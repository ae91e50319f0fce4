"""Which checkpoint is taken: what is broken, foreign or unfit is found before anything of it is used."""

from __future__ import annotations

import os
import pickle
import random
import re
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from mmseg_polyhistor.engine.resume import checkpoint_pattern, find_candidates, reason_against

KEYS = ('meta', 'state_dict', 'message_hub', 'optimizer', 'param_schedulers')


@pytest.fixture
def built(train_toy):
    """(runner that was trained for an epoch, its checkpoint)."""
    _, runner = train_toy(**{'train_cfg.max_epochs': 1})
    return runner, Path(runner.work_dir, 'epoch_1.pth')


def test_a_good_one(built):
    """Nothing speaks against what the run itself has saved, and looking at it changes nothing."""
    runner, path = built
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    assert reason_against(runner, str(path), KEYS) is None
    assert all(torch.equal(v, before[k]) for k, v in runner.model.state_dict().items())


def test_cut_off_anywhere(built):
    """Of a file of n bytes, every part of k * n / 60 bytes, and n - 1 bytes, is refused by name."""
    runner, path = built
    content = path.read_bytes()
    for length in {*range(0, len(content), len(content) // 60), 1, len(content) - 1}:
        path.write_bytes(content[:length])
        assert str(path) in (reason_against(runner, str(path), KEYS) or ''), length


def test_other_bytes(built):
    """One other byte in the weights is found, which torch.load alone does not see."""
    runner, path = built
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda i: i.file_size if '/data/' in i.filename else 0)
        weights = archive.read(info)
    content[content.index(weights) + len(weights) // 2] ^= 64
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    assert 'checksum' in reason_against(runner, str(path), KEYS)


def _sgd(runner):
    """The state of another optimiser of the same parameters."""
    groups = [dict(params=group['params']) for group in runner.optim_wrapper.optimizer.param_groups]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9).state_dict()


def _regrouped(runner, checkpoint):
    group = checkpoint['optimizer']['param_groups'][0]
    checkpoint['optimizer']['param_groups'].append(dict(group, params=[group['params'].pop()]))


def _swapped(runner, checkpoint):
    """The parameters in another order."""
    state = checkpoint['optimizer']['state']
    one = state[0]['exp_avg']
    other = next(s for s in state.values() if s['exp_avg'].shape != one.shape)
    state[0]['exp_avg'], other['exp_avg'] = other['exp_avg'], one


UNFIT = {
    'without optimiser': (lambda r, c: c.pop('optimizer'), r"lacks \['optimizer'\], which resuming needs"),
    'without schedules': (lambda r, c: c.pop('param_schedulers'), r"lacks \['param_schedulers'\]"),
    'without meta': (lambda r, c: c.pop('meta'), r"lacks \['meta'\]"),
    'without position': (lambda r, c: c['meta'].pop('iter'), "lacks the integers 'epoch' and 'iter'"),
    'without log': (lambda r, c: c['message_hub'].pop('log_scalars'), r"lacks \['log_scalars'\]"),
    'without a weight': (lambda r, c: c['state_dict'].pop('head.bias'), r'(?s)do not fit the model.*head\.bias'),
    'other weights': (lambda r, c: c['state_dict'].update(x=torch.zeros(1)), r'(?s)do not fit the model.*\bx\b'),
    'other shapes': (
        lambda r, c: c['state_dict'].update({'head.bias': torch.zeros(2)}),
        r'(?s)head\.bias: \(2,\) in the checkpoint, \(1,\) in the model',
    ),
    'other optimiser': (lambda r, c: c.update(optimizer=_sgd(r)), 'another optimiser than Adam: .*momentum.*without .*betas'),
    'other groups': (_regrouped, r'parameters in \d+ groups, the run has \d+ in \d+'),
    'other order': (_swapped, "'exp_avg' of shape .* for a parameter of shape"),
    'other schedules': (
        lambda r, c: c['param_schedulers'].append(c['param_schedulers'][0]),
        'state of 2 parameter schedulers, the config has 1',
    ),
    'schedules by name': (
        lambda r, c: c.update(param_schedulers=dict(a=c['param_schedulers'])),
        'of another form than those of the config',
    ),
    'nonsense': (lambda r, c: c.update(optimizer=5), 'TypeError'),
    'of stock mmengine': (
        lambda r, c: c['message_hub']['log_scalars'].update(a=HistoryBuffer([1.0], [1])),
        'more than tensors and plain data',
    ),
}  # fmt: skip


@pytest.mark.parametrize('change', UNFIT)
def test_whole_and_yet_unfit(built, change):
    """The reason says what does not fit."""
    runner, path = built
    checkpoint = torch.load(path, weights_only=True)
    do, message = UNFIT[change]
    do(runner, checkpoint)
    torch.save(checkpoint, path)
    reason = reason_against(runner, str(path), KEYS)
    assert re.search(message, reason or 'none'), reason


def test_no_checkpoint_at_all(built, tmp_path):
    """Text, nothing, another object, a folder, what is not there; and code in a pickle is not run."""
    runner, path = built
    trap = tmp_path / 'trap'

    class Code:
        def __reduce__(self):
            return os.mkdir, (str(trap),)

    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | dict(code=Code()), tmp_path / 'code.pth')
    (tmp_path / 'pickle.pth').write_bytes(pickle.dumps(Code()))
    (tmp_path / 'text.pth').write_text('epoch 1\n')
    (tmp_path / 'empty.pth').write_bytes(b'')
    (tmp_path / 'noise.pth').write_bytes(random.Random(0).randbytes(5000))
    (tmp_path / 'folder.pth').mkdir()
    for name in ('code', 'pickle', 'text', 'empty', 'noise', 'folder', 'absent'):
        reason = reason_against(runner, str(tmp_path / f'{name}.pth'), KEYS)
        assert f'{name}.pth' in (reason or ''), name
    assert not trap.exists()
    torch.save([1, 2], tmp_path / 'list.pth')
    assert 'it holds a list' in reason_against(runner, str(tmp_path / 'list.pth'), KEYS)


def test_several_optimisers(built):
    """Optimisers and schedules by name are compared name by name."""
    runner, path = built
    model = nn.Linear(2, 1)
    wrappers = {name: OptimWrapper(torch.optim.SGD([p], lr=0.1)) for name, p in model.named_parameters()}
    runner.optim_wrapper = OptimWrapperDict(**wrappers)
    runner.param_schedulers = dict.fromkeys(wrappers, runner.param_schedulers)
    runner.save_checkpoint(runner.work_dir, path.name)
    assert reason_against(runner, str(path), KEYS) is None

    good = torch.load(path, weights_only=True)
    torch.save(good | dict(optimizer=dict(weight=good['optimizer']['weight'])), path)
    assert "optimisers for ['weight'], the config has them for ['bias', 'weight']" in reason_against(
        runner, str(path), KEYS
    )
    torch.save(good | dict(param_schedulers=dict(bias=[])), path)
    assert "schedules for ['bias'], the config has them for ['bias', 'weight']" in reason_against(
        runner, str(path), KEYS
    )


def test_order_of_candidates(tmp_path):
    """What the pointer names, then by number; no best, published or incomplete ones."""
    others = [
        'best_mse_epoch_7.pth',
        'epoch_4-1a2b3c4d.pth',
        'epoch_12.pth.part',
        'epoch_.pth',
        'xepoch_3.pth',
        'a.pth',
    ]
    names = ['epoch_9.pth', 'epoch_10.pth', 'epoch_8.pth', 'iter_100.pth', *others]

    def found(pointer=None, template='epoch_{}.pth'):
        if pointer is not None:
            (tmp_path / 'last_checkpoint').write_text(pointer)
        paths = find_candidates(str(tmp_path), '/c', names, template)
        return [p.removeprefix('/c/') for p in paths]

    by_number = ['epoch_10.pth', 'epoch_9.pth', 'epoch_8.pth', 'iter_100.pth']
    assert found() == by_number
    assert found('') == found('  \n') == by_number
    assert found('/c/epoch_9.pth\n') == ['epoch_9.pth', 'epoch_10.pth', 'epoch_8.pth', 'iter_100.pth']
    assert found('/moved/from here/epoch_9.pth') == found('/c/epoch_9.pth')
    assert found('/c/a.pth') == ['a.pth', *by_number]  # the user's own word
    assert found('/c/epoch_11.pth') == ['epoch_11.pth', *by_number]  # gone: a reason will be given
    assert found('/c/epo') == ['epo', *by_number]
    assert found('\0\x01', 'iter_{}.pth') == ['\0\x01', 'iter_100.pth', *by_number[:3]]
    assert found('', '{:03d}.ckpt') == by_number
    names.append('007.ckpt')
    assert found('', '{:03d}.ckpt') == ['007.ckpt', *by_number]


def test_pattern_of_names():
    """A template's own characters stand for themselves."""
    pattern = checkpoint_pattern('run+1_{}.pth')
    assert pattern.fullmatch('run+1_20.pth')['step'] == '20'
    assert not any(map(pattern.fullmatch, ('runn1_20.pth', 'run+1_20xpth', 'run+1_.pth')))
