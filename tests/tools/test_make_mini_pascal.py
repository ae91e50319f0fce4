"""The mini data set: geometry against brute force, labels against each other, files against real PASCAL files."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools' / 'dataset_converters'))

import make_mini_pascal
from make_mini_pascal import OutputFolderError, render_scene, write_dataset
from mini_pascal import geometry, layout, scene
from mini_pascal.camera import Camera
from mini_pascal.labels import CATEGORIES, voc_palette
from mini_pascal.light import Light
from mini_pascal.model import Surface
from mini_pascal.occlusion import Occlusion
from mini_pascal.render import NOTHING, Renderer
from mini_pascal.textures import Material

SIX_PARTS = {
    1: 'hair head lear rear lebrow rebrow leye reye mouth nose',
    2: 'torso neck',
    3: 'luarm ruarm',
    4: 'llarm rlarm lhand rhand',
    5: 'luleg ruleg',
    6: 'llleg rlleg lfoot rfoot',
}
PART_OF = {name: part for part, names in SIX_PARTS.items() for name in names.split()}
PERSON = 15


@pytest.fixture(scope='module')
def scenes() -> list[scene.Scene]:
    """Sixty tiny scenes, not square."""
    return [render_scene(5, index, (40, 56)) for index in range(60)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A small data set on disk."""
    root = tmp_path_factory.mktemp('mini pascal') / 'out'
    return write_dataset(root, train=5, val=3, size=(48, 64), seed=2)


def files(root: Path) -> dict[str, str]:
    """Digests of all files below a folder by relative path."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


# ------------------------------------------------------------------------------------------------ geometry


def in_round_cone(p: np.ndarray, length: float, ra: float, rb: float) -> np.ndarray:
    """Membership by definition: in one of the balls whose centres lie on the axis."""
    inside = np.zeros(p.shape[1], bool)
    for f in np.linspace(0, 1, 800):
        inside |= p[0] ** 2 + (p[1] - f * length) ** 2 + p[2] ** 2 <= (ra + f * (rb - ra)) ** 2
    return inside


def in_frustum(p: np.ndarray, length: float, ra: float, rb: float) -> np.ndarray:
    radius = ra + (rb - ra) * p[1] / length
    return (p[1] >= 0) & (p[1] <= length) & (p[0] ** 2 + p[2] ** 2 <= radius**2)


WEDGE = [(-0.5, 0.0), (0.6, 0.1), (0.1, 0.9), (-0.4, 0.7)]


def in_wedge(p: np.ndarray) -> np.ndarray:
    """In the polygon (every edge has it on its left), and between the two leaning sides."""
    inside = 0.4 - 0.3 * p[1] >= np.abs(p[2])
    for (x0, y0), (x1, y1) in zip(WEDGE, WEDGE[1:] + WEDGE[:1], strict=True):
        inside &= (x1 - x0) * (p[1] - y0) - (y1 - y0) * (p[0] - x0) >= 0
    return inside


SHAPES = {
    'sphere': (geometry.Sphere(), lambda p: (p**2).sum(0) <= 1),
    'round cone': (geometry.RoundCone(0.9, 0.5, 0.2), lambda p: in_round_cone(p, 0.9, 0.5, 0.2)),
    'capsule': (geometry.RoundCone(0.8, 0.3, 0.3), lambda p: in_round_cone(p, 0.8, 0.3, 0.3)),
    'frustum': (geometry.Frustum(0.8, 0.3, 0.6), lambda p: in_frustum(p, 0.8, 0.3, 0.6)),
    'box': (geometry.box((1.0, 0.6, 1.4)), lambda p: (np.abs(p) <= [[0.5], [0.3], [0.7]]).all(0)),
    'wedge': (geometry.prism(WEDGE, 0.8, taper=0.3), in_wedge),
}


def squashed(shape: geometry.Shape) -> geometry.Solid:
    """The shape under a rotation, three scales and a shift."""
    turn = geometry.rotation('y', 35) @ geometry.rotation('x', -50) @ geometry.rotation('z', 20)
    return geometry.Solid(shape, np.array([0.2, -0.1, -4.0]), turn, np.array([1.2, 0.9, 0.6]))


def random_rays(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rays from the origin towards the surroundings of the squashed shape."""
    rng = np.random.default_rng(1)
    directions = np.array([[0.2], [-0.1], [-4.0]]) + rng.uniform(-0.8, 0.8, (3, n))
    return np.zeros((3, 1)), directions / np.linalg.norm(directions, axis=0)


@pytest.mark.parametrize('name', SHAPES)
def test_first_hit_equals_walking_along_the_ray(name):
    shape, inside = SHAPES[name]
    solid = squashed(shape)
    origin, directions = random_rays(120)
    distance = solid.hit(origin, directions)
    steps = np.arange(2.5, 5.5, 0.004)
    for d, found in zip(directions.T, distance, strict=True):
        where = np.flatnonzero(inside(solid.to_shape(d[:, None] * steps)))
        if where.size:
            assert steps[where[0]] - 0.005 < found < steps[where[0]] + 0.002
        else:  # at most a graze shorter than one step
            assert np.isinf(found) or not inside(solid.to_shape(d[:, None] * (found + 0.01))).any()
    assert 20 < np.isfinite(distance).sum() < 115


@pytest.mark.parametrize('name', SHAPES)
def test_normals_equal_the_slope_between_neighbouring_hits(name):
    solid = squashed(SHAPES[name][0])
    origin, directions = random_rays(400)
    corners = []
    for shift in ((0, 0), (1e-5, 0), (0, 1e-5)):
        moved = directions + np.array([*shift, 0])[:, None]
        corners.append(origin + moved * solid.hit(origin, moved))
    hit = np.isfinite(np.concatenate(corners)).all(0)
    a, b, c = (corner[:, hit] for corner in corners)
    numeric = np.cross(b - a, c - a, axis=0)
    numeric /= np.linalg.norm(numeric, axis=0)
    cosine = (numeric * solid.normal(a)).sum(0)
    smooth = np.abs(cosine - 1) < 1e-3
    assert hit.sum() > 60
    assert smooth.mean() > 0.985  # the rest straddles an edge


@pytest.mark.parametrize('name', SHAPES)
def test_bounds_hold_every_visible_point(name):
    camera = Camera(height=0.0, pitch=4.0, fov=50.0, size=(50, 70), roll=3.0)
    solid = squashed(SHAPES[name][0])
    u0, u1, v0, v1 = camera.bounds(*solid.hull())
    u, v = np.random.default_rng(0).uniform(-0.6, 0.6, (2, 8000))
    hit = np.isfinite(solid.hit(camera.position[:, None], camera.rays(u, v)))
    assert hit.sum() > 100
    assert (u[hit] >= u0).all() and (u[hit] <= u1).all()
    assert (v[hit] >= v0).all() and (v[hit] <= v1).all()


def test_a_rendered_sphere_has_the_normals_of_the_formula():
    camera = Camera(height=1.5, pitch=-10.0, fov=60.0, size=(24, 32), roll=2.0)
    centre, radius = np.array([0.3, 1.2, -4.0]), 1.1
    ball = geometry.Solid(geometry.Sphere(), centre, np.eye(3), np.full(3, radius))
    picture = Renderer([Surface(ball, Material((0.5, 0.5, 0.5)))], camera, Light((0, 1, 1))).picture()
    right, up, back = camera.axes.T
    focal = 12 / np.tan(np.radians(30))
    seen = 0
    for i in range(24):
        for j in range(32):
            ray = (j + 0.5 - 16) / focal * right + (12 - i - 0.5) / focal * up - back
            ray /= np.linalg.norm(ray)
            to_centre = centre - (0, 1.5, 0)
            along = to_centre @ ray
            gap = radius**2 - (to_centre @ to_centre - along**2)
            if gap < 0:
                assert picture.index[i, j] == NOTHING
                continue
            normal = (along - np.sqrt(gap)) * ray - to_centre
            expected = np.array([normal @ right, normal @ up, normal @ back]) / radius
            assert np.allclose(picture.normals[i, j], expected, atol=1e-5)
            seen += 1
    assert seen > 60


def test_a_ball_throws_the_shadow_of_its_silhouette():
    centre, radius = np.array([0.4, 1.5, -5.0]), 0.7
    ball = geometry.Solid(geometry.Sphere(), centre, np.eye(3), np.full(3, radius))
    sun = np.array([0.5, 0.8, 0.2]) / np.linalg.norm([0.5, 0.8, 0.2])
    points = np.random.default_rng(0).uniform(-3, 3, (3, 3000)) + np.array([[0], [-3], [-5]])
    points[1] = 0
    lit = Occlusion([ball, None], sun, 0.0, 100.0).sunlit(points, np.ones(3000, int), np.zeros((2, 3000)))
    missed_by = np.linalg.norm(np.cross(centre[:, None] - points, sun[:, None], axis=0), axis=0)
    assert np.array_equal(lit == 0, missed_by < radius)
    assert (lit == 0).sum() > 50


# ------------------------------------------------------------------------------------------------ scenes


def test_normals_are_unit_vectors_that_face_the_viewer(scenes):
    for s in scenes:
        height, width = s.camera.size
        y, x = np.mgrid[:height, :width] + 0.5
        towards_viewer = -np.stack([x - width / 2, height / 2 - y, np.full_like(x, -s.camera.focal)], axis=-1)
        assert np.abs(np.linalg.norm(s.normals, axis=-1) - 1).max() < 1e-5
        assert (s.normals * towards_viewer).sum(-1).min() >= 0


def test_level_ground_has_the_cameras_up_vector(scenes):
    checked = 0
    for s in scenes:
        pitch, roll = np.radians([s.camera.pitch, s.camera.roll])
        up = [np.cos(pitch) * np.sin(roll), np.cos(pitch) * np.cos(roll), -np.sin(pitch)]
        for name in ('floor', 'grass', 'water'):
            found = s.normals[s.context == CATEGORIES[name].context]
            checked += len(found)
            assert np.allclose(found, up, atol=1e-6)
    assert checked > 10_000


def test_semseg_and_context_name_the_same_objects(scenes):
    to_voc = {row.context: row.voc for row in CATEGORIES.values()}
    seen = set()
    for s in scenes:
        expected = np.vectorize(to_voc.__getitem__)(s.context)
        assert np.array_equal(expected, s.semseg)
        seen |= set(np.unique(s.semseg).tolist())
    assert len(seen - {0, PERSON}) >= 8


def test_objects_tile_the_semantic_map_and_parts_their_objects(scenes):
    six = set()
    for s in scenes:
        count = np.zeros(s.semseg.shape, int)
        for thing in s.objects:
            count += thing.mask
            assert thing.mask.any()
            assert (s.semseg[thing.mask] == thing.class_index).all()
            for name, mask in thing.parts:
                assert mask.any(), name
                assert not (mask & ~thing.mask).any()
            if thing.class_index == PERSON:
                merged = np.zeros(s.semseg.shape, int)
                for name, mask in thing.parts:
                    merged[mask] = PART_OF[name]
                assert np.array_equal(merged > 0, thing.mask)
                six |= set(np.unique(merged).tolist())
        assert np.array_equal(count, s.semseg > 0)
    assert six == set(range(7))


def test_some_scenes_lack_people_and_some_a_salient_object(scenes):
    without_people = np.mean([not (s.semseg == PERSON).any() for s in scenes])
    without_saliency = np.mean([not s.saliency.any() for s in scenes])
    assert 0.05 <= without_people <= 0.30
    assert 0.01 <= without_saliency <= 0.15


def test_saliency_marks_whole_objects_and_never_the_background(scenes):
    for s in scenes:
        assert set(np.unique(s.saliency)) <= {0, 255}
        assert not s.saliency[s.semseg == 0].any()
        for thing in s.objects:
            assert len(np.unique(s.saliency[thing.mask])) == 1


def test_saliency_rule_on_a_hand_made_map():
    instance = np.full((40, 40), -1)
    instance[15:25, 15:25] = 3  # in the middle
    instance[0:4, 0:4] = 4  # small, in a corner
    instance[26:34, 14:26] = 7  # nearly as heavy
    semseg = np.where(instance >= 0, 7, 0)
    assert np.array_equal(scene.saliency(instance, semseg), (instance == 3) | (instance == 7))
    instance[instance != 4] = -1
    assert not scene.saliency(instance, semseg).any()
    assert not scene.saliency(np.full((40, 40), -1), semseg * 0).any()


def test_scenes_depend_on_seed_index_and_split_alone():
    first = render_scene(0, 1, (32, 48))
    again = render_scene(0, 1, (32, 48))
    for name in ('image', 'context', 'semseg', 'normals', 'saliency'):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    others = [
        render_scene(1, 1, (32, 48)),
        render_scene(0, 2, (32, 48)),
        render_scene(0, 1, (32, 48), split='val'),
    ]
    assert len({s.image.tobytes() for s in (first, *others)}) == 4


# ------------------------------------------------------------------------------------------------ files


def test_layout_is_complete_and_nothing_else_is_there(folder):
    names = {'train': [f'train_{k:06d}' for k in range(5)], 'val': [f'val_{k:06d}' for k in range(3)]}
    expected = {'mini_pascal.json', 'ImageSets/Context/train.txt', 'ImageSets/Context/val.txt'}
    for split, ids in names.items():
        assert (folder / 'ImageSets' / 'Context' / f'{split}.txt').read_text().split() == ids
        for name in ids:
            expected |= {
                f'JPEGImages/{name}.jpg',
                f'pascal-context/trainval/{name}.mat',
                f'semseg/VOC12/{name}.png',
                f'human_parts/{name}.mat',
                f'normals_distill/{name}.png',
                f'sal_distill/{name}.png',
            }
    assert set(files(folder)) == expected


def test_files_hold_the_scene(folder):
    for split, index in (('train', 4), ('val', 0)):
        name = layout.image_id(split, index)
        s = render_scene(2, index, (48, 64), split=split)
        assert np.array_equal(loadmat(folder / f'pascal-context/trainval/{name}.mat')['LabelMap'], s.context)
        labels = Image.open(folder / f'semseg/VOC12/{name}.png')
        assert labels.mode == 'P'
        assert np.array_equal(np.array(labels), s.semseg)
        coded = np.array(Image.open(folder / f'normals_distill/{name}.png'))
        assert np.abs(2.0 * coded / 255 - 1 - s.normals).max() <= 1 / 255 + 1e-6
        saliency = Image.open(folder / f'sal_distill/{name}.png')
        assert saliency.mode == 'L'
        assert np.array_equal(np.array(saliency), s.saliency)
        photo = np.array(Image.open(folder / f'JPEGImages/{name}.jpg')).astype(int)
        assert np.abs(photo - s.image).mean() < 6


def test_part_files_read_back_object_by_object(folder):
    for index in range(5):
        name = layout.image_id('train', index)
        s = render_scene(2, index, (48, 64))
        anno = loadmat(folder / f'human_parts/{name}.mat')['anno']
        assert anno[0][0][0][0] == name
        objects = anno[0][0][1]
        assert objects.shape == (1, len(s.objects))
        for stored, thing in zip(objects[0] if s.objects else [], s.objects, strict=True):
            assert (stored[0][0], stored[1][0][0]) == (thing.name, thing.class_index)
            assert np.array_equal(stored[2] > 0, thing.mask)
            parts = stored[3][0] if stored[3].size else []
            assert [part[0][0] for part in parts] == [part for part, _ in thing.parts]
            for part, (_, mask) in zip(parts, thing.parts, strict=True):
                assert np.array_equal(part[1] > 0, mask)


def test_an_image_without_objects_has_an_empty_object_list(tmp_path):
    layout.write_mat(tmp_path / 'a.mat', {'anno': layout.human_parts('a', [])})
    anno = loadmat(tmp_path / 'a.mat')['anno']
    assert list(anno[0][0][1][0]) == []


def nesting(value) -> object:
    """The shape of a loaded `.mat` value: fields of structs, kind and rank of everything else."""
    if value.dtype.names:
        return {value.dtype.names: tuple(nesting(value.flat[0][name]) for name in value.dtype.names)}
    return value.dtype.kind, value.ndim


def test_part_files_nest_like_the_real_ones(shared_data, folder):
    real = sorted((shared_data / 'pascal_real18' / 'human_parts').glob('*.mat'))
    if not real:
        pytest.skip('no real part files in the sample data')
    shapes, empty = {'real': set(), 'ours': set()}, {'real': set(), 'ours': set()}
    for kind, paths in (('real', real), ('ours', sorted((folder / 'human_parts').glob('*.mat')))):
        for path in paths:
            anno = loadmat(path)['anno']
            for thing in anno[0][0][1][0]:
                if thing[3].size:
                    thing_only = np.array([[thing]], anno[0][0][1].dtype)
                    shapes[kind].add((anno.shape, str(anno.dtype), str(nesting(thing_only))))
                    assert thing[3].shape[0] == 1
                else:
                    empty[kind].add((thing[3].shape, str(thing[3].dtype)))
    assert shapes['ours'] == shapes['real']
    assert empty['ours'] == empty['real']


def test_label_ids_agree_with_other_data_in_the_same_format(shared_data):
    rows = {(row.voc, row.context) for row in CATEGORIES.values()}
    maps = sorted((shared_data / 'scenes' / 'semseg' / 'VOC12').glob('*.png'))[:40]
    if not maps:
        pytest.skip('no label maps in the sample data')
    seen = set()
    for path in maps:
        semseg = np.array(Image.open(path)).astype(int)
        context = loadmat(path.parents[2] / 'pascal-context' / 'trainval' / f'{path.stem}.mat')['LabelMap']
        seen |= {(code // 1000, code % 1000) for code in np.unique(semseg * 1000 + context).tolist()}
    ours = {voc for voc, _ in rows}
    assert {pair for pair in seen if pair[0] in ours} <= rows


def test_palette_is_that_of_voc(shared_data):
    path = next(iter(sorted((shared_data / 'pascal_real18' / 'semseg').rglob('*.png'))), None)
    if path is None:
        pytest.skip('no real label map in the sample data')
    assert Image.open(path).getpalette()[: 21 * 3] == voc_palette()[: 21 * 3]


def test_bytes_depend_on_the_seed_and_not_on_the_workers(tmp_path, folder):
    write_dataset(tmp_path / 'again', train=5, val=3, size=(48, 64), seed=2, workers=2)
    assert files(tmp_path / 'again') == files(folder)
    write_dataset(tmp_path / 'other', train=1, val=0, size=(48, 64), seed=3)
    for path, digest in files(tmp_path / 'other').items():
        assert path.startswith('ImageSets') or digest != files(folder)[path]


# ------------------------------------------------------------------------------------------------ command line

TINY = ['--train', '1', '--val', '1', '--size', '32x40', '--workers', '0']


def test_command_writes_and_will_not_write_twice(tmp_path, capsys):
    out = tmp_path / 'with a space'
    assert make_mini_pascal.main([str(out), *TINY]) == 0
    assert Image.open(out / 'JPEGImages' / 'val_000000.jpg').size == (40, 32)
    before = files(out)
    assert make_mini_pascal.main([str(out), *TINY, '--seed', '9']) == 2
    assert 'finished data set: pass --overwrite' in capsys.readouterr().err
    assert files(out) == before
    assert make_mini_pascal.main([str(out), *TINY, '--seed', '9', '--overwrite']) == 0
    assert files(out) != before


def test_interrupted_run_is_told_from_a_finished_one(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(layout, 'write_scene', interrupted)
        assert make_mini_pascal.main([str(tmp_path), *TINY]) == 130
    assert not list(tmp_path.rglob('*.txt'))
    with pytest.raises(OutputFolderError, match='run that was interrupted'):
        write_dataset(tmp_path, train=1, val=0, size=(32, 32))
    write_dataset(tmp_path, train=1, val=0, size=(32, 32), overwrite=True)
    assert (tmp_path / 'ImageSets' / 'Context' / 'train.txt').read_text() == 'train_000000\n'


@pytest.mark.parametrize('options', [[], ['--overwrite']])
def test_foreign_folder_is_left_alone(tmp_path, capsys, options):
    keep = tmp_path / 'JPEGImages' / '2008_000002.jpg'
    keep.parent.mkdir()
    keep.write_text('precious')
    assert make_mini_pascal.main([str(tmp_path), *TINY, *options]) == 2
    assert 'not empty' in capsys.readouterr().err
    assert list(files(tmp_path)) == ['JPEGImages/2008_000002.jpg']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--train', '0', '--val', '0'], 'at least one image'),
        (['--train', '-1'], 'counts >= 0'),
        (['--size', '16'], '32 pixels'),
        (['--seed', '-1'], 'seed = -1'),
    ],
)
def test_numbers_out_of_range_are_named(tmp_path, capsys, options, message):
    assert make_mini_pascal.main([str(tmp_path / 'out'), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('text', ['', 'x', '10x', '1x2x3', '12.5', 'wide'])
def test_sizes_that_make_no_sense_are_refused(text):
    with pytest.raises(Exception, match='is no size'):
        make_mini_pascal.image_size(text)


def test_a_shape_that_is_none_is_refused():
    with pytest.raises(ValueError, match='swallows'):
        geometry.RoundCone(0.2, 0.5, 0.1)
