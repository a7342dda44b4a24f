"""Tensors by name in a directory of safetensors files, written by all processes together, checked when they are read.

torch.distributed.checkpoint writes and reads them through its safetensors storage, which stores and restores any tensor of
numbers and pickles nothing; loading it takes as long as half of torch, so that is done when it is used. It serialises a file in
memory before writing it, so a file holds at most BUCKET_BYTES (or one tensor): that, twice, is what saving adds to a process's
memory. Its reader checks nothing; the digests here do.
"""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from torch import Tensor

from txlplan.engine.world import World
from txlplan.errors import CheckpointError

BUCKET_BYTES = 32 * 2**20
Digests = dict[str, dict[str, str]]
"""SHA-256 of each tensor's bytes, by file and tensor name."""
Specification = tuple[tuple[int, ...], torch.dtype]
"""Shape and dtype of a tensor."""
_READ_BYTES = 2**22
_DAMAGED_HINT = "use an earlier checkpoint: remove this one, and --resume takes the newest that is left"


def write(directory: Path, tensors: Mapping[str, Tensor], world: World) -> None:
    """Write the tensors of all processes. One that several of them hold under the same name is written once."""
    import torch.distributed.checkpoint as dcp

    writer = dcp.HuggingFaceStorageWriter(str(directory), fqn_to_index_mapping=_buckets(tensors, world), save_distributed=True)
    with _quiet():
        dcp.save(dict(tensors), storage_writer=writer, no_dist=world.size == 1)


def read(directory: Path, into: Mapping[str, Tensor]) -> None:
    """Fill the given tensors, which are in the directory by name, shape and dtype (`specifications` says)."""
    import torch.distributed.checkpoint as dcp

    with _quiet(), _damage_named(directory):
        dcp.load(dict(into), storage_reader=dcp.HuggingFaceStorageReader(str(directory)), no_dist=True)


def specifications(directory: Path) -> dict[str, Specification]:
    """Shape and dtype of every tensor in the directory."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    with _damage_named(directory):
        found = dcp.HuggingFaceStorageReader(str(directory)).read_metadata().state_dict_metadata
    return {
        name: (tuple(entry.size), entry.properties.dtype)
        for name, entry in found.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def digests(directory: Path) -> Digests:
    """The digest of every tensor as it is on disk, a few MiB at a time."""
    return {path.name: dict(_file_digests(path)) for path in sorted(directory.glob("*.safetensors"))}


def verify(directory: Path, expected: Digests) -> None:
    """Raise CheckpointError that names the file, and the tensor in it, that is not what was written."""
    for file_name, tensors in expected.items():
        path = directory / file_name
        if not path.exists():
            raise CheckpointError(f"{path}: missing from the checkpoint", hint=_DAMAGED_HINT)
        found = dict(_file_digests(path))
        for name, digest in tensors.items():
            if found.get(name) != digest:
                raise CheckpointError(f"{path}: tensor {name!r} is damaged (its SHA-256 differs)", hint=_DAMAGED_HINT)


def _buckets(tensors: Mapping[str, Tensor], world: World) -> dict[str, int]:
    """Which file (from 1) each tensor of any process goes to."""
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    if world.size > 1:
        gathered: list[dict[str, int]] = [{} for _ in range(world.size)]
        dist.all_gather_object(gathered, sizes)
        sizes = {name: nbytes for one in gathered for name, nbytes in one.items()}
    buckets: dict[str, int] = {}
    bucket, filled = 1, 0
    for name, nbytes in sizes.items():
        if filled and filled + nbytes > BUCKET_BYTES:
            bucket, filled = bucket + 1, 0
        buckets[name] = bucket
        filled += nbytes
    return buckets


def _file_digests(path: Path) -> Iterator[tuple[str, str]]:
    """Digest of each tensor of one file: an 8-byte little-endian header length, a JSON header, the bytes (safetensors)."""
    with path.open("rb") as stream:
        header, start = _header(path, stream)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            low, high = entry["data_offsets"]
            yield name, _digest(path, name, stream, start + low, high - low)


def _header(path: Path, stream: BinaryIO) -> tuple[dict[str, Any], int]:
    try:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > path.stat().st_size:
            raise ValueError(f"header of {length} bytes")
        header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        if not all(len(entry["data_offsets"]) == 2 for entry in header.values()):
            raise ValueError("no offsets")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{path}: its header is damaged or cut short", hint=_DAMAGED_HINT) from None
    return header, 8 + length


def _digest(path: Path, name: str, stream: BinaryIO, offset: int, nbytes: int) -> str:
    digest, left = hashlib.sha256(), nbytes
    stream.seek(offset)
    while left > 0:
        block = stream.read(min(left, _READ_BYTES))
        if not block:
            raise CheckpointError(f"{path}: cut short in tensor {name!r}: {left} bytes are missing", hint=_DAMAGED_HINT)
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


@contextmanager
def _damage_named(directory: Path) -> Iterator[None]:
    """What the storage raises for a file that it cannot read, as an error of ours."""
    from safetensors import SafetensorError
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except (SafetensorError, OSError, KeyError, CheckpointException) as error:
        raise CheckpointError(f"{directory}: cannot be read as a checkpoint: {error}", hint=_DAMAGED_HINT) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that one process saves alone: it is meant to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
