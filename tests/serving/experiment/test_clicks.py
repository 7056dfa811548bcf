from __future__ import annotations

import json
import os

import pytest

from serving.experiment.clicks import Click, ClickJoin, ClickLog, Exposure, append_rows
from serving.experiment.loss import LossTest
from serving.release_state import CANARY, STABLE


def exposure(time, user, item, arm, share=50.0, canary="c"):
    return Exposure(time, user, item, arm, share, canary)


def counted(join_size=1000, events=()):
    test = LossTest()
    join = ClickJoin(test, join_size)
    for event in events:
        (join.shown if isinstance(event, Exposure) else join.clicked)(event)
    return {arm: (rate.clicks, rate.impressions) for arm, rate in test.rates().items()}


def test_clicks_count_once_for_the_latest_showing_in_time():
    events = [
        exposure(0, "u", "a", STABLE),
        exposure(100, "u", "a", CANARY),
        exposure(100, "u", "b", CANARY),
        exposure(100, "v", "a", STABLE),
        Click(150, "u", "a"),  # the second showing's
        Click(160, "u", "a"),  # the same click again
        Click(50, "v", "a"),  # before it was shown
        Click(99_999, "u", "b"),  # too late
        Click(150, "w", "a"),  # nobody was shown that
    ]
    assert counted(events=events) == {STABLE: (0, 2), CANARY: (1, 2)}
    assert counted(events=[*events, Click(50, "u", "a")]) == {STABLE: (1, 2), CANARY: (1, 2)}  # late, for the first


def test_showings_without_another_arm_do_not_count():
    assert counted(events=[exposure(0, "u", "a", CANARY, share=100.0), exposure(0, "u", "a", STABLE, share=0.0)]) == {}


def test_old_showings_are_forgotten():
    events = [exposure(time, f"u{time}", "a", STABLE) for time in range(50)]
    events += [Click(49, "u3", "a"), Click(49, "u49", "a"), Click(49, "u40", "a")]
    assert counted(10, events) == {STABLE: (2, 50)}
    again = [exposure(time, "u", "a", STABLE) for time in range(35)] + [Click(40, "u", "a"), Click(20, "u", "a")]
    assert counted(10, again) == {STABLE: (1, 35)}


def rows(*items):
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def shown(time, user, canary="c"):
    arm = CANARY if int(user[1:]) % 2 else STABLE
    return {"time": time, "user": user, "item": "a", "arm": arm, "share": 50.0, "canary": canary}


def click(time, user):
    return {"time": time, "user": user, "item": "a"}


@pytest.fixture
def logs(tmp_path):
    test = LossTest()
    join = ClickJoin(test)
    log = ClickLog([str(tmp_path / "m.exposures*.jsonl")], [str(tmp_path / "clicks-*.jsonl")])

    def read(canary="c"):
        log.read(join, canary)
        return {arm: (rate.clicks, rate.impressions) for arm, rate in test.rates().items()}

    return tmp_path, log, read


MALFORMED = [
    b"no json",
    b"",
    b"[]",
    b'"text"',
    b'{"time": 1}',
    b'{"time": ' + b"9" * 400 + b', "user": "u1", "item": "a"}',
    b'{"time": 1e400, "user": "u1", "item": "a"}',
    b'{"time": NaN, "user": "u1", "item": "a"}',
    b'{"time": "soon", "user": "u1", "item": "a"}',
    b'{"time": [1], "user": "u1", "item": "a"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"time": 1, "user": ["u1"], "item": "a"}',
    b'{"time": 1, "user": {}, "item": "a"}',
    b'{"time": 1, "user": "' + b"u" * 10_000 + b'", "item": "a"}',
    b'{"time": 1, "user": "\\ud800", "item": "a"}',
    b"\xff\xfe\x00",
    b"x" * 600_000,  # longer than any line may be
]


def test_malformed_lines_of_any_kind_are_counted_and_passed_over(logs):
    folder, log, read = logs
    append_rows(folder / "m.exposures.jsonl", rows(shown(0, "u1"), shown(0, "u2")) + b"\n".join(MALFORMED) + b"\n")
    append_rows(folder / "clicks-1.jsonl", b"\n".join(MALFORMED) + b"\n" + rows(click(1, "u1")))
    assert read() == {CANARY: (1, 1), STABLE: (0, 1)}
    assert log.unread == 2 * len(MALFORMED)


def test_folders_pipes_and_closed_files_do_not_stop_the_reading(logs):
    folder, log, read = logs
    (folder / "clicks-0.jsonl").mkdir()
    os.mkfifo(folder / "clicks-00.jsonl")
    (folder / "clicks-000.jsonl").symlink_to(folder / "nowhere")
    append_rows(folder / "m.exposures.jsonl", rows(shown(0, "u1")))
    append_rows(folder / "clicks-1.jsonl", rows(click(1, "u1")))
    assert read() == {CANARY: (1, 1)}
    assert log.unreadable == 3


def test_each_line_is_read_once_as_files_grow_rotate_and_are_cut_off(logs):
    folder, log, read = logs
    file = folder / "m.exposures.jsonl"
    append_rows(file, rows(shown(0, "u1")) + b'{"time": 1, "user": "u2", "item"')
    assert read() == {CANARY: (0, 1)}
    append_rows(file, b': "a", "arm": "stable", "share": 50.0, "canary": "c"}\n')
    assert read() == {CANARY: (0, 1), STABLE: (0, 1)}
    file.rename(folder / "m.exposures-1.jsonl")
    append_rows(file, rows(shown(2, "u3"), shown(2, "u5", canary="another")))
    assert read() == {CANARY: (0, 2), STABLE: (0, 1)}
    file.write_bytes(rows(shown(3, "u7")))  # shorter than what was read of it
    assert read() == {CANARY: (0, 3), STABLE: (0, 1)}
    assert read() == {CANARY: (0, 3), STABLE: (0, 1)}
    assert log.unread == 0


def test_what_several_hosts_log_is_taken_in_by_time(logs):
    """Far more showings than are kept: the clicks of each host must meet them before they are forgotten."""
    folder, _, _ = logs
    test = LossTest()
    join = ClickJoin(test, 100)
    users = [f"u{number}" for number in range(2000)]
    append_rows(folder / "m.exposures.jsonl", rows(*(shown(n, user) for n, user in enumerate(users))))
    append_rows(folder / "clicks-a.jsonl", rows(*(click(n + 5, users[n]) for n in range(0, 2000, 4))))
    append_rows(folder / "clicks-b.jsonl", rows(*(click(n + 5, users[n]) for n in range(1, 2000, 4))))
    ClickLog([str(folder / "m.exp*")], [str(folder / "clicks-*")]).read(join, "c")
    assert {arm: rate.clicks for arm, rate in test.rates().items()} == {STABLE: 500, CANARY: 500}
