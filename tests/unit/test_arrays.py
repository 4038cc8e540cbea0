"""Arrays travel bit for bit, and nothing that is not an array is read as one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from broker.arrays import array_of, pack, part_of, unpack
from broker.body import ARRAYS_JSON, ARRAYS_MSGPACK, JSON, MSGPACK, decode, encode
from broker.errors import InvalidMessage


def travelled(array: np.ndarray) -> np.ndarray:
    _, parts = unpack(pack(b"{}", [part_of(array)]))
    return array_of(parts[0])


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.array_dtypes(allow_subarrays=True),
    hnp.nested_dtypes(),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@given(hnp.arrays(dtype=DTYPES, shape=SHAPES))
@settings(deadline=None)
def test_any_array_without_objects_comes_back_bit_for_bit(array: np.ndarray) -> None:
    assert_same(travelled(array), array)


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.zeros((0, 3)),
        np.arange(24.0).reshape(2, 3, 4).T,
        np.arange(24)[::2],
        np.arange(24).reshape(4, 6)[:, ::-2],
        np.array([1, 2], dtype=">i4"),
        np.array(["ä", "日本"]),
        np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"),
        np.array([(1, 2.5)], dtype=[("ключ", "<i4"), ("b", "<f8")]),
        np.array([np.nan, -0.0, np.inf]).view(np.uint64).view(float),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([b"", b""], dtype="S0"),
        np.empty((2, 0), dtype=[("a", "i4")]),
        np.frombuffer(b"\x01\x02\x03\x04\x05", dtype=np.uint8)[1:],
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_awkward_arrays_come_back_bit_for_bit(array: np.ndarray) -> None:
    assert_same(travelled(array), np.asarray(array))


def test_fortran_order_is_kept() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert travelled(array).flags.f_contiguous


def test_an_array_is_read_where_it_lies_and_cannot_be_written() -> None:
    message = pack(b"{}", [part_of(np.arange(1000.0))])
    array = array_of(unpack(message)[1][0])
    assert np.shares_memory(array, np.frombuffer(message, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_packing_does_not_copy_a_contiguous_array() -> None:
    array = np.arange(1000.0)
    assert np.shares_memory(np.frombuffer(part_of(array)[1], np.uint8), array)


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, "a"], dtype=object),
        np.array([(None,)], dtype=[("x", object)]),
        np.ma.masked_array([1, 2], [True, False]),
        np.array(["a", "bc"], dtype=np.dtypes.StringDType()),
    ],
    ids=["object", "structured object", "masked", "variable strings"],
)
def test_what_needs_pickle_or_loses_something_is_refused(array: np.ndarray) -> None:
    with pytest.raises(InvalidMessage):
        encode(array)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.text(),
        hnp.arrays(dtype=hnp.scalar_dtypes(), shape=SHAPES),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=5), st.just("$ndarray")), inner, max_size=3),
    ),
    max_leaves=12,
)


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return (
            isinstance(one, np.ndarray)
            and isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(VALUES, st.sampled_from(["json", "msgpack"]))
@settings(deadline=None)
def test_any_value_with_arrays_within_comes_back_the_same(value: object, serializer: str) -> None:
    body = encode(value, serializer=serializer)
    assert same(decode(body.content, body.content_type), value)


def test_a_body_without_arrays_is_what_celery_writes() -> None:
    assert encode([1, {"a": None}]).content_type == JSON
    assert encode([1], serializer="msgpack").content_type == MSGPACK
    assert encode(np.zeros(1)).content_type == ARRAYS_JSON
    assert encode(np.zeros(1), serializer="msgpack").content_type == ARRAYS_MSGPACK


def test_numpy_scalars_become_python_values_where_they_are_equal() -> None:
    value = [np.float64(1.5), np.int32(3), np.bool_(True), np.str_("x")]
    body = encode(value)
    assert body.content_type == JSON
    assert decode(body.content, JSON) == [1.5, 3, True, "x"]


def test_the_layout_is_the_documented_one() -> None:
    body = encode({"x": np.array([1, 2], dtype="<u2")})
    content = body.content
    assert content[:4] == b"\x93RB1"
    assert int.from_bytes(content[4:8], "little") == 1
    size = int.from_bytes(content[8:16], "little")
    part_size = int.from_bytes(content[16:24], "little")
    assert content[24 : 24 + size] == b'{"x": {"$ndarray": 0}}'
    start = -(-(24 + size) // 64) * 64
    assert content[start : start + 6] == b"\x93NUMPY"
    assert len(content) == start + part_size
    assert content[-4:] == b"\x01\x00\x02\x00"


GOOD = encode([np.arange(3), {"b": np.zeros((2, 2))}]).content


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
@settings(deadline=None)
def test_a_damaged_body_is_an_error_or_a_value_never_anything_else(at: int, byte: int) -> None:
    damaged = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    try:
        decode(damaged, ARRAYS_JSON)
    except InvalidMessage:
        return


@given(st.integers(0, len(GOOD) - 1))
@settings(deadline=None)
def test_a_body_that_is_cut_short_is_an_error(size: int) -> None:
    with pytest.raises(InvalidMessage):
        decode(GOOD[:size], ARRAYS_JSON)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"$ndarray": 1}]',
        b'[{"$ndarray": 0}, {"$ndarray": 0}]',
        b'[{"$ndarray": true}]',
        b'[{"$ndarray": "0"}]',
        b"[]",
        b"[",
        b"\xff",
    ],
)
def test_placeholders_name_each_array_once(body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode(pack(body, [part_of(np.zeros(1))]), ARRAYS_JSON)


def test_pickled_objects_are_never_read() -> None:
    import io

    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidMessage, match="object"):
        decode(pack(b'{"$ndarray": 0}', [[stream.getvalue()]]), ARRAYS_JSON)


def test_a_body_of_an_unknown_type_or_of_another_one_is_an_error() -> None:
    with pytest.raises(InvalidMessage, match="not read here"):
        decode(b"{}", "application/x-python-serialize")
    with pytest.raises(InvalidMessage, match="not the application/json"):
        decode(b"\x80", JSON)
    with pytest.raises(InvalidMessage):
        decode(b"\xc1", MSGPACK)


def test_what_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InvalidMessage):
        encode(loop)
