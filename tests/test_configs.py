"""Every config loads, builds, trains what the paper's table says and takes a training step; metafiles and READMEs agree.

Counts, shapes and which parameters a gradient reaches need no values: for these every model is built at its own size on
the meta device. The training step, with losses and the config's optimiser, has values and runs at the config's own size
for Swin-T and the mini model. For Swin-S, B and L it runs with a small Swin in the place of the large one, everything
else as the config says: single-task fine-tuning of Swin-L alone would need 12.5 GB for weights, gradients and Adam's
moments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import mmpretrain
import mmseg
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample

from mmseg_polyhistor.benchmark import build_without_weights, read_benchmark
from mmseg_polyhistor.engine import count_parameters
from mmseg_polyhistor.evaluation.gain import REFERENCE_ROWS
from mmseg_polyhistor.tasks import get_task

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
EVERY = sorted(
    p.relative_to(CONFIGS).as_posix()
    for p in CONFIGS.glob('*/*.py')
    if p.parent.name not in ('_base_', 'studies')
)
# On MiT, or of one task in mmseg's own segmentors: their networks are held in test_configs_of_other_networks.py
PATHS = [path for path in EVERY if path.split('/')[0] not in ('mit', 'in_mmseg')]
PASCAL = [path for path in PATHS if path.endswith('_pascal.py')]
FOLDERS = sorted({path.split('/')[0] for path in EVERY})
ROWS = {row.config.relative_to(CONFIGS).as_posix(): row for row in read_benchmark(ROOT / 'model-index.yml')}
T = 4  # tasks
CHANNELS = {  # of the decoders, by the data
    'pascal': (21, 7, 1, 3),
    'mini-pascal': (21, 7, 1, 3),
    'pascal-edge': (21, 7, 1, 3, 1),
    'nyud': (40, 1, 3, 1),
}

# Trainable parameters of the encoder, without output norms; the paper prints them to two digits.
TABLE = {
    'single_task/swin-t_pascal.py': 110_071_272,
    'decoder_only/swin-t_pascal.py': 0,
    'multi_task/swin-t_pascal.py': 27_517_818,
    'bitfit/swin-t_pascal.py': 299_112,
    'relative_bias/swin-t_pascal.py': 93_288,
    'vpt/shallow_swin-t_pascal.py': 19_200,
    'vpt/deep_swin-t_pascal.py': 883_200,
    'phm/swin-t_pascal.py': 594_000,
    'compacter/swin-t_pascal.py': 229_664,
    'compacter/plusplus_swin-t_pascal.py': 114_848,
    'lora/swin-t_pascal.py': 317_952,
    'adapter/swin-t_pascal.py': 8_688_000,
    'low_rank_adapter/swin-t_pascal.py': 339_696,
    'shared_adapter/swin-t_pascal.py': 2_195_232,
    'hyperformer/swin-t_pascal.py': 72_772_304,
    'polyhistor/swin-t_pascal.py': 6_410_684,
    'polyhistor_lite/swin-t_pascal.py': 413_552,
}


# ------------------------------------------------------------------------------------ counts as formulas
class Swin(NamedTuple):
    """A size of the backbone."""

    width: int
    depths: tuple[int, ...]
    heads: int
    channels: int = 256  # of the decoders

    @property
    def widths(self):
        return [self.width * 2**i for i in range(4)]

    @property
    def blocks(self):
        """The width of every block."""
        return [d for d, depth in zip(self.widths, self.depths, strict=True) for _ in range(depth)]


SWIN = {
    'swin-t': Swin(96, (2, 2, 6, 2), 3),
    'swin-s': Swin(96, (2, 2, 18, 2), 3),
    'swin-s-in22k': Swin(96, (2, 2, 18, 2), 3),
    'swin-b': Swin(128, (2, 2, 18, 2), 4),
    'swin-b-in22k': Swin(128, (2, 2, 18, 2), 4),
    'swin-l-in22k': Swin(192, (2, 2, 18, 2), 6),
    'swin-pico': Swin(48, (1, 1, 2, 1), 3, 128),
}
TINY = SWIN['swin-t']


def decoders(swin, channels=CHANNELS['pascal']):
    """Output norms and decoders: a Linear per map, a 1x1 conv without bias, BN, a 1x1 conv to the task's channels."""
    e, maps = swin.channels, sum(swin.widths)
    shared = maps * e + 4 * e + 4 * e * e + 2 * e
    return len(channels) * (2 * maps + shared) + sum(e * n + n for n in channels)


def norms(swin):
    """Norms of the patch embedding, the blocks and the patch mergings."""
    return 2 * swin.width + sum(4 * d for d in swin.blocks) + sum(8 * d for d in swin.widths[:3])


def tables(swin):
    return sum(13 * 13 * depth * swin.heads * 2**i for i, depth in enumerate(swin.depths))


def patch_embed(swin):
    return 4 * 4 * 3 * swin.width + swin.width


def patch_merging(swin):
    return sum(4 * d * 2 * d for d in swin.widths[:3])


def encoder(swin):
    linear = sum(3 * d * d + 3 * d + d * d + d + 2 * 4 * d * d + 4 * d + d for d in swin.blocks)
    return linear + norms(swin) + tables(swin) + patch_embed(swin) + patch_merging(swin)


def bottleneck(d):
    return 2 * d * (d // 2) + d // 2 + d + 2 * d


def hyper_network(inputs):
    return inputs * 128 + 128 + 128 * 64 + 64 + 2 * 64


def hyperformer(swin, tasks=T):
    adapters = sum(2 * 65 * (2 * d * (d // 8) + d + d // 8 + 2 * d) for d in swin.blocks)
    return tasks * 512 + len(swin.blocks) * hyper_network(512) + adapters


def decomposed_heads(d, ratio, k):
    n = d // ratio
    return 65 * (2 * max(n // k, 1) * (d + n) + d + n + 2 * d)


def polyhistor(swin, tasks=T, ratio=16, k=4):
    return tasks * 512 + sum(hyper_network(512) + decomposed_heads(d, ratio, k) for d in swin.blocks)


def polyhistor_lite(swin, tasks=T):
    scales = [d // swin.width for d in swin.blocks]
    embeddings = 512 * (tasks + sum(scales))
    kernels = sum(s**3 + 2 * s**2 for s in scales if s > 1)
    return embeddings + kernels + hyper_network(2 * 512) + decomposed_heads(swin.width, 2, 4)


def mtlora(swin, rank):
    """Low-rank pairs of qkv, proj, fc1, fc2; of proj, fc1, fc2 with rank 4 per task; and the stock parameters."""
    shared = rank * sum(4 * d + 2 * d + 5 * d + 5 * d for d in swin.blocks)
    own = T * 4 * sum(2 * d + 5 * d + 5 * d for d in swin.widths)
    return shared + own + norms(swin) + tables(swin) + patch_embed(swin) + patch_merging(swin)


FORMULAS = {
    'single_task': lambda swin, tasks=T: tasks * encoder(swin),
    'decoder_only': lambda swin, tasks=T: 0,
    'multi_task': lambda swin, tasks=T: encoder(swin),
    'lora': lambda swin, tasks=T: tasks * sum(4 * (d + 3 * d) + 2 * d for d in swin.blocks),
    'adapter': lambda swin, tasks=T: tasks * sum(map(bottleneck, swin.blocks)),
    'hyperformer': hyperformer,
    'polyhistor': polyhistor,
    'polyhistor_lite': polyhistor_lite,
}
# What the paper has no number for: one copy for all tasks is a quarter, and the rest follows from the blocks.
OTHERS = {
    'bitfit/shared_swin-t_pascal.py': 299_112 // T,
    'phm/shared_swin-t_pascal.py': 594_000 // T,
    'compacter/shared_swin-t_pascal.py': 229_664 // T,
    'lora/shared_swin-t_pascal.py': 317_952 // T,
    'low_rank_adapter/shared_swin-t_pascal.py': 339_696 // T,
    'lora/plain_swin-t_pascal.py': 317_952 - T * sum(2 * d for d in TINY.blocks),
    'adaptformer/swin-t_pascal.py': T * sum(2 * 64 * d + 64 + d for d in TINY.blocks),
    'mtlora/r16_swin-t_pascal.py': mtlora(TINY, 16),
    'mtlora/r32_swin-t_pascal.py': mtlora(TINY, 32),
    'mtlora/r64_swin-t_pascal.py': mtlora(TINY, 64),
    'polyhistor/swin-pico_mini-pascal.py': polyhistor(SWIN['swin-pico'], ratio=8, k=2),
}


def size_of(path):
    """The key of `SWIN`."""
    return re.search(r'swin-[a-z](ico|-in22k)?(?=_)', path).group()


def channels_of(path):
    """Of the decoders."""
    return CHANNELS[path.removesuffix('.py').split('_')[-1]]


def expected_encoder(path):
    known = TABLE | OTHERS
    if path in known:
        return known[path]
    return FORMULAS[path.split('/')[0]](SWIN[size_of(path)], tasks=len(channels_of(path)))


def expected_decoder(path):
    return decoders(SWIN[size_of(path)], channels_of(path))


@pytest.mark.parametrize('folder', FORMULAS)
def test_the_formulas_give_the_table(folder):
    """The formulas that larger backbones are held against."""
    assert FORMULAS[folder](TINY) == TABLE[f'{folder}/swin-t_pascal.py']
    assert decoders(TINY) == 2_549_024


# ------------------------------------------------------------------------------------------- the models
@pytest.fixture(scope='module')
def built():
    """Config, and model without values, of a path; the last one is kept, as tests come grouped by path."""
    last = {}

    def build(path):
        if path not in last:
            last.clear()
            cfg = Config.fromfile(CONFIGS / path)
            last[path] = cfg, build_without_weights(cfg.model)
        return last[path]

    return build


@pytest.fixture(params=PATHS, scope='module')
def path(request):
    return request.param


def test_data_sets_heads_and_backbone_have_the_same_tasks(path, built):
    cfg, model = built(path)
    assert set(model.backbone.tasks) == set(model.decode_heads) == set(model.tasks)
    for split in ('train', 'val', 'test'):
        dataset = DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, lazy_init=True))
        assert set(dataset.metainfo['tasks']) == set(model.tasks), split


def by_name(model):
    """Trainable parameters, told apart by the names that the configs' backbones give them."""
    norms = re.compile(r'backbone\.(output_norms|encoders\.\w+\.norm\d)\.')
    encoder = decoder = 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith('backbone.') and not norms.match(name):
            encoder += parameter.numel()
        else:
            decoder += parameter.numel()
    return encoder, decoder


def test_trained_parameters_are_as_many_as_table_and_formulas_say(path, built):
    _, model = built(path)
    counts = count_parameters(model)
    assert counts.encoder == expected_encoder(path)
    assert counts.decoder == expected_decoder(path)
    assert (counts.encoder, counts.decoder) == by_name(model)
    assert counts.total == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_at_its_own_size_a_gradient_reaches_every_trained_parameter_and_no_other(path, built):
    _, model = built(path)
    assert all(p.is_meta for p in model.parameters())
    logits = model.train()(torch.empty(2, 3, 32, 32, device='meta'))
    assert {t: tuple(x.shape) for t, x in logits.items()} == {
        t: (2, get_task(t).channels, 8, 8) for t in model.tasks
    }
    sum(x.square().mean() for x in logits.values()).backward()
    wrong = [n for n, p in model.named_parameters() if (p.grad is not None) != p.requires_grad]
    assert not wrong


SMALL = dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])


def shrink(model):
    """Put a small Swin into the config of a model with a large one, and random weights into all: nothing is loaded here."""
    backbone = model.backbone.get('encoder', model.backbone)
    backbone.pop('init_cfg', None)
    if backbone.arch in ('small', 'base', 'large'):
        backbone.arch = SMALL
        model.decode_heads.in_channels = [32, 64, 128, 256]


def batch_for(tasks, size=(64, 64)):
    """Two random images with labels, as a data loader hands them over."""
    torch.manual_seed(0)
    samples = []
    for number in range(2):
        sample = SegDataSample(metainfo=dict(img_path=f'{number}.jpg', img_shape=size, ori_shape=size))
        for spec in map(get_task, tasks):
            if spec.kind == 'unit_vector':
                label = F.normalize(torch.randn(3, *size), dim=0)
            elif spec.kind == 'scalar':
                label = 10 * torch.rand(1, *size)
            else:
                label = torch.randint(max(spec.channels, 2), (1, *size), dtype=torch.uint8)
            sample.set_data({spec.gt_field: PixelData(data=label)})
        samples.append(sample)
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


def test_a_training_step(path):
    """Preprocessor, losses, backward pass and the config's own optimiser; frozen weights stay to the bit."""
    cfg = Config.fromfile(CONFIGS / path)
    shrink(cfg.model)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    # the wrapper's own `param_groups` has a dummy group for the base rate beside those of a `paramwise_cfg`
    in_optimizer = {p for group in optimizer.optimizer.param_groups for p in group['params']}
    assert in_optimizer == {p for p in model.parameters() if p.requires_grad}
    optimizer.zero_grad = lambda **kwargs: (
        None
    )  # train_step would clear the gradients, which are looked at below
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    log = model.train_step(batch_for(model.tasks), optimizer)

    assert all(torch.isfinite(value).all() for value in log.values())
    assert {f'loss_{task}' for task in model.tasks} < set(log)
    for name, p in model.named_parameters():
        if not p.requires_grad:
            assert p.grad is None and torch.equal(p, before[name]), name
        else:
            assert p.grad.isfinite().all(), name
            assert not torch.equal(p, before[name]) or p.grad.abs().max() < 1e-6, name


@pytest.mark.parametrize('path', PASCAL)
def test_the_recipe_is_the_papers(path):
    """The same for every method."""
    cfg = Config.fromfile(CONFIGS / path)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('Adam', 1e-4, 1e-4)
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (60, 12)
    (decay,) = cfg.param_scheduler
    assert (decay.type, decay.power, decay.eta_min, decay.end) == ('PolyLR', 1.0, 0.0, 60)
    assert decay.convert_to_iter_based
    assert 'loss_decode' not in cfg.model.decode_heads  # so the table of tasks decides
    weights = {task: get_task(task).loss['loss_weight'] for task in cfg.model.tasks}
    assert weights == dict(semseg=1, human_parts=2, saliency=5, normals=10)
    pipeline = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    assert pipeline['MultiTaskRandomFlip'].prob == 0.5
    assert pipeline['MultiTaskRandomRotate'].degree == 20
    assert pipeline['MultiTaskRandomRotate'].scale_range == (0.75, 1.25)
    assert pipeline['MultiTaskResize'].scale == (512, 512)


OTHER_DATA = [path for path in PATHS if path.endswith(('_nyud.py', '_pascal-edge.py'))]


@pytest.mark.parametrize('path', OTHER_DATA)
def test_with_other_data_the_method_is_that_of_pascal_context(path):
    """Method, optimiser and encoder are the same; tasks, data and the number of epochs are not."""
    cfg = Config.fromfile(CONFIGS / path)
    pascal = Config.fromfile(CONFIGS / path.split('/')[0] / 'swin-t_pascal.py')
    for part in (cfg.model, pascal.model, cfg.model.backbone, pascal.model.backbone):
        part.pop('tasks')
    assert cfg.model == pascal.model
    assert cfg.optim_wrapper == pascal.optim_wrapper
    if path.endswith('_pascal-edge.py'):
        for split in ('train', 'val'):
            dataset = cfg[f'{split}_dataloader'].dataset
            assert set(dataset.pop('tasks')) == {'semseg', 'human_parts', 'saliency', 'normals', 'edge'}
            assert cfg[f'{split}_dataloader'] == pascal[f'{split}_dataloader']
        assert (cfg.train_cfg, cfg.param_scheduler) == (pascal.train_cfg, pascal.param_scheduler)
        return
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 8
    (decay,) = cfg.param_scheduler
    assert (cfg.train_cfg.max_epochs, decay.end) == (100, 100)
    assert dict(decay, end=60) == pascal.param_scheduler[0]


def test_eight_methods_run_on_nyud_and_five_with_edges():
    """Those that other backbones have too."""
    methods = {path.split('/')[0] for path in PASCAL if '/swin-s_' in path}
    assert {path.split('/')[0] for path in OTHER_DATA if path.endswith('_nyud.py')} == methods
    assert len(methods) == 8
    with_edges = {path.split('/')[0] for path in OTHER_DATA if path.endswith('_pascal-edge.py')}
    assert with_edges == {'polyhistor', 'polyhistor_lite', 'decoder_only', 'multi_task', 'single_task'}


# -------------------------------------------------------------------------------- pretrained weights
ARCH = {'Swin-T': 'tiny', 'Swin-S': 'small', 'Swin-B': 'base', 'Swin-L': 'large'}


@pytest.mark.parametrize('path', PASCAL)
def test_the_weights_are_those_of_backbone_and_pretraining(path):
    """By the file's name: size, window, and ImageNet-22k without a second training on ImageNet-1k."""
    model = Config.fromfile(CONFIGS / path).model
    backbone = model.backbone.get('encoder', model.backbone)
    arch = ARCH[ROWS[path].backbone]
    assert backbone.arch == arch
    data = {'ImageNet-1k': '[-_](?!22k)', 'ImageNet-22k': '_22k[_.]'}[ROWS[path].pretraining]
    assert re.search(rf'/swin_{arch}_patch4_window7_224{data}', backbone.init_cfg.checkpoint)


# The Swin authors' ImageNet-22k weights of Swin-S, which OpenMMLab has not converted: nothing installed here can vouch
# for this address, the loader reads the authors' key names.
NOT_OF_OPENMMLAB = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.8/swin_small_patch4_window7_224_22k.pth'


def test_openmmlab_lists_every_file_of_weights_but_one():
    """mmpretrain's metafile or a config of mmseg names the files, so they exist; `NOT_OF_OPENMMLAB` says of which not."""
    configs = [Path(package.__file__).parent / '.mim/configs' for package in (mmpretrain, mmseg)]
    if not all(folder.is_dir() for folder in configs):
        pytest.skip('mmpretrain or mmseg is installed without its configs')
    listed = (configs[0] / 'swin_transformer/metafile.yml').read_text()
    listed += ''.join(file.read_text() for file in (configs[1] / 'swin').glob('*.py'))
    models = [Config.fromfile(file) for file in (CONFIGS / '_base_/models').glob('swin-*.py')]
    urls = {cfg.checkpoint for cfg in models if 'checkpoint' in cfg}
    assert len(urls) == 6
    assert {url for url in urls if url not in listed} == {NOT_OF_OPENMMLAB}


# ---------------------------------------------------------------------------------------- metafiles
def test_every_config_has_one_row_in_a_metafile_of_its_folder():
    assert sorted(ROWS) == EVERY
    assert (
        len({row.name for row in ROWS.values()})
        == len(read_benchmark(ROOT / 'model-index.yml'))
        == len(EVERY)
    )
    for path, row in ROWS.items():
        assert row.name == path.removesuffix('.py').replace('/', '_')
        assert path in (CONFIGS / path).parent.joinpath('metafile.yml').read_text()


def test_mim_reads_the_index():
    """`mim` reads it with this package, which mmpretrain brings along."""
    loader = pytest.importorskip('modelindex.load_model_index')
    index = loader.load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    index.check(silent=True)
    assert not index.check_errors
    assert {model.name for model in index.models} == {row.name for row in ROWS.values()}
    for model in index.models:
        assert model.full_model.paper and not model.check_errors
        assert model.results is None  # the paper's figures must not pass for ours


@pytest.mark.parametrize('path', PATHS)
def test_metafile_and_header_have_the_counts(path):
    row, encoder = ROWS[path], expected_encoder(path)
    assert (row.encoder, row.total) == (encoder, encoder + expected_decoder(path))
    header = re.match(r'(#.*\n)+', (CONFIGS / path).read_text()).group()
    printed = re.search(r'([\d.]+) M\s+(?:# )?encoder parameters', header)
    if 'mini' not in path and encoder:
        assert printed and printed[1] == f'{encoder / 1e6:.2f}'


def test_the_papers_rows_are_the_seventeen_of_its_table():
    assert {path for path, row in ROWS.items() if row.paper} == set(TABLE)


@pytest.mark.parametrize('path', TABLE)
def test_the_paper_prints_the_counts(path):
    """To two digits; it rounds everywhere but at multi-task fine-tuning, 27,517,818 and 30,066,842."""
    printed = ROWS[path].paper
    for ours, theirs in ((TABLE[path], printed.encoder), (TABLE[path] + 2_549_024, printed.total)):
        assert theirs == (ours // 10_000 / 100 if path.startswith('multi_task') else round(ours / 1e6, 2))


@pytest.mark.parametrize('path', TABLE)
def test_the_papers_metrics_give_its_gain(path):
    """The mean of the relative improvements, signed; one row is inconsistent in itself."""
    results = ROWS[path].paper.results
    single = ROWS['single_task/swin-t_pascal.py'].paper.results
    signs = dict(semseg=1, human_parts=1, saliency=1, normals=-1)
    gain = 100 / T * sum(sign * (results[t] - single[t]) / single[t] for t, sign in signs.items())
    if path.startswith('multi_task'):
        assert (results['gain'], round(gain, 3)) == (2.23, 2.445)
    else:
        assert gain == pytest.approx(results['gain'], abs=0.0101)


def test_the_reference_of_the_gain_is_the_papers_single_task_row():
    results = dict(ROWS['single_task/swin-t_pascal.py'].paper.results)
    assert results.pop('gain') == 0
    assert REFERENCE_ROWS['paper_pascal_context_swin_t'] == results


# ------------------------------------------------------------------------------------------ READMEs
@pytest.fixture(params=FOLDERS)
def folder(request):
    return request.param


def test_the_readme_lists_every_config_with_its_counts(folder):
    text = (CONFIGS / folder / 'README.md').read_text()
    rows = {path: row for path, row in ROWS.items() if path.startswith(f'{folder}/')}
    for path, row in rows.items():
        file = Path(path).name
        line = (
            f'| [`{file}`]({file}) | {row.method} | {row.backbone} | {row.pretraining} '
            f'| {row.encoder:,} | {row.total:,} |'
        )
        assert line in text.splitlines()
    linked = set(re.findall(r'\]\(([^)]+)\)', text))
    assert not [link for link in linked if not (CONFIGS / folder / link).exists()]
    assert {Path(path).name for path in rows} == {
        link for link in linked if link.endswith('.py') and '/' not in link
    }
    counts = {f'{n:,}' for row in rows.values() for n in (row.encoder, row.total)}
    assert set(re.findall(r'\b\d{1,3}(?:,\d{3})+\b', text)) <= counts, 'a number that no metafile has'
    for command in re.findall(r'python tools/train\.py (\S+)', text):
        assert (ROOT / command).is_file()
        assert command.startswith(f'configs/{folder}/')


def test_the_readme_has_the_papers_rows(folder):
    text = (CONFIGS / folder / 'README.md').read_text()
    lines = []
    for path, row in ROWS.items():
        if row.paper and path.startswith(f'{folder}/'):
            r = row.paper.results
            figures = [
                row.paper.encoder,
                row.paper.total,
                *(r[t] for t in ('semseg', 'human_parts', 'saliency', 'normals')),
            ]
            gain = f'{r["gain"]:+.2f}' if r['gain'] else '0'
            lines.append(' | '.join(['| ' + row.method, *(f'{x:.2f}' for x in figures), gain]) + ' |')
    assert [line for line in lines if line not in text.splitlines()] == []
    assert ('not results of this repository' in text) == bool(lines)
