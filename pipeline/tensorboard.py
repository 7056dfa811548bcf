"""One folder for TensorBoard: the curves of a run's models, and embeddings with what people call the items."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from components.catalogue import Catalogue
from components.outcomes import NodeId, baseline_of
from configs import Config, ConfigError
from configs.features import Vocabulary
from models.export.projection import PROJECTION_FILE
from pipeline.running.nodes import Graph, Outcome


def make_board(config: Config, run: str | None) -> str:
    """Make the folder for a run, by default the newest training of each model, and return it.

    Raises ConfigError where nothing was trained.
    """
    graph = Graph(config)
    trainers = [node for node in graph.nodes if node == NodeId.TRAINER or baseline_of(node) is not None]
    curves = {}
    for node in trainers:
        if outcome := _outcome(graph, node, run):
            curves[baseline_of(node) or "candidate"] = outcome.uri("model_run")
    alone = sorted(Path(config.runs_folder, "training").glob("*/logs"), key=os.path.getmtime) if run is None else []
    curves |= {f"train/{path.parent.name}": str(path) for path in alone}
    if "candidate" not in curves and not alone:
        what = f"run {run} has" if run else "no run has"
        raise ConfigError(f"{config.runs_folder}: {what} trained a model; `recsys run {config.path}` does")
    folder = Path(config.runs_folder, "tensorboard", run or "newest")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, source in curves.items():
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        (beside / name).symlink_to(os.path.abspath(source))
    ingest = _outcome(graph, NodeId.INGEST, run)
    shown = curves.get("candidate") or str(alone[-1])
    _write_projector(config, Path(shown, "projection"), ingest, beside)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(beside, folder)
    return str(folder)


def _outcome(graph: Graph, node: str, run: str | None) -> Outcome | None:
    if run is not None:
        return graph.outcome(node, run)
    found = graph.latest(node)
    return found[0] if found else None


def _write_projector(config: Config, source: Path, ingest: Outcome | None, folder: Path) -> None:
    """Write the projector's config: vectors, and for each id its columns in the catalogue, as labels."""
    if not (source / PROJECTION_FILE).exists():
        return
    known = _item_columns(config, ingest) if ingest else {}
    parts = []
    # The item's embeddings come first: the page opens with them.
    tables = json.loads((source / PROJECTION_FILE).read_text())
    for name, shape in sorted(tables.items(), key=lambda table: not _is_item(config, table[0])):
        # A copy: its server reads nothing that a link leads out to.
        shutil.copyfile(source / f"{name}.tsv", folder / f"{name}.vectors.tsv")
        ids = (source / f"{name}.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        with open(folder / f"{name}.labels.tsv", "w", encoding="utf-8") as labels:
            if known and _is_item(config, name):
                columns = list(next(iter(known.values())))
                labels.write("\t".join([*columns, name]) + "\n")
                for item in ids:
                    cells = [*(known.get(item, {}).get(column, "") for column in columns), item]
                    labels.write("\t".join(" ".join(str(cell).split()) for cell in cells) + "\n")
            else:
                labels.writelines(f"{item}\n" for item in ids)
        parts.append(
            f'embeddings {{ tensor_name: "{name}" tensor_path: "{name}.vectors.tsv" metadata_path: "{name}.labels.tsv" '
            f"tensor_shape: {shape['rows']} tensor_shape: {shape['dim']} }}\n"
        )
    (folder / "projector_config.pbtxt").write_text("".join(parts))


def _is_item(config: Config, feature: str) -> bool:
    declared = config.features[feature]
    return isinstance(declared, Vocabulary) and (declared.column or feature) == config.data.item


def _item_columns(config: Config, ingest: Outcome) -> dict[str, dict[str, str]]:
    """Return by item what people call it, then its other columns."""
    items = Catalogue(ingest.uri("catalogue"), config).items()
    columns = {name: cells for name, cells in items.columns.items() if name != config.data.item}
    named = {config.data.display: items.names} if config.data.display else {}
    table = {**named, **columns}
    return {item: {name: str(cells[at]) for name, cells in table.items()} for at, item in enumerate(items.ids)}
