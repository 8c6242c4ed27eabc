"""An ONNX file in memory with fewer outputs, and without what only the others need.

ONNX Runtime computes every node of a graph, whichever outputs are asked for. The package onnx, which could cut a graph,
isn't needed to run one; so fields are read here as protobuf writes them. Those that are kept are copied as they stand.

    ModelProto 7: graph    GraphProto 1: node, 12: output    NodeProto 1: input, 2: output    ValueInfoProto 1: name
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | mmap.mmap

_GRAPH, _NODE, _OUTPUT = 7, 1, 12
_INPUTS, _RESULTS, _NAME = 1, 2, 1


class _Field(NamedTuple):
    number: int
    whole: memoryview  # with its tag
    content: memoryview


def pruned(model: Buffer, outputs: Iterable[str]) -> bytes:
    """A serialized model of which these outputs are left, and the nodes that they depend on.

    Args:
        model: of one graph, whose nodes stand in the order of their computation and hold no graphs themselves.
        outputs: their names.

    Raises:
        IndexError: if it breaks off. ValueError: for a number of more than 64 bits.
    """
    wanted = {name.encode() for name in outputs}
    needed = set(wanted)
    parts: list[bytes | memoryview] = []
    for field in reversed([*_fields(memoryview(model))]):
        if field.number != _GRAPH:
            parts.append(field.whole)
            continue
        kept = []
        for part in reversed([*_fields(field.content)]):
            if part.number == _OUTPUT and not _names(part, _NAME) <= wanted:
                continue
            if part.number == _NODE:
                if needed.isdisjoint(_names(part, _RESULTS)):
                    continue
                needed |= _names(part, _INPUTS)
            kept.append(part.whole)
        parts += [*kept, _varint(sum(map(len, kept))), _varint(_GRAPH << 3 | 2)]  # 2: with a length
    return b"".join(reversed(parts))


def output_names(model: Buffer) -> list[str]:
    """What the outputs of a serialized model are called. Raises as `pruned`, and UnicodeDecodeError."""
    graphs = (field for field in _fields(memoryview(model)) if field.number == _GRAPH)
    outputs = (part for graph in graphs for part in _fields(graph.content) if part.number == _OUTPUT)
    return [name.decode() for output in outputs for name in _names(output, _NAME)]


def _names(field: _Field, number: int) -> set[bytes]:
    return {bytes(part.content) for part in _fields(field.content) if part.number == number}


def _fields(message: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(message):
        start = at
        tag, at = _number(message, at)
        kind, content = tag & 7, at
        if kind == 2:
            length, content = _number(message, at)
            at = content + length
        else:  # 8 bytes, 4 bytes, or a varint
            at = at + 8 if kind == 1 else at + 4 if kind == 5 else _number(message, at)[1]
        yield _Field(tag >> 3, message[start:at], message[content:at])


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """A varint, seven bits a byte, the lowest first; and where it ends."""
    value = shift = 0
    while message[at] & 128:
        if shift == 63:  # numbers have 64 bits; without an end, an integer would grow with every byte of a damaged file
            raise ValueError("a number of more than 64 bits")
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
