"""numpy arrays as message content: `.npy` files behind a body with placeholders, no pickle.

The layout is written down in ``docs/reference/message.md``. `pack` joins a body and its arrays,
`unpack` takes them apart; arrays are read where they lie in the message, without a copy.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np

from broker.errors import InvalidMessage
from broker.memory import LARGE_BYTES, keep_freed

MAGIC = b"\x93RB1"
ALIGNMENT = 64
# A .npy header describes a dtype; numpy's own bound of 10,000 bytes is kept when reading.
_PRELUDE = struct.Struct("<4sIQ")


def part_of(array: np.ndarray[Any, Any]) -> list[bytes | memoryview]:
    """Return the chunks of an array's `.npy` file; the values are a view, not a copy.

    Args:
        array: any shape, any dtype without Python objects; one that is neither C- nor
            Fortran-contiguous is copied into C order first.

    Raises:
        InvalidMessage: the dtype holds objects or variable-width strings, or the array is masked.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise InvalidMessage(
            "a masked array cannot travel, its mask would be lost;"
            " send array.filled(nan), or data and mask as two arrays"
        )
    array = np.asarray(array)
    dtype = array.dtype
    if dtype.hasobject or dtype.kind == "T":
        raise InvalidMessage(
            f"an array of dtype {dtype} holds Python objects and cannot travel without pickle;"
            " convert it, for example with array.astype(float) or array.astype('U')"
        )
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = array.copy(order="C")
    header = BytesIO()
    description = np.lib.format.header_data_from_array_1_0(array)
    try:
        np.lib.format.write_array_header_1_0(header, description)
    except (ValueError, UnicodeEncodeError):
        # Long or non-Latin field names need a later version of the format: let numpy choose.
        whole = BytesIO()
        with warnings.catch_warnings():
            # It warns that a numpy before 1.17 could not read this; ours can.
            warnings.simplefilter("ignore", UserWarning)
            np.lib.format.write_array(whole, array, allow_pickle=False)
        return [whole.getvalue()]
    flat = array.reshape(-1, order="A")
    if dtype.itemsize == 0 or flat.size == 0:
        return [header.getvalue()]
    # Through uint8, since dates and structured dtypes have no buffer of their own.
    return [header.getvalue(), flat.view(np.uint8).data]


def array_of(part: memoryview) -> np.ndarray[Any, Any]:
    """Read one `.npy` file as a read-only array that lies in the given memory.

    Raises:
        InvalidMessage: it is not a complete `.npy` file, or holds pickled objects.
    """
    stream = BytesIO(part[: _header_size(part)])
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            # Version 3 (non-Latin field names) has no public reader of the header alone.
            array = np.lib.format.read_array(BytesIO(part), allow_pickle=False)
            array.flags.writeable = False
            return array
        if dtype.hasobject:
            raise InvalidMessage("an array in the message holds pickled objects; it is not read")
        offset = stream.tell()
        count = 1
        for length in shape:
            count *= length
        if len(part) - offset != count * dtype.itemsize:
            raise InvalidMessage(
                f"an array in the message says {count} values of {dtype},"
                f" but {len(part) - offset} bytes follow its header"
            )
        if count == 0 or dtype.itemsize == 0:
            array = np.zeros(shape, dtype, order="F" if fortran_order else "C")
        else:
            values = np.frombuffer(part, dtype, count, offset)
            array = values.reshape(shape, order="F" if fortran_order else "C")
        array.flags.writeable = False
        return array
    except InvalidMessage:
        raise
    # numpy's reader evaluates the header and says what is wrong in many ways.
    except Exception as exc:
        raise InvalidMessage(f"an array in the message cannot be read: {exc}") from exc


def pack(body: bytes, parts: Sequence[list[bytes | memoryview]]) -> bytes:
    """Join a body and the `.npy` files of its arrays into the bytes of one message."""
    sizes = [sum(len(chunk) for chunk in part) for part in parts]
    chunks: list[bytes | memoryview] = [
        _PRELUDE.pack(MAGIC, len(parts), len(body)),
        struct.pack(f"<{len(sizes)}Q", *sizes),
        body,
    ]
    position = _PRELUDE.size + 8 * len(sizes) + len(body)
    for part, size in zip(parts, sizes, strict=True):
        padding = -position % ALIGNMENT
        chunks.append(bytes(padding))
        chunks.extend(part)
        position += padding + size
    if position > LARGE_BYTES:
        keep_freed()
    return b"".join(chunks)


def unpack(message: bytes | memoryview) -> tuple[memoryview, list[memoryview]]:
    """Take a message apart: the body and the memory of each `.npy` file.

    Raises:
        InvalidMessage: the magic is missing, or the sizes do not add up to the message's.
    """
    view = memoryview(message)
    if len(view) < _PRELUDE.size:
        raise InvalidMessage("the body is too short to hold arrays")
    magic, count, body_size = _PRELUDE.unpack_from(view)
    if magic != MAGIC:
        raise InvalidMessage("the body does not begin as one with arrays does")
    position = _PRELUDE.size + 8 * count
    if len(view) < position + body_size:
        raise InvalidMessage("the body with arrays is cut short")
    sizes = struct.unpack_from(f"<{count}Q", view, _PRELUDE.size)
    body = view[position : position + body_size]
    position += body_size
    parts = []
    for size in sizes:
        position += -position % ALIGNMENT
        parts.append(view[position : position + size])
        position += size
    if position != len(view):
        raise InvalidMessage(
            f"the arrays should end at byte {position} of the body, which has {len(view)}"
        )
    return body, parts


def _header_size(part: memoryview) -> int:
    # Magic and version: 8 bytes; then the header's length, 2 bytes (version 1) or 4 (2, 3).
    if len(part) < 12:
        return len(part)
    if part[6] == 1:
        return 10 + int.from_bytes(part[8:10], "little")
    return 12 + int.from_bytes(part[8:12], "little")
