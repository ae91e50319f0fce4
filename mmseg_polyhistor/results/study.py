"""A study: the configs of many methods on one data set, encoder and recipe, as jobs that can be run one by one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..adapters.checks import check_names

__all__ = ['Job', 'Study', 'StudyRow']

KEYS = dict(
    title='what the study is called',
    data='config whose entries replace those of every method: data loaders and evaluators',
    schedule='config whose entries replace those of every method: optimiser, schedule, loops',
    rows='row -> dict(config=..., group=..., and what `StudyRow` has)',
    groups="group of rows -> learning rate of what they train in the encoder; that of DECODER is the decoders' too, in every row",
    encoders='name -> entries that the encoder gets, such as init_cfg',
    encoder='entries that every encoder gets, such as arch',
    reference='row that the gain compares with, with the same encoder',
)
OPTIONAL = dict(
    tasks='the tasks, where they are not those of the methods',
    data_root='replaces that of the data sets',
    model='merged into the model of every row',
    runtime='merged into the config of every row',
    comparisons='pairs of rows, (row, other): what is told of them is the difference of their results, seed by seed',
    paper='whether rows stand beside those of the Polyhistor paper that have the same config, in a table of gains and ranks',
    search='dict(encoder=name, rates=row -> learning rates that are tried, train=indices, val=indices): see Study.search_jobs',
)
DECODER = 'decoder'  # the group that every study has
SEARCH = {'encoder', 'rates', 'train', 'val'}


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A row of the study's table.

    Args:
        name: Its key in the study.
        config: Path of the method's config.
        group: The group whose learning rate its encoder takes.
        label: What readers call it. Defaults to the name.
        seeds: Seeds of its runs. Defaults to (0,).
        encoders: Encoders that it is run with; None for all. Defaults to None.
        options: Merged into its config last. Defaults to {}.
    """

    name: str
    config: Path
    group: str
    label: str
    seeds: tuple[int, ...] = (0,)
    encoders: tuple[str, ...] | None = None
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training.

    Args:
        row: Name of the row.
        encoder: Name of the encoder.
        seed: Its seed.
        rate: The learning rate of what the row trains in the encoder.
        searched: Whether it belongs to the search for a learning rate. Defaults to False.
    """

    row: str
    encoder: str
    seed: int
    rate: float
    searched: bool = False

    @property
    def name(self) -> str:
        """Its folder below the study's work dir."""
        if self.searched:
            return f'search/{self.encoder}/{self.row}/rate_{self.rate:g}'
        return f'{self.encoder}/{self.row}/seed_{self.seed}'


class Study:
    """A study, read from its file.

    The file is a text config of mmengine with the keys of `KEYS` and, where wanted, `OPTIONAL`; paths in it are relative
    to its folder. The config of a job is the method's, in which the entries of data and schedule, and those of every encoder,
    are replaced as a whole, and `model`, `runtime` and the row's `options` are merged in that order. The decoders of all rows
    learn at one rate, that of the group 'decoder', the encoder's part of a row at that of the row's group.

    Args:
        path: The file.
        changes: Changes of its keys, such as {'data_root': 'elsewhere'}; they add no group, encoder or row. Defaults to {}.

    Raises:
        FileNotFoundError: if the file, or one that it names, does not exist.
        ValueError: if a key is absent or unknown, or a row names what there is not; the message says where.
    """

    def __init__(self, path: str | Path, changes: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        cfg = Config.fromfile(self.path)
        for change in changes or {}:
            table, *below = change.split('.')
            if below and table in ('groups', 'encoders', 'rows'):
                check_names(f'{path}: change of {table}', below[:1], cfg.get(table, {}), table)
        cfg.merge_from_dict(dict(changes or {}))
        given = cfg.to_dict()
        if absent := [f'{key} ({what})' for key, what in KEYS.items() if key not in given]:
            raise ValueError(f'{path} is no study: it lacks {"; ".join(absent)}')
        if unknown := sorted(set(given) - set(KEYS) - set(OPTIONAL)):
            raise ValueError(
                f'{path}: unknown {unknown}; a study has {sorted(KEYS)} and may have {sorted(OPTIONAL)}'
            )
        self.settings = given
        self.title: str = given['title']
        self.tasks: tuple[str, ...] | None = tuple(given['tasks']) if given.get('tasks') else None
        self._data = Config.fromfile(self._file(given['data']))
        self._schedule = Config.fromfile(self._file(given['schedule']))
        self.rates: dict[str, float] = given['groups']
        self.encoders: dict[str, Mapping[str, Any]] = given['encoders']
        self.rows = {name: self._row(name, dict(row)) for name, row in given['rows'].items()}
        if DECODER not in self.rates:
            raise ValueError(
                f'{path}: groups must have {DECODER!r}, the learning rate of the decoders of all rows'
            )
        check_names(f'{path}: reference', (given['reference'],), self.rows, 'rows')
        self.reference: str = given['reference']
        self.paper = bool(given.get('paper', False))
        self.comparisons = [self._pair(pair) for pair in given.get('comparisons', ())]

    def _pair(self, pair: Sequence[str]) -> tuple[str, str]:
        where = f'{self.path}: comparisons'
        if isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f'{where}: must be pairs of rows, got {pair!r}')
        check_names(where, pair, self.rows, 'rows')
        return pair[0], pair[1]

    def _file(self, name: str) -> Path:
        path = self.path.parent / name
        if not path.is_file():
            raise FileNotFoundError(f'{self.path} names {name!r}, and {path} does not exist')
        return path

    def _row(self, name: str, row: dict[str, Any]) -> StudyRow:
        where = f'{self.path}: rows[{name!r}]'
        allowed = {'config', 'group', 'label', 'seeds', 'encoders', 'options'}
        if not {'config', 'group'} <= set(row) <= allowed:
            raise ValueError(f'{where} must have config and group, of {sorted(allowed)}, got {sorted(row)}')
        check_names(f'{where}: group', [row['group']], self.rates, 'groups')
        if row.get('encoders') is not None:
            check_names(f'{where}: encoders', row['encoders'], self.encoders, 'encoders')
        return StudyRow(
            name=name,
            config=self._file(row['config']),
            group=row['group'],
            label=row.get('label', name),
            seeds=tuple(row.get('seeds', (0,))),
            encoders=tuple(row['encoders']) if row.get('encoders') is not None else None,
            options=row.get('options', {}),
        )

    # ------------------------------------------------------------------------------------------------ jobs
    def jobs(
        self,
        rows: Sequence[str] | None = None,
        encoders: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> tuple[Job, ...]:
        """The trainings of the table, all or some: seed by seed, in it encoder by encoder, in it the reference first.

        Raises:
            ValueError: for a row, an encoder or a seed that there is not, or if nothing is left.
        """
        if rows is not None:
            check_names('rows', rows, self.rows, 'rows')
        if encoders is not None:
            check_names('encoders', encoders, self.encoders, 'encoders')
        if seeds is not None:
            check_names('seeds', seeds, {seed for row in self.rows.values() for seed in row.seeds}, 'seeds')
        found = [
            Job(row=row.name, encoder=encoder, seed=seed, rate=self.rates[row.group])
            for encoder in self.encoders
            for row in self.rows.values()
            for seed in row.seeds
            if (rows is None or row.name in rows)
            and (encoders is None or encoder in encoders)
            and (seeds is None or seed in seeds)
            and (row.encoders is None or encoder in row.encoders)
        ]
        if not found:
            raise ValueError(f'{self.path}: no run has these rows, encoders and seeds together')
        rows, encoders = list(self.rows), list(self.encoders)
        return tuple(
            sorted(
                found,
                key=lambda job: (
                    self.rows[job.row].seeds.index(job.seed),
                    encoders.index(job.encoder),
                    job.row != self.reference,
                    rows.index(job.row),
                ),
            )
        )

    def search_jobs(self, rows: Sequence[str] | None = None) -> tuple[Job, ...]:
        """The trainings of the search for learning rates, all or those of some rows; the validation images have no part in it.

        A part of the training images is held out: `search.train` and `search.val` are what mmengine's `BaseDataset` takes as
        `indices` of the training images, such as 512 for the first and -128 for the last of 640.

        Raises:
            ValueError: if the study has no search, or it is not as said, or names what there is not; or for a row that is
                not searched.
        """
        search = self.settings.get('search')
        if not search:
            raise ValueError(f'{self.path} has no search for learning rates')
        if set(search) != SEARCH:
            raise ValueError(f'{self.path}: search must have {sorted(SEARCH)}, got {sorted(search)}')
        check_names(f'{self.path}: search.rates', tuple(search['rates']), self.rows, 'rows')
        check_names(f'{self.path}: search.encoder', [search['encoder']], self.encoders, 'encoders')
        if rows is not None:
            check_names('rows', rows, search['rates'], 'rows of the search')
        return tuple(
            Job(row=row, encoder=search['encoder'], seed=0, rate=rate, searched=True)
            for row, rates in search['rates'].items()
            if rows is None or row in rows
            for rate in rates
        )

    def config(self, job: Job) -> Config:
        """The whole config of a training, without a file name."""
        row, settings = self.rows[job.row], self.settings
        cfg = Config.fromfile(row.config)
        for part in (self._data, self._schedule):
            for key, value in part.to_dict().items():
                cfg[key] = value
        cfg.merge_from_dict(dict(model=dict(settings.get('model', {}))))
        backbone = cfg.model.backbone
        alone = 'encoder' in backbone  # TaskEncoders: an encoder per task, each without tasks
        if self.tasks is not None:
            cfg.tasks = cfg.model.tasks = self.tasks
            backbone.tasks = self.tasks
        network = backbone.encoder if alone else backbone
        for part in (settings['encoder'], self.encoders[job.encoder]):
            for key, value in part.items():
                network[key] = value
        if data_root := settings.get('data_root'):
            for split in ('train', 'val', 'test'):
                cfg[f'{split}_dataloader'].dataset.data_root = data_root
        if job.searched:
            search = settings['search']
            train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
            own = {key: val[key] for key in ('pipeline', 'test_mode') if key in val}
            cfg.val_dataloader.dataset = {**copy.deepcopy(train), **own, 'indices': search['val']}
            train.indices = search['train']
        cfg.merge_from_dict(dict(settings.get('runtime', {})))
        cfg.merge_from_dict(dict(row.options))
        decoders = job.rate if row.group == DECODER else self.rates[DECODER]
        cfg.optim_wrapper.optimizer.lr = decoders
        cfg.optim_wrapper.paramwise_cfg = dict(custom_keys={'backbone.': dict(lr_mult=job.rate / decoders)})
        cfg.merge_from_dict(dict(randomness=dict(seed=job.seed)))
        return cfg
