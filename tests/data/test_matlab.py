"""MATLAB files: intact ones are read as scipy reads them, damaged ones are an error and never end the process."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from scipy.io import loadmat, savemat

from fcnlab.data.datasets.matlab import MatFileError, read_structure_field

MASK = np.arange(12, dtype=np.uint8).reshape(3, 4)


def read(file: bytes) -> np.ndarray:
    return read_structure_field(file, "GTcls", "Segmentation")


# --- intact files ----------------------------------------------------------------------------------------------------


def cell(*values: object) -> np.ndarray:
    out = np.empty((len(values), 1), dtype=object)
    out[:, 0] = values
    return out


OTHER_VALUES = st.sampled_from(
    [
        cell(),
        cell(sparse.csc_matrix(np.eye(3)), sparse.csc_matrix((4, 5), dtype=bool)),
        cell(cell("text", 1.5), MASK),
        sparse.csc_matrix(np.diag([1.0, 0.0, 2.0])),
        np.zeros((0, 0)),
        np.array([[1 + 2j]]),
        {"Segmentation": np.zeros((2, 2), dtype=np.uint8)},
        "a text",
        np.arange(3, dtype=np.int16),
        np.zeros((2, 2, 2), dtype=np.uint8),
    ]
)
OTHERS = st.dictionaries(st.sampled_from(["Boundaries", "CategoriesPresent", "a", "Segmentation2"]), OTHER_VALUES)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Draw a file with the mask among other fields and variables, and if it is compressed."""
    shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    fields = {**draw(OTHERS), "Segmentation": draw(arrays.arrays(np.uint8, shapes))}
    variables = {**draw(OTHERS), "GTcls": {name: fields[name] for name in draw(st.permutations(list(fields)))}}
    ordered = {name: variables[name] for name in draw(st.permutations(list(variables)))}
    out, compressed = io.BytesIO(), draw(st.booleans())
    savemat(out, ordered, do_compression=compressed)
    return out.getvalue(), compressed


@settings(max_examples=150, deadline=None)
@given(sample=files())
def test_a_file_of_savemat_is_read_as_scipy_reads_it(sample: tuple[bytes, bool]) -> None:
    file, _ = sample
    expected = loadmat(io.BytesIO(file), variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"]
    actual = read(file)
    assert actual.dtype == expected.dtype == np.uint8
    np.testing.assert_array_equal(actual, expected)


# --- an encoder of the format, for the files that savemat does not write ---------------------------------------------


class Encoder:
    """Writes elements in a byte order: `<` or `>`."""

    def __init__(self, order: str) -> None:
        self.order = order

    def element(self, type_: int, data: bytes) -> bytes:
        if 0 < len(data) <= 4:
            return struct.pack(f"{self.order}I", len(data) << 16 | type_) + data.ljust(4, b"\0")
        return struct.pack(f"{self.order}II", type_, len(data)) + data + bytes(-len(data) % 8)

    def ints(self, *values: int, type_: int = 5) -> bytes:
        return self.element(type_, struct.pack(f"{self.order}{len(values)}I", *values))

    def matrix(self, class_: int, shape: tuple[int, ...], name: bytes, *content: bytes, flags: int = 0) -> bytes:
        header = self.ints(class_ | flags, 0, type_=6) + self.ints(*shape) + self.element(1, name)
        return self.element(14, header + b"".join(content))

    def structure(self, *values: bytes, shape: tuple[int, int] = (1, 1), length: int = 32) -> bytes:
        names = b"".join(name.ljust(32, b"\0") for name in (b"Boundaries", b"Segmentation"))
        return self.matrix(2, shape, b"GTcls", self.ints(length), self.element(1, names), *values)

    def mask(self, class_: int = 9, type_: int = 2, shape: tuple[int, ...] = MASK.shape, flags: int = 0) -> bytes:
        return self.matrix(class_, shape, b"", self.element(type_, MASK.tobytes(order="F")), flags=flags)

    def file(self, *variables: bytes, version: int = 0x0100) -> bytes:
        end = struct.pack(f"{self.order}HH", version, int.from_bytes(b"MI", "big"))
        return b"MATLAB 5.0 MAT-file".ljust(124) + end + b"".join(variables)

    def compress(self, variable: bytes) -> bytes:
        data = zlib.compress(variable)
        return struct.pack(f"{self.order}II", 15, len(data)) + data


EMPTY = struct.pack("<II", 14, 0)
"""A matrix without content, as MATLAB writes an empty value of a cell or field."""


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("class_", [6, 9], ids=["double", "uint8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_both_byte_orders_and_values_stored_in_eight_bits_are_read(order: str, class_: int, compressed: bool) -> None:
    encoder = Encoder(order)
    variable = encoder.structure(encoder.matrix(1, (0, 1), b""), encoder.mask(class_))
    file = encoder.file(encoder.compress(variable) if compressed else variable)
    np.testing.assert_array_equal(read(file), MASK)
    np.testing.assert_array_equal(loadmat(io.BytesIO(file))["GTcls"][0, 0]["Segmentation"], MASK)


def test_signed_storage_of_values_that_are_not_negative_is_read() -> None:
    encoder = Encoder("<")
    np.testing.assert_array_equal(read(encoder.file(encoder.structure(EMPTY, encoder.mask(type_=1)))), MASK)


def test_variables_that_are_no_structures_are_skipped_whatever_their_elements_are() -> None:
    encoder = Encoder("<")
    opaque = encoder.element(14, encoder.ints(17, 0, type_=6) + encoder.element(1, b"GTcls"))
    np.testing.assert_array_equal(read(encoder.file(opaque, encoder.structure(EMPTY, encoder.mask()))), MASK)


LITTLE = Encoder("<")
VALID = LITTLE.structure(EMPTY, LITTLE.mask())
NEGATIVE = LITTLE.matrix(9, (1, 2), b"", LITTLE.element(1, b"\x01\xff"))
INVALID = {
    "nothing": (b"", "level 5"),
    "version 4": (bytes(200), "level 5"),
    "version 7.3": (LITTLE.file(version=0x0200), "level 5"),
    "no variables": (LITTLE.file(), "no structure GTcls"),
    "not a variable": (LITTLE.file(LITTLE.ints(1, 2, 3)), "has the type 5"),
    "part of a tag": (LITTLE.file(b"\x0e\0\0\0"), "within the tag"),
    "too large": (LITTLE.file(struct.pack("<II", 14, 2**32 - 1)), "of 4294967295 bytes has space for 0"),
    "too large in a tag": (LITTLE.file(struct.pack("<II", 5 << 16 | 14, 0)), "of 5 bytes has space for 4"),
    "empty variable": (LITTLE.file(EMPTY), "ends early"),
    "not compressed": (LITTLE.file(struct.pack("<II", 15, 8) + bytes(8)), "cannot be decompressed"),
    "compressed nothing": (LITTLE.file(LITTLE.compress(b"")), "ends early"),
    "compressed twice": (LITTLE.file(LITTLE.compress(LITTLE.compress(VALID))), "has the type 15"),
    "two structures": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(), shape=(1, 2))), "not a single structure"),
    "no length of names": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(), length=0)), "names of length"),
    "negative length of names": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(), length=2**32 - 8)), "of length"),
    "other length of names": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(), length=9)), "names of length"),
    "fewer values than names": (LITTLE.file(LITTLE.structure(EMPTY)), "ends early"),
    "no matrix": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.element(2, bytes(12)))), "ends early"),
    "complex": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(flags=0x0800))), "not a matrix of real numbers"),
    "text": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(class_=4))), "not a matrix of real numbers"),
    "wide values": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(type_=4))), "of type 4, not of 8 bits"),
    "negative values": (LITTLE.file(LITTLE.structure(EMPTY, NEGATIVE)), "negative values"),
    "more values": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(shape=(3, 3)))), "12 values for a matrix of 3 x 3"),
    "huge shape": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(shape=(2**31 - 1,) * 2))), "12 values for a matrix"),
    "negative shape": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(shape=(2**32 - 3, 2**32 - 4)))), "the shape"),
    "no pixels": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(shape=(0, 4)))), "has the shape"),
    "three dimensions": (LITTLE.file(LITTLE.structure(EMPTY, LITTLE.mask(shape=(3, 2, 2)))), "has the shape"),
}


@pytest.mark.parametrize(("file", "message"), INVALID.values(), ids=INVALID)
def test_the_error_of_an_invalid_file_names_the_problem(file: bytes, message: str) -> None:
    with pytest.raises(MatFileError, match=message):
        read(file)


def test_a_compressed_variable_of_more_than_64_mib_is_refused() -> None:
    with pytest.raises(MatFileError, match="larger than 67108864 bytes"):
        read(LITTLE.file(LITTLE.compress(bytes(2**26 + 1))))


def test_a_compressed_variable_that_is_cut_or_altered_is_refused() -> None:
    data = zlib.compress(VALID)
    for harmed, message in ((data[:-5], "ends early"), (data[:-1] + bytes([data[-1] ^ 1]), "incorrect data check")):
        with pytest.raises(MatFileError, match=message):
            read(LITTLE.file(struct.pack("<II", 15, len(harmed)) + harmed))


# --- damaged files ---------------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 8, 14, 15, 2**16, 2**17 + 1, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1])


@st.composite
def damages(draw: st.DrawFn, junk: st.SearchStrategy[bytes]) -> Callable[[bytes], bytes]:
    """Draw a function that cuts, overwrites, shortens or lengthens a file, or sets one of its numbers."""
    kind, position, added = draw(st.sampled_from("cosln")), draw(st.floats(0, 1)), draw(junk)
    number = struct.pack(draw(st.sampled_from("<>")) + "I", draw(NUMBERS))

    def damage(whole: bytes) -> bytes:
        at = int(position * len(whole))
        aligned = at - at % 4
        return {
            "c": whole[:at] + added,
            "o": whole[:at] + added + whole[at + len(added) :],
            "s": whole[:at] + whole[at + len(added) :],
            "l": whole[:at] + added + whole[at:],
            "n": whole[:aligned] + number + whole[aligned + 4 :],
        }[kind]

    return damage


DAMAGES = st.lists(damages(st.binary(max_size=24)), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(sample=files(), harm=DAMAGES, inside=st.booleans())
def test_a_damaged_file_is_read_or_an_error(
    sample: tuple[bytes, bool], harm: list[Callable[[bytes], bytes]], inside: bool
) -> None:
    file, compressed = sample
    for damage in harm:
        file = file[:128] + damage(file[128:]) if inside else damage(file)
    if inside and not compressed:  # damage that the checksum of the compression does not reveal
        file = file[:128] + LITTLE.compress(file[128:])
    try:
        mask = read(file)
    except MatFileError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - either outcome is right, another exception is not
    else:
        assert mask.dtype == np.uint8 and mask.ndim == 2 and mask.size
