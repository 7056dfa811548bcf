import json
import shutil
import socket
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from pipeline import doctor
from pipeline.commands.doctor import doctor as command

GIB = 1 << 30


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(command)
    return app


def test_this_environment_is_fit(app, tmp_path):
    result = CliRunner().invoke(app, ["--folder", str(tmp_path / "runs"), "--json"])
    report = json.loads(result.output)
    assert [f for f in report["findings"] if f["status"] == "fail"] == []
    assert report["fit"] is True
    assert result.exit_code == 0
    names = {f["name"] for f in report["findings"]}
    assert {"Python", "C library", "cores", "memory", "port 8500", "port 8501", "libraries", "lock"} <= names
    assert {"loading tensorflow", "loading tensorflow_data_validation", "loading ml_metadata"} <= names
    assert not (tmp_path / "runs").exists()


def test_every_finding_that_is_not_ok_says_what_to_do(app, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_glibc", lambda: "2.36")
    monkeypatch.setattr(doctor, "_memory_limit", lambda: 3 * GIB)
    result = CliRunner().invoke(app, ["--folder", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "glibc 2.36, needed 2.38" in result.output
    assert "deploy/pipeline.Dockerfile" in result.output
    assert "3.0 GiB available (container limit)" in result.output
    assert "1 to mend" in result.output
    findings = json.loads(CliRunner().invoke(app, ["--json"]).output)["findings"]
    assert all(f["advice"] for f in findings if f["status"] != "ok")
    assert {f["status"] for f in findings} >= {"ok", "warn", "fail"}


def test_it_never_imports_what_it_judges():
    code = (
        "import sys; from pathlib import Path; from pipeline.doctor import examine; list(examine(Path('.')));"
        "sys.exit(sorted({'tensorflow', 'tfx', 'tfx_bsl', 'apache_beam', 'ml_metadata'} & set(sys.modules)) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("finding", "status", "found"),
    [
        (doctor.python_version((3, 11, 9)), "ok", "3.11.9"),
        (doctor.python_version((3, 12, 1)), "fail", "3.12.1, needed 3.11"),
        (doctor.glibc_version("Linux", "2.38"), "ok", "glibc 2.38"),
        (doctor.glibc_version("Linux", "2.100"), "ok", "glibc 2.100"),
        (doctor.glibc_version("Linux", "2.37"), "fail", "glibc 2.37"),
        (doctor.glibc_version("Linux", None), "fail", "not glibc"),
        (doctor.glibc_version("Darwin", None), "ok", "macOS"),
        (doctor.cores(1), "warn", "1"),
        (doctor.cores(2), "ok", "2"),
        (doctor.memory(16 * GIB, None), "ok", "16.0 GiB available"),
        (doctor.memory(16 * GIB, 1 * GIB), "fail", "1.0 GiB available (container limit)"),
        (doctor.memory(4 * GIB, 64 * GIB), "warn", "4.0 GiB available"),
    ],
)
def test_limits(finding, status, found):
    assert finding.status == status
    assert finding.found.startswith(found)
    assert bool(finding.advice) == (status != "ok")


@pytest.mark.parametrize(("free", "status"), [(6 * GIB, "ok"), (2 * GIB, "warn"), (GIB // 2, "fail")])
def test_disk_is_that_of_the_nearest_folder_there_is(monkeypatch, tmp_path, free, status):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or shutil._ntuple_diskusage(1, 1, free))
    finding = doctor.disk("disk, runs", tmp_path / "not" / "yet")
    assert (finding.status, asked) == (status, [tmp_path])


def test_a_file_in_the_way_of_the_run_folder_is_found(tmp_path):
    (tmp_path / "runs").write_text("a file")
    assert doctor.disk("disk, runs", tmp_path / "runs" / "mine").status == "fail"


def test_a_port_that_is_taken_is_found_and_free_again_afterwards():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert doctor.port_free(port).status == "warn"
    assert doctor.port_free(port).status == "ok"


def test_required_libraries():
    requirements = ["here==1.0", "old>=2,<3", "gone>=1", 'windows==1; sys_platform == "win32"', 'more; extra == "dev"']
    finding = doctor.required_libraries(requirements, {"here": "1.0", "old": "1.9"}.get)
    assert finding.status == "fail"
    assert finding.found == "old 1.9, needed <3,>=2; gone is missing"
    assert "make setup" in finding.advice
    assert doctor.required_libraries(requirements[:1], {"here": "1.0"}.get).found == "all 1 required ones"


LOCK = {
    "package": [
        {
            "name": "tfx-recsys",
            "version": "0.1.0",
            "dependencies": [{"name": "a", "extra": ["fast"]}, {"name": "w", "marker": "sys_platform == 'win32'"}],
            "dev-dependencies": {"dev": [{"name": "linter"}]},
        },
        {
            "name": "a",
            "version": "1",
            "dependencies": [{"name": "b"}],
            "optional-dependencies": {"fast": [{"name": "c"}]},
        },
        {"name": "b", "version": "1", "dependencies": [{"name": "a"}]},
        {"name": "c", "version": "1"},
        {"name": "w", "version": "1"},
        {"name": "linter", "version": "1"},
    ]
}


@pytest.mark.parametrize(
    ("installed", "status", "found"),
    [
        ({"a": "1", "b": "1", "c": "1"}, "ok", "all 3 as in uv.lock"),
        ({"a": "1", "b": "2", "c": "1"}, "warn", "b 2, locked 1"),
        ({"a": "1", "b": "2"}, "fail", "c is missing; b 2, locked 1"),
    ],
)
def test_locked_libraries_are_those_needed_here(installed, status, found):
    finding = doctor.locked_libraries(LOCK, installed.get)
    assert (finding.status, finding.found) == (status, found)


@pytest.fixture
def broken_package(tmp_path, monkeypatch):
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "part.so").write_bytes(b"not a shared object")
    monkeypatch.syspath_prepend(tmp_path)
    return {"broken_package": ["*.so"]}


def test_a_compiled_part_that_does_not_load_is_found(broken_package):
    (finding,) = doctor.compiled_libraries(broken_package)
    assert finding.status == "fail"
    assert "part.so" in finding.found


def test_a_compiled_part_that_is_gone_is_found(broken_package):
    findings = list(doctor.compiled_libraries({"broken_package": ["*.dylib"], "no_such_package": ["*.so"]}))
    assert [f.status for f in findings] == ["fail", "fail"]
    assert all("not installed" in f.found for f in findings)


def test_a_process_that_dies_while_loading_is_a_finding(broken_package, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    (finding,) = doctor.compiled_libraries(broken_package)
    assert (finding.status, finding.found) == ("fail", "loading it ended the process")
