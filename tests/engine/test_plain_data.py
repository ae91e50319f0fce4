"""Plain data: what comes out loads with `weights_only=True`, and nothing is lost on the way."""

from __future__ import annotations

import io
import math
from collections import OrderedDict, defaultdict, deque, namedtuple
from enum import Enum, IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from toy_training import assert_identical

from mmseg_polyhistor.engine import NotPlainError, to_plain

Pair = namedtuple('Pair', 'a b')
Colour = Enum('Colour', 'RED')
Level = IntEnum('Level', 'LOW')


def through_a_file(obj):
    file = io.BytesIO()
    torch.save(obj, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


CASES = {
    'numpy float': (np.float64(0.1), 0.1),
    'numpy float32': (np.float32(0.1), float(np.float32(0.1))),
    'numpy int': (np.uint64(2**63), 2**63),
    'numpy bool': (np.bool_(True), True),
    'numpy string': (np.str_('ä'), 'ä'),
    'numpy dtype': (np.dtype('uint8'), 'uint8'),
    'array': (np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::2], torch.tensor([[0, 2], [3, 5]], dtype=torch.int16)),
    'scalar array': (np.array(3.5), torch.tensor(3.5, dtype=torch.float64)),
    'empty array': (np.zeros((0, 2), np.float32), torch.zeros(0, 2)),
    'array of strings': (np.array(['a', 'bc']), ['a', 'bc']),
    'array of objects': (np.array([None, 'x', np.int8(3)], dtype=object), [None, 'x', 3]),
    'set': ({3, 1, 2}, [1, 2, 3]),
    'frozenset': (frozenset({'b', 'a'}), ['a', 'b']),
    'mixed set': ({('a',), ('b', 1)}, [('a',), ('b', 1)]),
    'deque': (deque([1, np.int8(2)], maxlen=3), [1, 2]),
    'named tuple': (Pair(1, np.float16(2)), (1, 2.0)),
    'config': (ConfigDict(a=dict(b=[1, (2,)])), dict(a=dict(b=[1, (2,)]))),
    'default dict': (defaultdict(list, x=[1]), dict(x=[1])),
    'numpy keys': ({np.int64(7): 'a', 'b': np.int64(8)}, {7: 'a', 'b': 8}),
    'path': (Path('a') / 'b', 'a/b'),
}  # fmt: skip


@pytest.mark.parametrize(('obj', 'expected'), CASES.values(), ids=CASES)
def test_plain_form_survives_a_file(obj, expected):
    """Within a container, each object takes its plain form, which a protected load gives back."""
    assert_identical(through_a_file(to_plain([dict(x=obj)])), [dict(x=expected)])


REFUSED = {
    'an object': object(),
    'a class': Path,
    'a function': math.sqrt,
    'an enum': Colour.RED,
    'an int enum': Level.LOW,
    'a date': np.datetime64('2024-01-01'),
    'dates': np.array(['2024-01-01'], dtype='datetime64[ns]'),
    'a record': np.zeros(2, dtype=[('a', 'i4'), ('b', 'f4')]),
    'a long double': np.longdouble(1) / 3,
    'long doubles': np.ones(2, np.longdouble) / 3,
    'a generator': (i for i in ()),
}


@pytest.mark.parametrize('obj', REFUSED.values(), ids=REFUSED)
def test_what_has_no_plain_form_is_named_by_its_place(obj):
    """The message holds the way from the root to the culprit."""
    with pytest.raises(NotPlainError, match=r"^root\['meta'\]\[1\]"):
        to_plain(dict(state={}, meta=(0, obj)), 'root')


def test_keys_that_would_fall_together_are_refused():
    """A dict must not lose an entry."""
    with pytest.raises(NotPlainError, match='keys that are equal'):
        to_plain({Path('a'): 1, 'a': 2})


def test_plain_data_is_not_copied():
    """Shared parts stay shared, and a state dict keeps its tensors and metadata."""
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
    tree = dict(
        a=state, b=[1, 2.5, 'x', None, True, (1,)], c=torch.float32, d=torch.Size([1]), e=b'raw', f=1j
    )
    assert to_plain(tree) is tree
    loaded = through_a_file(tree)
    assert loaded['a']._metadata == state._metadata
    changed = to_plain(dict(tree, new=np.int8(1)))
    assert changed['a'] is state and changed['b'] is tree['b']


def test_attributes_of_an_ordered_dict_become_plain():
    """`state_dict()._metadata` travels with the dict, so it has to be plain as well."""
    state = OrderedDict(a=1)
    state._metadata = OrderedDict(version=np.int64(2))
    loaded = through_a_file(to_plain(state))
    assert loaded._metadata == OrderedDict(version=2) and type(loaded._metadata['version']) is int
    assert type(state._metadata['version']) is np.int64


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=50)
@given(TREES)
def test_any_tree_of_python_data(tree):
    """Python's own data are plain already, and a protected load gives them back as they were."""
    assert to_plain(tree) is tree
    assert_identical(through_a_file(tree), tree)


@settings(deadline=None, max_examples=50)
@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.tuples(inner, inner), max_leaves=10))
def test_the_original_is_never_changed(tree):
    """Converting a tree with numpy in it leaves the tree alone."""
    array = np.ones(2)
    original = [tree, array, {'k': np.float32(1)}]
    to_plain(original)
    assert original[0] is tree and original[1] is array and type(original[2]['k']) is np.float32
