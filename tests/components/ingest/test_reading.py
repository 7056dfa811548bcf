import gzip
import json
import math
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.ingest import reading
from components.ingest.lines import BLOCK_BYTES
from components.refusal import RefusedError
from tests.components.ingest.conftest import data

COLUMNS = ["user", "rating"]


def rows_of(file, meaning=None, columns=COLUMNS, **cut):
    """(line, cells) of good rows and (line, reason) of bad ones, lines counted over the whole file."""
    good, bad, before = [], [], 0
    for piece in reading.pieces(file, **cut):
        for block in reading.read(meaning or data(), piece, columns):
            assert block.table.num_rows == len(block.lines)
            good += [
                (int(line) + before, tuple(row[c] for c in columns))
                for line, row in zip(block.lines, block.table.to_pylist(), strict=True)
            ]
            bad += [(line + before, reason) for line, reason, _ in block.bad]
        before += reading.count_lines(piece) if cut else 0
    return good, bad


@pytest.mark.parametrize(("name", "separator"), [("logs.csv", b","), ("logs.tsv", b"\t")])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_delimited_text_reads_alike_however_it_is_spelt(write, name, separator, ending, bom):
    lines = [b"user,other,rating", b"007,x,5", b"", "Zoë,x,".encode(), b'"quoted ""one""",x,1']
    file = write(name, bom + ending.join(lines).replace(b",", separator))
    good, bad = rows_of(file)
    assert good == [(2, ("007", "5")), (4, ("Zoë", "")), (5, ('quoted "one"', "1"))]
    assert bad == []


def test_each_bad_line_costs_itself_alone(write):
    file = write(
        "logs.csv",
        b"user,rating\n"
        b"a,1\n"
        b"too,many,columns\n"
        b'"left open,1\n'
        b"b,2\n"
        b"lonely\n"
        b"caf\xe9,3\n"
        b"\n"
        b"cr\rinside,3\n"
        b'5" disk,4\n'
        b'5",x,"y\n'
        b"c,5",
    )
    good, bad = rows_of(file)
    assert good == [(2, ("a", "1")), (5, ("b", "2")), (10, ('5" disk', "4")), (12, ("c", "5"))]
    assert dict(bad) == {
        3: "3 columns, expected 2",
        4: "a quote is left open on this line",
        6: "1 columns, expected 2",
        7: "not UTF-8",
        9: "a carriage return inside the line",
        11: "a quote is left open on this line",
    }


def test_an_even_number_of_quotes_can_still_leave_one_open(write):
    file = write("logs.csv", b'user,rating,title\na,1,x\n5",1,"y\nb,2,z\n')
    good, bad = rows_of(file)
    assert good == [(2, ("a", "1")), (4, ("b", "2"))]
    assert bad == [(3, "a quote is left open on this line")]


def test_a_file_of_bad_lines_alone_has_no_rows(write):
    good, bad = rows_of(write("logs.csv", b"user,rating\n1\n2\n3\n"))
    assert good == []
    assert [line for line, _ in bad] == [2, 3, 4]


def test_header_alone_has_no_rows(write):
    assert rows_of(write("logs.csv", b"user,rating\n")) == ([], [])


@given(
    st.lists(st.sampled_from(["a,1", "bb,22", "", "wrong", '"q,u",3', "é,4", "x" * 40 + ",5"]), max_size=30),
    st.integers(1, 60),
    st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_line_is_in_exactly_one_piece(write, lines, piece_bytes, ends):
    text = "\n".join(["user,rating", *lines]) + ("\n" if ends else "")
    file = write("logs.csv", text.encode())
    assert rows_of(file, piece_bytes=piece_bytes) == rows_of(file, piece_bytes=1 << 20)


def test_lines_longer_than_a_block_of_reading_stay_whole(write):
    long = "x" * (BLOCK_BYTES * 2 + 7)
    file = write("logs.csv", f"user,rating\na,1\n{long},2\nb,3\n".encode())
    good, bad = rows_of(file)
    assert [(line, len(user)) for line, (user, _) in good] == [(2, 1), (3, len(long)), (4, 1)]
    assert bad == []


def test_gzip_reads_as_plain_text_does(write):
    good, _ = rows_of(write("logs.csv.gz", gzip.compress(b"user,rating\na,1\n")))
    assert good == [(2, ("a", "1"))]


@pytest.mark.parametrize("name", ["logs.csv.gz", "logs.jsonl.gz"])
def test_a_cut_off_gzip_file_is_refused_by_name(write, name):
    random = np.random.default_rng(0).integers(0, 10, 50_000)
    whole = gzip.compress(b"user,rating\n" + b"".join(b"%d,1\n" % r for r in random))
    file = write(name, whole[: len(whole) // 2])
    with pytest.raises(RefusedError, match=rf"{name}: the file is cut off before its end"):
        rows_of(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\nuser,rating\n", "it has no header"),
        (b"us\xe9r,rating\n1,2\n", "the first line is not UTF-8"),
        (b"user,rating,user\n1,2,3\n", "names 'user' twice"),
    ],
)
def test_a_header_that_is_none_is_refused(write, content, said):
    with pytest.raises(RefusedError, match=said):
        rows_of(write("logs.csv", content))


def test_json_lines_keep_what_was_written(write):
    rows = [
        {"user": "2020-01-01", "rating": 5},
        {"user": 12345678901234567890, "rating": 4.5},
        {"user": "007", "rating": None},
        {"user": ["a", "b"], "rating": True},
        {"user": 12.0, "rating": {"x": 1}},
        {"rating": 1},
    ]
    good, bad = rows_of(write("logs.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()))
    assert [cells for _, cells in good] == [
        ("2020-01-01", "5"),
        ("12345678901234567890", "4.5"),
        ("007", None),
        (f"a{reading.VALUE_SEPARATOR}b", "true"),
        ("12", '{"x": 1}'),
        (None, "1"),
    ]
    assert bad == []


@pytest.mark.parametrize("other", [b'{"user": "b", "rating": 2}', b'{"user": "b", "rating": "2"}'])
def test_json_lines_that_are_no_objects_cost_themselves_alone(write, other):
    lines = [
        b'{"user": "a", "rating": 1}',
        b"[1, 2]",
        b'{"user": "half \\ud800", "rating": 1}',
        b"{",
        b"",
        b"caf\xe9",
        b'{"a": ' + b"[" * 100_000,
        other,
    ]
    good, bad = rows_of(write("logs.jsonl", b"\xef\xbb\xbf" + b"\r\n".join(lines)))
    assert [(line, str(cells[0])) for line, cells in good] == [(1, "a"), (8, "b")]
    assert sorted(line for line, _ in bad) == [2, 3, 4, 6, 7]


def test_json_without_any_known_key_still_has_its_rows(write):
    good, _ = rows_of(write("logs.jsonl", b'{"x": 1}\n{"x": 2}\n'))
    assert good == [(1, (None, None)), (2, (None, None))]


def test_parquet_of_every_type_that_holds_single_values(tmp_path, write):
    table = pa.table(
        {
            "user": pa.array(["a", "b", None]).dictionary_encode(),
            "large": pa.array(["x", "é", None], pa.large_string()),
            "bytes": pa.array([b"x", b"y", None], pa.binary()),
            "genres": pa.array([["p", None, "q"], [], None], pa.list_(pa.string())),
            "numbers": pa.array([[1, 2], None, [3]], pa.large_list(pa.int64())),
        }
    )
    pq.write_table(table, tmp_path / "logs.parquet", row_group_size=2)
    file = write("copy.parquet", (tmp_path / "logs.parquet").read_bytes())
    good, bad = rows_of(file, columns=table.column_names)
    mark = reading.VALUE_SEPARATOR
    assert [cells[:3] for _, cells in good] == [("a", "x", "x"), ("b", "é", "y"), (None, None, None)]
    assert good[0][1][3:] == (f"p{mark}{mark}q", f"1{mark}2")
    assert [line for line, _ in good] == [1, 2, 3]
    assert bad == []


def test_parquet_bytes_that_are_not_text_cost_their_rows(tmp_path, write):
    table = pa.table({"user": pa.array([b"a", b"\xff", b"c"]), "rating": pa.array([1, 2, 3])})
    pq.write_table(table, tmp_path / "logs.parquet")
    good, bad = rows_of(write("copy.parquet", (tmp_path / "logs.parquet").read_bytes()))
    assert good == [(1, ("a", 1)), (3, ("c", 3))]
    assert bad == [(2, "not UTF-8")]


def test_parquet_with_nested_columns_is_refused_by_the_column(tmp_path, write):
    pq.write_table(pa.table({"user": [{"id": 1}], "rating": [1]}), tmp_path / "logs.parquet")
    with pytest.raises(RefusedError, match="column 'user' is struct"):
        rows_of(write("copy.parquet", (tmp_path / "logs.parquet").read_bytes()))


@pytest.mark.parametrize("content", [b"PAR1 no it is not", b"user,rating\n1,2\n"])
def test_what_is_no_parquet_is_refused(write, content):
    with pytest.raises(RefusedError, match="cannot be read as parquet"):
        rows_of(write("logs.parquet", content))


def example(**values):
    import tensorflow as tf

    features = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        else:
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def records(path, serialized, gzipped=False):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), "GZIP" if gzipped else "") as writer:
        for record in serialized:
            writer.write(record)
    return path.read_bytes()


def test_tfrecords_cost_only_the_records_that_are_no_examples(tmp_path, write):
    content = records(
        tmp_path / "r",
        [
            example(user=b"a", rating=1.0),
            b"\xff not an example",
            example(user=b"\xff", rating=2.0),
            example(user=b"b", rating=b"3"),
            example(other=1.0),
        ],
    )
    good, bad = rows_of(write("logs.tfrecord", content))
    assert [(line, user, rating and float(rating)) for line, (user, rating) in good] == [
        (1, "a", 1.0),
        (4, "b", 3.0),
        (5, None, None),
    ]
    assert [line for line, _ in bad] == [2, 3]


def test_tfrecords_cut_off_are_refused(tmp_path, write):
    content = records(tmp_path / "r", [example(user=b"a", rating=1.0)] * 20)
    with pytest.raises(RefusedError, match="cut off before its end"):
        rows_of(write("logs.tfrecord", content[:-5]))


def test_a_number_that_json_holds_as_not_a_number_is_missing(write):
    good, _ = rows_of(write("logs.jsonl", b'{"user": "a", "rating": NaN}\n{"user": "b", "rating": 1.5}\n'))
    values = [rating if rating is None else float(rating) for _, (_, rating) in good]
    assert values[1] == 1.5
    assert values[0] is None or math.isnan(values[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("user,item\na,b\n".encode("utf-16"), "the file is UTF-16, not UTF-8. Convert it: iconv"),
        ("user,item\na,b\n".encode("utf-16-le"), "the file is UTF-16 or binary, not UTF-8"),
        ("användare,artikel\na,b\n".encode("latin-1"), "the first line is not UTF-8. Convert the file: iconv"),
    ],
)
def test_other_encodings_are_named(write, content, said):
    with pytest.raises(RefusedError, match=said):
        reading.column_names(data(), write("logs.csv", content))


def test_columns_without_a_name_get_one(write):
    assert reading.column_names(data(), write("logs.csv", b",user,item,\n")) == [
        "unnamed_1",
        "user",
        "item",
        "unnamed_4",
    ]


def test_a_byte_order_mark_is_no_part_of_json(write):
    file = write("logs.jsonl", b'\xef\xbb\xbf{"user": "u"}\n{"user": "v"}\n')
    assert reading.any_names(file) == ["user"]
    (block,) = reading.read(data(), reading.pieces(file)[0], ["user"])
    assert block.table.column("user").to_pylist() == ["u", "v"]
    assert not block.bad


def test_an_array_of_json_is_named(write):
    with pytest.raises(RefusedError, match=r"one JSON array, not JSON Lines. Convert it: jq"):
        reading.any_names(write("logs.jsonl", b'[{"user": "u"}]\n'))


def test_a_small_gzip_that_unpacks_to_gigabytes_is_refused_early(write):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    blank = b"\n" * (16 << 20)
    packed = (
        packer.compress(b"user,item,label,time\n")
        + b"".join(packer.compress(blank) for _ in range(16))
        + packer.flush()
    )
    with pytest.raises(RefusedError, match="unpacks to more than 200 times"):
        rows_of(write("logs.csv.gz", packed))


def test_a_header_of_a_hundred_thousand_columns_is_refused(write):
    file = write("logs.csv", ",".join(f"c{number}" for number in range(100_000)).encode() + b"\n")
    with pytest.raises(RefusedError, match="names 100,000 columns"):
        reading.column_names(data(), file)
