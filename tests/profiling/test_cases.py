"""What is measured against what."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmseg_polyhistor.profiling.cases import PARTS, REFERENCES, find_config, load_method, plan_cases

EVERYTHING = tuple(REFERENCES)


def model_of(path):
    """A config's model without the weights that it names."""
    model = Config.fromfile(path).model.to_dict()
    model['backbone'].pop('init_cfg')
    return model


@pytest.mark.parametrize(
    ('arch', 'file'),
    [('tiny', 'swin-t'), ('small', 'swin-s'), ('base', 'swin-b'), ('large', 'swin-l-in22k')],
)
@pytest.mark.parametrize('method', ['polyhistor_lite', 'decoder_only'])
def test_a_size_gives_the_model_of_the_config_for_it(repo, method, arch, file):
    cfg = load_method(method, repo, arch)
    assert cfg.model.to_dict() == model_of(repo / f'configs/{method}/{file}_pascal.py')


def test_the_full_reference_is_the_multi_task_config(repo):
    (case,) = [c for c in plan_cases(['polyhistor'], repo, against=['full'], parts=()) if c.role == 'full']
    assert case.model == model_of(repo / 'configs/multi_task/swin-t_pascal.py')


def test_references_are_shared_between_methods_and_modes(repo):
    cases = plan_cases(
        ['polyhistor', 'polyhistor_lite', 'decoder_only', 'mtlora/r16'],
        repo,
        executions=('stacked', 'sequential'),
        against=EVERYTHING,
    )
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    roles = {
        role: [case.name for case in cases if case.role == role] for role in ('method', *REFERENCES, *PARTS)
    }
    assert len(roles['method']) == 8
    assert roles['plain'] == ['plain polyhistor swin-t', 'plain polyhistor_lite swin-t']
    assert roles['own-floor'] == ['own-floor swin-t stacked', 'own-floor swin-t sequential']
    assert len(roles['generation']) == 6
    for role in ('full', 'full-plain', 'floor', 'decoders'):
        assert roles[role] == [f'{role} swin-t']
    by_name = {case.name: case for case in cases}
    lite = by_name['polyhistor_lite swin-t sequential']
    assert lite.against == {
        'plain': 'plain polyhistor_lite swin-t',
        'full': 'full swin-t',
        'full-plain': 'full-plain swin-t',
        'floor': 'floor swin-t',
        'own-floor': 'own-floor swin-t sequential',
        'decoders': 'decoders swin-t',
        'generation': 'generation polyhistor_lite swin-t sequential',
    }
    assert by_name['decoder_only swin-t stacked'].against['plain'] is None
    assert by_name['decoder_only swin-t stacked'].against['generation'] is None
    assert by_name['mtlora/r16 swin-t stacked'].against['plain'] is None


def test_options_reach_the_methods_alone(repo):
    cases = plan_cases(
        ['polyhistor'], repo, executions=('sequential',), against=['plain', 'full'], with_cp=True
    )
    by_role = {case.role: case.model for case in cases}
    assert by_role['method']['execution'] == 'sequential'
    assert by_role['method']['backbone']['with_cp'] is True
    for role in ('plain', 'full'):
        assert 'execution' not in by_role[role]
        assert 'with_cp' not in by_role[role]['backbone']


def test_a_model_per_task_has_references_too(repo):
    cases = plan_cases(['single_task'], repo, against=['full', 'floor'], parts=())
    assert [case.name for case in cases] == ['single_task swin-t', 'full swin-t', 'floor swin-t']
    assert cases[1].model == model_of(repo / 'configs/multi_task/swin-t_pascal.py')


def test_methods_with_other_heads_have_references_of_their_own(config_file, repo):
    path = config_file()
    other = path.with_name('other.py')
    other.write_text(path.read_text().replace("'channels': 8", "'channels': 12"))
    cases = plan_cases([str(path), str(other)], repo, against=['floor'], parts=())
    assert [case.role for case in cases] == ['method', 'floor', 'method', 'floor']
    assert cases[3].name == 'floor swin-16 #2'
    assert cases[2].against == {'floor': 'floor swin-16 #2'}


def test_an_unknown_name_is_answered_with_the_known_ones(repo):
    with pytest.raises(
        FileNotFoundError, match=r'polyhister: neither a config nor one of .*mtlora/r16, .*polyhistor,'
    ):
        find_config('polyhister', repo)


def test_a_config_of_another_kind_is_refused(repo, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("model = dict(type='EncoderDecoder', backbone=dict(type='MixVisionTransformer'))\n")
    with pytest.raises(ValueError, match='a MultiTaskSegmentor with the backbone AdaptedSwin'):
        load_method(str(path), repo)
