"""Reading of one field of a structure in a MATLAB file: an array of 8-bit values, as SBD stores its masks.

The files are of level 5, as "MAT-File Format" (MathWorks) describes it: a header of 128 bytes, then data elements. An
element is a tag with its type and size, and its data. `scipy.io.loadmat` reads such files too, but crashes the process
on some damaged ones. This module compares every size with the bytes that exist before it uses the size, and skips all
other variables and fields.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fcnlab.data.datasets.image_file import Pixels

_HEADER, _TAG, _ALIGNMENT = 128, 8, 8
"""Bytes of the header of a file and of the tag of an element, and the multiple to which elements are padded."""

_INT8, _UINT8, _INT32, _UINT32, _MATRIX, _COMPRESSED, _UTF8 = 1, 2, 5, 6, 14, 15, 16
"""Types of data elements."""

_STRUCTURE, _NUMERIC, _COMPLEX = 2, range(6, 16), 0x0800
"""Classes of arrays (numeric: double to uint64), and the flag of complex values."""

_LARGEST_VARIABLE = 64 * 2**20
"""Limit of the decompressed bytes of a variable. The masks of SBD have up to 500 x 500 pixels."""


class MatFileError(ValueError):
    """A MATLAB file is damaged, is not of level 5 or does not contain the field."""


class _Element(NamedTuple):
    """A data element: its type, its bytes, and the byte order of the file in the notation of `struct`."""

    type: int
    data: memoryview
    order: str

    def elements(self) -> Iterator[_Element]:
        """Yield the elements that the data consist of."""
        start, end = 0, len(self.data)
        while start < end:
            if end - start < _TAG:
                raise MatFileError("the file ends within the tag of an element")
            type_, size = struct.unpack_from(f"{self.order}II", self.data, start)
            first = start + _TAG
            if small_size := type_ >> 16:  # up to 4 bytes of data are in the tag
                type_, size, first = type_ & 0xFFFF, small_size, start + 4
            available = 4 if small_size else end - first
            if size > available:
                raise MatFileError(f"an element of {size} bytes has space for {available}")
            yield _Element(type_, self.data[first : first + size], self.order)
            start = first + size
            if type_ != _COMPRESSED:
                start += -start % _ALIGNMENT

    def integers(self) -> tuple[int, ...]:
        if self.type not in (_INT32, _UINT32) or len(self.data) % 4:
            raise MatFileError(f"an element of type {self.type} and {len(self.data)} bytes is not of 32-bit integers")
        return struct.unpack(f"{self.order}{len(self.data) // 4}i", self.data)

    def text(self) -> bytes:
        if self.type not in (_INT8, _UINT8, _UTF8):
            raise MatFileError(f"an element of type {self.type} is not a name")
        return bytes(self.data)


def read_structure_field(file: bytes, structure: str, field: str) -> Pixels:
    """Return a field of a structure in a MATLAB file.

    Args:
        file: the content of the file, of level 5, in either byte order, compressed or not.
        structure: the name of a variable, a structure of 1 x 1.
        field: the name of a field that is a numeric matrix, stored in 8 bits per value.

    Returns:
        uint8 [rows, columns].

    Raises:
        MatFileError: the file is damaged, is not of level 5 or does not contain such a field.
    """
    for variable in _variables(file):
        parts = variable.elements()
        # The class is read first: some classes, as of function handles, have other elements than dimensions and name.
        if _read_flags(parts)[0] != _STRUCTURE:
            continue
        shape, name = _next(parts).integers(), _next(parts).text()
        if name == structure.encode():
            if shape != (1, 1):
                raise MatFileError(f"{structure} is not a single structure")
            return _read_matrix(_find_field(parts, field))
    raise MatFileError(f"no structure {structure}")


def _variables(file: bytes) -> Iterator[_Element]:
    """Yield the matrices of a file, decompressed."""
    order = {b"IM": "<", b"MI": ">"}.get(file[_HEADER - 2 : _HEADER])
    if order is None or struct.unpack_from(f"{order}H", file, _HEADER - 4)[0] >> 8 != 1:
        raise MatFileError("not a MATLAB file of level 5 (versions 5 to 7)")
    for element in _Element(_MATRIX, memoryview(file)[_HEADER:], order).elements():
        variable = _decompress(element) if element.type == _COMPRESSED else element
        if variable.type != _MATRIX:
            raise MatFileError(f"a variable has the type {variable.type}, not {_MATRIX}")
        yield variable


def _decompress(element: _Element) -> _Element:
    """Return the element that a compressed element contains."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(element.data, _LARGEST_VARIABLE)
    except zlib.error as error:
        raise MatFileError(f"a variable cannot be decompressed: {error}") from None
    if not stream.eof:
        reason = f"is larger than {_LARGEST_VARIABLE} bytes" if len(data) == _LARGEST_VARIABLE else "ends early"
        raise MatFileError(f"a compressed variable {reason}")
    return _next(_Element(element.type, memoryview(data), element.order).elements())


def _next(elements: Iterator[_Element]) -> _Element:
    element = next(elements, None)
    if element is None:
        raise MatFileError("a variable ends early")
    return element


def _read_flags(parts: Iterator[_Element]) -> tuple[int, int]:
    """Return the class and the flags of a matrix, from its first element."""
    flags = _next(parts).integers()
    if len(flags) != 2:
        raise MatFileError(f"a matrix has {len(flags)} words of flags, not 2")
    return flags[0] & 0xFF, flags[0] & 0xFF00


def _find_field(parts: Iterator[_Element], field: str) -> _Element:
    """Return the value of a field, from the elements of a structure that follow its name."""
    lengths, names = _next(parts).integers(), _next(parts).text()
    if len(lengths) != 1 or lengths[0] <= 0 or len(names) % lengths[0]:
        raise MatFileError(f"{len(names)} bytes of field names are not names of length {lengths}")
    for start in range(0, len(names), lengths[0]):
        value = _next(parts)
        if names[start : start + lengths[0]].partition(b"\0")[0] == field.encode():
            return value
    raise MatFileError(f"no field {field}")


def _read_matrix(element: _Element) -> Pixels:
    """Return a numeric matrix of 8-bit values. MATLAB stores small values of every class in 8 bits."""
    parts = element.elements() if element.type == _MATRIX else iter(())
    class_, flags = _read_flags(parts)
    if class_ not in _NUMERIC or flags & _COMPLEX:
        raise MatFileError(f"not a matrix of real numbers (class {class_})")
    shape, _, values = _next(parts).integers(), _next(parts), _next(parts)
    if len(shape) != 2 or min(shape) < 1:
        raise MatFileError(f"has the shape {list(shape[:4])}; expected rows and columns")
    if values.type not in (_INT8, _UINT8):
        raise MatFileError(f"the values are of type {values.type}, not of 8 bits")
    if shape[0] * shape[1] != len(values.data):
        raise MatFileError(f"{len(values.data)} values for a matrix of {shape[0]} x {shape[1]}")
    if values.type == _INT8 and np.frombuffer(values.data, np.int8).min() < 0:
        raise MatFileError("contains negative values")
    return np.frombuffer(values.data, np.uint8).reshape(shape, order="F")
