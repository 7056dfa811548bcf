"""TensorBoard's curves of one training: all workers' in one run, written by the chief."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf


class Curves:
    """Writes figures by evaluation to `folder`: train and eval side by side, and each worker's speed and waiting."""

    def __init__(self, folder: str):
        self._writers = {part: tf.summary.create_file_writer(f"{folder}/{part}") for part in ("train", "validation")}

    def add(self, epoch: Mapping[str, Any], workers: Sequence[Mapping[str, float]]) -> None:
        """Write one evaluation's figures."""
        at = epoch["evaluation"]
        for part, prefix in (("train", "train_"), ("validation", "eval_")):
            with self._writers[part].as_default():
                for name, value in epoch.items():
                    if name.startswith(prefix) and name != f"{prefix}one_label":
                        tf.summary.scalar(f"epoch_{name.removeprefix(prefix)}", value, step=at)
        with self._writers["train"].as_default():
            for index, worker in enumerate(workers):
                seconds = max(worker["seconds"], 1e-9)
                tf.summary.scalar(f"worker_{index}/examples_per_second", worker["examples"] / seconds, step=at)
                tf.summary.scalar(f"worker_{index}/waiting_share", worker["waited"] / seconds, step=at)
        for writer in self._writers.values():
            writer.flush()
