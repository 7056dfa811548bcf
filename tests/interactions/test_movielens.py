import csv
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interactions import movielens
from pipeline.commands.data import app


@pytest.fixture
def index_of(monkeypatch, tmp_path):
    """A function that makes pip, by its own configuration, find nothing but the given files."""

    def offer(files: dict[str, bytes]) -> None:
        links = tmp_path / "links"
        links.mkdir()
        for name, content in files.items():
            (links / name).write_bytes(content)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(links))

    return offer


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_logs_hold_every_rating_joined_with_its_user_and_item(movielens_logs):
    rows = rows_of(movielens_logs)
    assert len(rows) == 100_000
    assert len({r["user_id"] for r in rows}) == 943
    assert len({r["item_id"] for r in rows}) == 1682
    assert tuple(rows[0]) == movielens.COLUMNS
    toy_story = next(r for r in rows if (r["user_id"], r["item_id"]) == ("1", "1"))
    assert toy_story == {
        "user_id": "1",
        "item_id": "1",
        "rating": "5",
        "timestamp": "874965758",
        "age": "24",
        "gender": "M",
        "occupation": "technician",
        "zip_code": "85711",
        "title": "Toy Story",
        "year": "1995",
        "genres": "Animation|Children's|Comedy",
    }
    assert next(r["title"] for r in rows if r["item_id"] == "1366") == "JLG/JLG - autoportrait de décembre"


def test_unknown_year_and_genre_are_empty(movielens_logs):
    rows = rows_of(movielens_logs)
    unknown = next(r for r in rows if r["item_id"] == "267")
    assert (unknown["year"], unknown["genres"]) == ("", "")
    assert {r["year"] for r in rows} >= {"", "1922", "1998"}


def test_what_is_there_is_verified_and_not_downloaded_again(movielens_logs, tmp_path, index_of):
    index_of({})
    copy = tmp_path / "interactions.tsv"
    copy.write_bytes(movielens_logs.read_bytes())
    said: list[str] = []
    assert movielens.fetch(tmp_path, said.append) == copy
    assert said[0] == movielens.TERMS
    assert "already there" in said[-1]


def test_logs_that_changed_are_fetched_again(movielens_logs, tmp_path):
    path = tmp_path / "interactions.tsv"
    path.write_text("user_id\n1\n")
    movielens.fetch(tmp_path, lambda _: None)
    assert path.read_bytes() == movielens_logs.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["interactions.tsv"]


def test_an_index_without_the_wheel_ends_in_one_clear_error(tmp_path, index_of):
    index_of({})
    result = CliRunner().invoke(app, ["movielens", "--folder", str(tmp_path / "logs")])
    assert result.exit_code == 1
    assert "pip could not download recbole==1.2.1" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "logs").exists()


def test_a_wheel_that_differs_is_refused(tmp_path, index_of):
    wheel = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("recbole-1.2.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n")
        archive.writestr("recbole-1.2.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    index_of({wheel.name: wheel.read_bytes()})
    with pytest.raises(movielens.FetchError, match=r"recbole-1\.2\.1-py3-none-any\.whl: sha256 is .* expected 9c9948"):
        movielens.fetch(tmp_path / "logs", lambda _: None)
    assert not (tmp_path / "logs").exists()


def test_a_folder_that_cannot_be_written_is_named(movielens_logs, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(movielens.FetchError, match=r"taken/logs/interactions\.tsv: cannot be written"):
        movielens.fetch(tmp_path / "taken" / "logs", lambda _: None)


@pytest.mark.parametrize("title", ['The "Best" Film', '"quoted"', "semi;colon, comma", "L'été | à Paris", "  spaces "])
def test_a_title_survives_a_csv_reader_that_quotes(tmp_path, title):
    path = tmp_path / "joined.tsv"
    path.write_text(
        movielens.join(
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t03\t4\t881250949\n",
            "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n7\t40\tF\tother\tT8H1N\n",
            f"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n03\t{title}\t\tDrama War\n",
        ),
        encoding="utf-8",
    )
    (row,) = rows_of(path)
    assert row["title"] == title
    assert (row["item_id"], row["year"], row["genres"]) == ("03", "", "Drama|War")
