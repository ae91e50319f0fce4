"""The frozen weights of a backbone: told by a record in small checkpoints, and restored or refused by it."""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.logging import print_log
from torch import Tensor

__all__ = ['FrozenBackbone', 'FrozenRecord', 'weights_hash']

_URL = ('http://', 'https://')


@dataclass(frozen=True)
class FrozenRecord:
    """What a checkpoint without the frozen weights says of them.

    Attributes:
        arch: The backbone's architecture, as plain data.
        source: Path or URL of the file that the weights were loaded from.
        prefix: Start of the encoder's keys in that file.
        sha256: `weights_hash` of the weights in the model.
    """

    arch: dict[str, Any]
    source: str
    prefix: str
    sha256: str

    def to_tensor(self) -> Tensor:
        """The record as bytes (N,) uint8: a form that every tool carries along with the weights."""
        return torch.tensor(list(json.dumps(asdict(self), sort_keys=True).encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, data: Tensor) -> FrozenRecord:
        """The record from `to_tensor`'s bytes.

        Raises:
            RuntimeError: if the bytes are no record.
        """
        try:
            return cls(**json.loads(bytes(data.flatten().tolist())))
        except (ValueError, TypeError, AttributeError) as e:
            raise RuntimeError(f'the record of the frozen weights in the checkpoint is broken: {e}') from e


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors: of their keys, shapes and bytes as float32, in the order of the keys."""
    sha = hashlib.sha256()
    for key in sorted(weights):
        value = weights[key].detach().to('cpu', torch.float32).contiguous()
        sha.update(f'{key} {tuple(value.shape)}\n'.encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


class FrozenBackbone:
    """Mixin of backbones whose stock weights are frozen, for checkpoints that leave these weights out.

    A state dict may hold a `FrozenRecord` under `RECORD_KEY` in their place. Loading it restores the weights from the
    file that the module's own `init_cfg` names, or from the record's, and refuses where none of them gives the
    recorded hash. A state dict without record and without these weights is accepted only by a backbone that has got
    them (from `init_weights` or a checkpoint) or can load them from its `init_cfg`: loading never leaves them at random.
    """

    RECORD_KEY = 'frozen_record'
    _frozen_set = False  # by init_weights or a checkpoint

    # ------------------------------------------------------------------------------ what a backbone must tell
    @abstractmethod
    def frozen_weights(self) -> dict[str, Tensor]:
        """The frozen parameters by key; empty for a backbone that is trained."""

    @abstractmethod
    def derived_keys(self) -> set[str]:
        """Keys of buffers that follow from the config."""

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """What must agree for the frozen weights to fit, as JSON data."""

    @abstractmethod
    def pretrained_source(self) -> tuple[str, str] | None:
        """Path or URL, and prefix, that `init_cfg` names; None without."""

    @abstractmethod
    def read_encoder(self, source: str, prefix: str) -> dict[str, Tensor]:
        """The weights in a file, under the keys of `frozen_weights`; `RuntimeError` or `OSError` if they do not fit."""

    # ------------------------------------------------------------------------------------------------ saving
    def frozen_source(self) -> tuple[str, str] | None:
        """The source of `init_cfg` if loading it gives exactly the weights that the backbone has; else None."""
        source = self.pretrained_source()
        if source is None:
            return None
        stored = self.read_encoder(*source)
        own = self.frozen_weights()
        same = weights_hash({k: stored[k] for k in own}) == weights_hash(own)
        return (_absolute(source[0]), source[1]) if same else None

    def frozen_record(self, source: str, prefix: str = '') -> FrozenRecord:
        """The record of the present weights, to be restored from a source."""
        return FrozenRecord(
            self.architecture(), _absolute(source), prefix, weights_hash(self.frozen_weights())
        )

    # ----------------------------------------------------------------------------------------------- loading
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        frozen = self.frozen_weights()
        record = state_dict.get(prefix + self.RECORD_KEY)
        if record is not None and frozen:
            self.restore_frozen(FrozenRecord.from_tensor(record))
            del state_dict[prefix + self.RECORD_KEY]
            self._fill(state_dict, prefix)
        elif missing := [k for k in frozen if prefix + k not in state_dict]:
            if not getattr(
                self, '_unaccounted', False
            ):  # torch's load_state_dict(strict=False) tells its caller
                self._demand_frozen(missing)
        else:
            self._frozen_set = True
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fill(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Put what the checkpoint left out into the state dict, from the module itself."""
        own = {**self.frozen_weights(), **{k: v for k, v in self.named_buffers() if k in self.derived_keys()}}
        for key, value in own.items():
            state_dict.setdefault(prefix + key, value)

    def _demand_frozen(self, missing: list[str]) -> None:
        """Have frozen weights from elsewhere, as a state dict lacks some.

        Raises:
            RuntimeError: if they would stay at random.
        """
        if self._frozen_set:
            return
        source = self.pretrained_source()
        if source is None:
            raise RuntimeError(
                f'the checkpoint lacks {len(missing)} frozen weights of {type(self).__name__} ({", ".join(missing[:3])}, '
                '...), and its init_cfg names no file with them: they would stay at random. Name one: '
                "backbone.init_cfg=dict(type='Pretrained', checkpoint=...)"
            )
        self._copy_frozen(self.read_encoder(*source))
        print_log(
            f'{type(self).__name__}: frozen weights, absent in the checkpoint, from {source[0]}',
            logger='current',
        )

    def restore_frozen(self, record: FrozenRecord) -> None:
        """Have the weights that a record tells of: keep them if they are there, else read them from a file.

        A URL is downloaded only where the backbone's own config names it; one of the record's is looked for in torch's
        cache.

        Raises:
            RuntimeError: if the architecture differs, or no file gives weights of the recorded hash.
        """
        own = self.architecture()
        if record.arch != own:
            keys = sorted(k for k in own.keys() | record.arch.keys() if own.get(k) != record.arch.get(k))
            differences = '; '.join(f'{k}: {record.arch.get(k)}, here {own.get(k)}' for k in keys)
            raise RuntimeError(f"the checkpoint's adapters were trained on another backbone: {differences}")
        if weights_hash(self.frozen_weights()) == record.sha256:
            self._frozen_set = True
            return
        tried = []
        for source, prefix, problem in self._candidates(record):
            if problem is None:
                try:
                    weights = self.read_encoder(source, prefix)
                except (OSError, RuntimeError, ValueError) as e:
                    problem = str(e)
                else:
                    found = weights_hash({k: weights[k] for k in self.frozen_weights()})
                    if found == record.sha256:
                        self._copy_frozen(weights)
                        print_log(
                            f'{type(self).__name__}: frozen weights restored from {source}', logger='current'
                        )
                        return
                    problem = f'other weights, of sha256 {found}'
            tried.append(f'  {source}: {problem}')
        raise RuntimeError(
            f'the checkpoint holds no frozen weights, only their record: from {record.source}, sha256 {record.sha256}. '
            'They were not found:\n' + '\n'.join(tried) + '\nPut the file there, or name it in the config '
            "(backbone.init_cfg=dict(type='Pretrained', checkpoint=...)), or ask for a full checkpoint, which "
            'tools/model_converters/adapter_checkpoint.py makes'
        )

    def _candidates(self, record: FrozenRecord) -> Iterator[tuple[str, str, str | None]]:
        """Sources to try, with their prefix, and why one cannot be."""
        named = self.pretrained_source()
        if named is not None:
            yield *named, None
            if (_absolute(named[0]), named[1]) == (record.source, record.prefix):
                return
        if not record.source.startswith(_URL):
            yield record.source, record.prefix, None
            return
        name = os.path.basename(urlparse(record.source).path)
        cached = os.path.join(torch.hub.get_dir(), 'checkpoints', name)
        if os.path.isfile(cached):
            yield cached, record.prefix, None
        else:
            yield record.source, record.prefix, 'not downloaded, as the config does not name it'

    @torch.no_grad()
    def _copy_frozen(self, weights: Mapping[str, Tensor]) -> None:
        for key, parameter in self.frozen_weights().items():
            parameter.copy_(weights[key])
        self._frozen_set = True


def _absolute(source: str) -> str:
    return source if source.startswith(_URL) else os.path.abspath(os.path.expanduser(source))
