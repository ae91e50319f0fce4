"""Visual prompts: in which blocks, for whom, how many and from where."""

from __future__ import annotations

import pytest
import torch

from mmseg_polyhistor.adapters import BackboneLayout, Site, VisualPrompt

LAYOUT = BackboneLayout((8, 16), (2, 1))
SWIN_T = BackboneLayout((96, 192, 384, 768), (2, 2, 6, 2))
SHALLOW = {Site(0, 0, 'prompts'): 8}
DEEP = {Site(0, 0, 'prompts'): 8, Site(0, 1, 'prompts'): 8, Site(1, 0, 'prompts'): 16}


@pytest.mark.parametrize('per_task', [True, False], ids=['per-task', 'shared'])
@pytest.mark.parametrize(('deep', 'widths'), [(False, SHALLOW), (True, DEEP)], ids=['shallow', 'deep'])
def test_every_task_has_prompts_of_its_own_in_the_first_block_or_in_all(deep, widths, per_task):
    torch.manual_seed(0)
    m = VisualPrompt(layout=LAYOUT, tasks=('a', 'b'), prompts=3, deep=deep, per_task=per_task)
    changes = m.generate(('b', 'a'))
    owners = ('b', 'a') if per_task else ('all',)
    assert {site: tuple(p.tokens.shape) for site, p in changes.items()} == {
        site: (len(owners), 3, d) for site, d in widths.items()
    }
    for site, prompts in changes.items():
        assert prompts.norm
        for t, owner in enumerate(owners):
            assert torch.equal(prompts.tokens[t], m.sets[owner][site.key])
    assert (
        not VisualPrompt(layout=LAYOUT, tasks=('a',), norm=False).generate(('a',))[Site(0, 0, 'prompts')].norm
    )


@pytest.mark.parametrize(('deep', 'expected'), [(False, 19_200), (True, 883_200)], ids=['shallow', 'deep'])
def test_the_papers_counts_on_swin_tiny(deep, expected):
    m = VisualPrompt(layout=SWIN_T, tasks=('semseg', 'human_parts', 'saliency', 'normals'), deep=deep)
    assert sum(p.numel() for p in m.parameters()) == expected


@pytest.mark.parametrize('patch_size', [4, 16])
def test_prompts_start_as_in_vpt(patch_size):
    """Uniform within +-sqrt(6 / (3 p^2 + d))."""
    torch.manual_seed(0)
    m = VisualPrompt(layout=SWIN_T, tasks=('a',), deep=True, patch_size=patch_size)
    for site, prompts in m.generate(('a',)).items():
        bound = (6 / (3 * patch_size**2 + SWIN_T.widths[site.stage])) ** 0.5
        assert 0.98 * bound < prompts.tokens.abs().max() <= bound
        assert prompts.tokens.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


@pytest.mark.parametrize('prompts', [0, -1, 2.0, True])
def test_a_number_of_prompts_that_is_none_is_refused(prompts):
    with pytest.raises(ValueError, match=f'prompts must be a positive int, got {prompts}'):
        VisualPrompt(layout=LAYOUT, tasks=('a',), prompts=prompts)


def test_unknown_tasks_are_refused():
    with pytest.raises(ValueError, match=r"unknown tasks \['z'\]; this model was built for \('a',\)"):
        VisualPrompt(layout=LAYOUT, tasks=('a',)).generate(('z',))
