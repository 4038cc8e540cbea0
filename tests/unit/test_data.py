"""KEY=VALUE, and arrays from CSV and .npy files as people really have them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from broker.errors import EXIT_USAGE, InvalidData, InvalidInput
from producers.data import parse_arguments, parse_value, read_array, read_column

DATA = Path(__file__).parents[2] / "examples" / "data"
NAN = float("nan")


@pytest.fixture
def written(tmp_path):
    def write(content, name="file.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# -- KEY=VALUE ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("13", 13),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("null", None),
        ('"13"', "13"),
        ('"@x"', "@x"),
        ("[1, null, 2.5]", [1, None, 2.5]),
        ('{"a": [1]}', {"a": [1]}),
        ("moving", "moving"),
        ("", ""),
        ("01", "01"),
        ("True", "True"),
        ("{not json", "{not json"),
        ("a=b", "a=b"),
        ("grüße ☃", "grüße ☃"),
        ("9" * 5000, "9" * 5000),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_value_is_json_where_it_parses_else_text(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@given(st.text().filter(lambda text: not text.startswith("@")))
def test_any_text_can_be_given(text):
    parse_value(text)


def test_arguments_are_named(written):
    written("x\n1\n")
    found = parse_arguments(["window=13", "method=moving", "note=a=b", "empty="])
    assert found == {"window": 13, "method": "moving", "note": "a=b", "empty": ""}


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["window"], "'window' is not an argument; write KEY=VALUE"),
        (["=13"], "'=13' is not an argument"),
        ([""], "'' is not an argument"),
        (["a=1", "b=2", "a=3"], "the argument 'a' is given twice"),
        (["a=\udcff"], "not UTF-8"),
    ],
)
def test_what_is_not_an_argument_is_said(items, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        parse_arguments(items)
    assert caught.value.exit_code == EXIT_USAGE


# -- the real files -------------------------------------------------------------------


def test_the_real_series_are_read_with_their_gaps():
    sunspots = read_array(f"{DATA}/sunspots.csv:SUNACTIVITY")
    assert (sunspots.shape, sunspots[0], sunspots[-1]) == ((309,), 5.0, 2.9)
    co2 = parse_arguments([f"series=@{DATA}/co2.csv:co2"])["series"]
    assert (co2.shape, co2.dtype) == ((2284,), np.float64)
    assert np.isnan(co2).sum() == 59


# -- CSV ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "column", "values"),
    [
        ("a,b\n1,2\n3,4\n", "b", [2, 4]),
        ("a,b\r\n1,2\r\n3,4", "b", [2, 4]),
        ("a,b\r1,2\r3,4\r", "b", [2, 4]),
        ("\ufeffa,b\n1,2\n", "a", [1]),
        ('"a","b"\n"1","2"\n', "b", [2]),
        ('"a", "b"\n"1", "2"\n', "b", [2]),
        ('"a ""quoted"", name",b\n1,2\n', 'a "quoted", name', [1]),
        ('"a\nb",c\n1,2\n', "a\nb", [1]),
        ("a;b\n1;2\n", "b", [2]),
        ("a\tb\n1\t\n3\t4\n", "b", [NAN, 4]),
        ('date;"temperature, degrees"\n1;2\n', "temperature, degrees", [2]),
        ("a,b\n1,\n , 7 \n", "b", [NAN, 7]),
        (
            "a,b\n1,NA\n1,nan\n1,NaN\n1,N/A\n1,null\n1,None\n1,-\n1,#N/A\n1,5\n",
            "b",
            [NAN] * 8 + [5],
        ),
        (" Sun Spots ,b\n1,2\n", "sun spots", [1]),
        ("X,x\n1,2\n", "x", [2]),
        ("date,x\n2001-01-01,-1.5e-3\n2001-01-02,+.5\n2001-01-03,7.\n", "x", [-0.0015, 0.5, 7]),
        ("a:b,c\n1,2\n", "a:b", [1]),
        ("a,b,\n1,2,\n3,4,\n", "b", [2, 4]),
        ("a,b\n1,2,\n3,4,\n", "b", [2, 4]),
        ("\n\n# station 7; 1958, 1959\na,b\n\n1,2\n\n3,4\n\n", "b", [2, 4]),
        ("x\n1\n\n3\n\n\n", "x", [1, NAN, 3]),
        ("a,2001,2002\n1,2,3\n", "2001", [2]),
    ],
)
def test_a_column_is_read_however_the_file_was_written(written, content, column, values):
    found = read_array(f"{written(content)}:{column}")
    assert found.dtype == np.float64
    assert_array_equal(found, values)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0")),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
    ),
    st.sampled_from([",", ";", "\t"]),
)
def test_what_pythons_csv_writes_is_read_back_exactly(tmp_path_factory, rows, delimiter):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["note", "value"])
    writer.writerows((note, "" if value is None else repr(value)) for note, value in rows)
    path = tmp_path_factory.mktemp("csv") / "file.csv"
    path.write_bytes(text.getvalue().encode())
    assert_array_equal(
        read_column(path, "value"), [NAN if value is None else value for _, value in rows]
    )


def test_the_column_may_be_left_out_where_one_holds_numbers(written):
    assert_array_equal(read_array(str(written("day,x\nmon,1\ntue,\n"))), [1, NAN])
    with pytest.raises(InvalidData, match=r"more than one column .* one of 'YEAR', 'SUNACTIVITY'"):
        read_array(f"{DATA}/sunspots.csv")
    with pytest.raises(InvalidData, match="no column holds only numbers"):
        read_array(str(written("day,x\nmon,one\n")))


def test_paths_may_hold_colons_and_suffixes_any_case(written):
    path = written("x,y\n1,2\n", "a:b.CSV")
    assert_array_equal(read_array(f"{path}:y"), [2])


@pytest.mark.parametrize(
    ("content", "column", "words"),
    [
        ("a,b\n1,2\n", "c", r"file.csv has no column 'c'; its columns are 'a', 'b'"),
        ("temperature,b\n1,2\n", "temprature", r"did you mean 'temperature'\?"),
        ("a,b\n1,2\n", "", "has no column ''"),
        ("x,x\n1,2\n", "x", "2 columns named 'x'"),
        ("X ,x\n1,2\n", "X\t", "2 columns"),
        ("a,b\n1,2\n3,high\n", "b", r"file.csv:3: 'high' in column 'b' is not a number"),
        ('"a\nb",c\n1,2\n3,?\n', "c", r"file.csv:4: '\?'"),
        ("a;b\n1;3,5\n", "b", "decimals with a point"),
        ("a,b\n1,1_000\n", "b", "'1_000' .* is not a number"),
        ("a,b\n1,٣\n", "b", "is not a number"),
        ("a,b\n1,inf\n", "b", "'inf' .* is not a number"),
        ("1700,5\n1701,11\n", "5", r"file.csv:1: the first row must name the columns"),
        ("a,b\n1,2\n3\n", "b", r"file.csv:3: this row has 1 cells, the header has 2"),
        ("a,b\n1,2\n3,4,5\n", "b", r"file.csv:3: this row has 3 cells"),
        ("a;b\n1;2\n3\n", "b", r"file.csv:3: this row has 1 cells, the header has 2"),
        ('a,b\n1,"2\n3,4\n', "b", r"file.csv:\d: this is not CSV .*quotation mark"),
        ("", "b", "file.csv is empty"),
        ("\ufeff \n\n", "b", "file.csv is empty"),
        ("# only a remark\n", "b", "file.csv is empty"),
        ("a,b\n", "b", "header row but no values"),
        ("a,b\n1,2\n".encode("utf-16"), "b", "binary file or UTF-16"),
        (b"a,b\n\x89PNG\x00\x01", "b", "binary file"),
        ("größe,b\n1,2\n".encode("latin-1"), "b", r"file.csv:1: this is not UTF-8"),
        (b"a,b\n" + b"1" * 200_000 + b',"' + b"2" * 200_000 + b'"', "b", "this is not CSV"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(written, content, column, words):
    with pytest.raises(InvalidData, match=words) as caught:
        read_array(f"{written(content)}:{column}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_files_that_cannot_be_opened_are_named(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InvalidData, match=r"there is no file .*missing\.csv"):
        read_array(f"{tmp_path}/missing.csv:x")
    with pytest.raises(InvalidData, match="is a directory"):
        read_array(f"{tmp_path}/folder.csv:x")
    with pytest.raises(InvalidData, match="cannot be read"):
        read_array(f"{tmp_path}/file.csv/under.csv\0.csv:x")


@pytest.mark.parametrize("reference", ["", "joe", "file.xlsx:x", ":x", "file.npy:x"])
def test_a_reference_that_names_no_array_says_how_to_write_one(reference):
    with pytest.raises(InvalidData, match=r"@FILE\.csv:COLUMN or @FILE\.npy"):
        parse_value("@" + reference)


# -- .npy -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array", [np.arange(5.0), np.ones((2, 3), dtype=">f4"), np.array(7), np.array(["a", "bc"])]
)
def test_a_npy_file_is_read_as_it_was_stored(tmp_path, array):
    np.save(tmp_path / "file.npy", array)
    found = parse_value(f"@{tmp_path}/file.npy")
    assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_pickles_are_never_read(tmp_path, written):
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidData, match=r"objects\.npy holds pickled Python objects"):
        read_array(f"{tmp_path}/objects.npy")
    with pytest.raises(InvalidData, match=r"not a \.npy file"):
        read_array(str(written(b"\x80\x04K\x01.", "pickle.npy")))


def test_a_broken_npy_file_is_said_to_be_broken(tmp_path, written):
    np.save(tmp_path / "whole.npy", np.arange(100.0))
    content = (tmp_path / "whole.npy").read_bytes()
    for broken in (content[:-8], content[:20], content[:6], content[:6] + b"\x09" + content[7:]):
        with pytest.raises(InvalidData, match=r"cut\.npy cannot be read as a \.npy file"):
            read_array(str(written(broken, "cut.npy")))
    np.savez(tmp_path / "many.npz", a=np.arange(3))
    with pytest.raises(InvalidData, match=r"not a \.npy file"):
        read_array(str(written((tmp_path / "many.npz").read_bytes(), "zip.npy")))
