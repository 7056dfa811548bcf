"""What a node runs, as a digest for its cache key: our own source that its executor imports, and library versions.

TFX's key knows a node's parameters and inputs, and of code only a module file's text. What is read here is the source,
not what is loaded: the digest is the same whatever else the process has imported.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tfx.orchestration.local import runner_utils
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2

CODE = "code"  # the parameter that carries the digest
_ROOMS = ("components", "configs", "interactions", "models", "pipeline", "serving", "transforms")
_SHARED = 5
_DOTTED = re.compile(rf"(?:{'|'.join(_ROOMS)})(?:\.\w+)+")
_CLASS = re.compile(rf"{_DOTTED.pattern}:\w+")


def add_digests(pipeline: pipeline_pb2.Pipeline) -> None:
    """Give every node of a compiled pipeline that has an executor the parameter CODE."""
    deployment = runner_utils.extract_local_deployment_config(pipeline)
    for each in pipeline.nodes:
        node = each.pipeline_node
        if node.node_info.id not in deployment.executor_specs:
            continue
        parameters = node.parameters.parameters
        texts = [p.field_value.string_value for p in parameters.values() if p.HasField("field_value")]
        called = [text.rpartition(".")[0] for text in texts if _DOTTED.fullmatch(text)]
        spec = runner_utils.extract_executor_spec(deployment, node.node_info.id)
        parameters[CODE].field_value.string_value = digest_of([_module_of(spec), *called])


def digest_of(modules: Iterable[str]) -> str:
    """Return a digest of the modules, of all of ours that they import, and of the versions of the libraries used."""
    sources, libraries = closure(frozenset(modules))
    hashed = hashlib.sha256(f"python {sys.version_info.major}.{sys.version_info.minor}".encode())
    for path in sorted(sources):
        hashed.update(b"\0" + sources[path].encode() + b"\0" + path.read_bytes())
    for library in sorted(libraries):
        hashed.update(f"\0{library} {importlib.metadata.version(library)}".encode())
    return hashed.hexdigest()[:16]


@cache
def closure(modules: frozenset[str]) -> tuple[dict[Path, str], frozenset[str]]:
    """Return the source files of ours that the modules come to import, with their names, and the libraries they use.

    A module of a library counts as that library and those that it imports itself, no deeper. Classes that are named as
    `module:Class` count where something in the closure imports by name.
    """
    found: dict[Path, str] = {}
    libraries: set[str] = set()
    todo, by_name = list(modules), False
    seen: set[str] = set()
    named: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            path, ours = _file_of(name), name.partition(".")[0] in _ROOMS
            if not ours:
                libraries |= _library(name)
            if path is not None and (ours or name in modules):
                said = _read(path, name)
                todo += [each for each in said.imports if ours or each.partition(".")[0] not in _ROOMS]
            if path is not None and ours:
                found[path] = name
                todo += [parent for parent in [name.rpartition(".")[0]] if parent]
                named |= said.classes
                by_name |= said.by_name
        if not todo and by_name:
            todo += named - seen
    return found, frozenset(libraries)


def _module_of(spec: executable_spec_pb2.PythonClassExecutableSpec) -> str:
    inner = getattr(spec, "python_executor_spec", spec)  # Beam's executors wrap theirs
    return inner.class_path.rpartition(".")[0]


def _file_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module) if module.partition(".")[0] not in sys.stdlib_module_names else None
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


@dataclass(frozen=True)
class _Source:
    """What a file imports anywhere in it, the modules of classes that it names, and whether it imports by name."""

    imports: frozenset[str]
    classes: frozenset[str]
    by_name: bool


@cache
def _read(path: Path, module: str) -> _Source:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports, classes = set(_imported(tree)), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _DOTTED.fullmatch(node.value):
                imports.add(node.value)  # a module that is run as a process of its own, or a function of one
            elif _CLASS.fullmatch(node.value):
                classes.add(node.value.partition(":")[0])
    called = {node.attr if isinstance(node, ast.Attribute) else node.id
              for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}  # fmt: skip
    walks = "iter_modules" in called
    if walks:
        imports |= {f"{module}.{sibling.stem}" for sibling in path.parent.glob("*.py") if sibling != path}
    return _Source(frozenset(imports), frozenset(classes), "import_module" in called and not walks)


def _imported(tree: ast.AST) -> Iterator[str]:
    """Yield the modules of import statements; of `from a import b` both a and a.b, which may be one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            if node.module.partition(".")[0] in _ROOMS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: list(found) for name, found in importlib.metadata.packages_distributions().items()}


def _library(module: str) -> set[str]:
    top, _, below = module.partition(".")
    found = set() if top in sys.stdlib_module_names else set(_distributions().get(top, []))
    # A namespace that many share, as google.protobuf: those that are called by what is imported.
    return found if len(found) < _SHARED else {each for each in found if each in below.split(".")}
