"""The matrices of adapters, against torch.kron in a loop and plain products."""

from __future__ import annotations

import pytest
import torch

from mmseg_polyhistor.adapters.matrices import FactorisedMatrix, PHMMatrix, PlainMatrix


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for p in module.parameters():
        torch.nn.init.normal_(p)
    return module.double()


@pytest.mark.parametrize('own_rule', [True, False], ids=['own-rule', 'given-rule'])
@pytest.mark.parametrize('rank_one', [True, False], ids=['rank-one', 'whole'])
@pytest.mark.parametrize(('rows', 'cols', 'm'), [(6, 8, 2), (12, 3, 3), (4, 8, 4), (3, 5, 1)])
def test_phm_equals_a_sum_of_kronecker_products(rows, cols, m, rank_one, own_rule):
    matrix = randomised(PHMMatrix(rows, cols, divisions=m, rank_one=rank_one, own_rule=own_rule))
    rule = matrix.rule if own_rule else torch.randn(m, m, m, dtype=torch.float64)
    want = torch.zeros(rows, cols, dtype=torch.float64)
    for i in range(m):
        block = torch.outer(matrix.left[i, :, 0], matrix.right[i, 0]) if rank_one else matrix.blocks[i]
        want += torch.kron(rule[i], block)
    got = matrix() if own_rule else matrix(rule=rule)
    assert got.shape == (rows, cols)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('rank', [1, 8])
def test_matched_factors_make_a_product_as_large_as_a_plain_matrix(rank):
    torch.manual_seed(0)
    plain = PlainMatrix(600, 400)
    matched, own = (FactorisedMatrix(600, 400, rank, matched_init) for matched_init in (True, False))
    for matrix in (plain, matched, own):
        matrix.reset_parameters()
    assert plain().std().item() == pytest.approx(0.01, rel=0.02)
    assert matched().std().item() == pytest.approx(0.01, rel=0.12)
    assert own().std().item() == pytest.approx(0.01**2 * rank**0.5, rel=0.12)
    assert own.left.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize('own_rule', [True, False], ids=['own-rule', 'given-rule'])
@pytest.mark.parametrize('rank_one', [True, False], ids=['rank-one', 'whole'])
def test_phm_has_the_parameters_of_the_formula(rank_one, own_rule):
    rows, cols, m = 12, 8, 4
    matrix = PHMMatrix(rows, cols, divisions=m, rank_one=rank_one, own_rule=own_rule)
    blocks = m * (rows // m + cols // m) if rank_one else rows * cols // m
    assert sum(p.numel() for p in matrix.parameters()) == blocks + (m**3 if own_rule else 0)


def test_rank_one_blocks_are_of_rank_one():
    m = 2
    matrix = randomised(PHMMatrix(6, 8, divisions=m, rank_one=True, own_rule=False))
    for i in range(m):  # a rule with a single one picks a block out of W
        rule = torch.zeros(m, m, m, dtype=torch.float64)
        rule[i, 0, 1] = 1
        block = matrix(rule=rule)[:3, 4:]
        assert torch.linalg.matrix_rank(block).item() == 1
        torch.testing.assert_close(block, torch.outer(matrix.left[i, :, 0], matrix.right[i, 0]))


def test_phm_starts_within_glorots_bounds():
    """Glorot: uniform within +-sqrt(6 / (rows + columns)) of each block; the rules are N(0, 0.01^2)."""
    torch.manual_seed(0)
    rows, cols, m = 120, 400, 2
    whole = PHMMatrix(rows, cols, divisions=m, rank_one=False, own_rule=True)
    whole.reset_parameters()
    rank_one = PHMMatrix(rows, cols, divisions=m, rank_one=True, own_rule=False)
    rank_one.reset_parameters()
    p, q = rows // m, cols // m
    for parameter, sides in ((whole.blocks, p + q), (rank_one.left, p + 1), (rank_one.right, 1 + q)):
        bound = (6 / sides) ** 0.5
        for block in parameter:  # each of its own draw
            assert 0.9 * bound < block.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not torch.equal(parameter[0], parameter[1])
    rules = torch.cat(
        [_fresh_rule(PHMMatrix(8, 8, divisions=8, rank_one=True, own_rule=True)) for _ in range(10)]
    )
    assert rules.std().item() == pytest.approx(0.01, rel=0.05)
    assert rules.mean().abs() < 1e-3


def _fresh_rule(matrix: PHMMatrix) -> torch.Tensor:
    matrix.reset_parameters()
    return matrix.rule.detach().flatten()


def test_plain_and_factorised_matrices():
    torch.manual_seed(0)
    plain = PlainMatrix(200, 300)
    plain.reset_parameters()
    assert plain() is plain.weight
    assert plain.weight.std().item() == pytest.approx(0.01, rel=0.02)
    factorised = FactorisedMatrix(200, 300, 40)
    factorised.reset_parameters()
    for factor in (factorised.left, factorised.right):
        assert factor.std().item() == pytest.approx(0.01, rel=0.05)
    randomised(factorised)
    want = sum(torch.outer(factorised.left[:, r], factorised.right[r]) for r in range(40))
    torch.testing.assert_close(factorised(), want)


@pytest.mark.parametrize(
    ('rows', 'cols', 'm', 'message'),
    [
        (6, 8, 0, 'divisions must be a positive int, got 0'),
        (6, 8, -2, 'got -2'),
        (6, 8, 2.0, r'got 2\.0'),
        (6, 8, True, 'got True'),
        (6, 8, 4, r'divisions 4 does not divide 6 channels: 6 / 4 = 1\.50'),
        (6, 8, 3, r'divisions 3 does not divide 8 channels: 8 / 3 = 2\.67'),
        (1, 8, 2, r'divisions 2 does not divide 1 channels: 1 / 2 = 0\.50'),
    ],
)
def test_divisions_that_do_not_fit_are_refused_with_the_numbers(rows, cols, m, message):
    with pytest.raises(ValueError, match=message):
        PHMMatrix(rows, cols, divisions=m, rank_one=True, own_rule=False)
