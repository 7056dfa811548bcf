"""What the evaluator is told of how to judge lists, and the doing of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from pydantic import BaseModel

from components.catalogue import candidates
from components.evaluator.ranking.held_out import Columns
from components.evaluator.ranking.judge import rank
from components.evaluator.ranking.ranked import RANKED_FILE, Ranked, RankingMetrics
from configs import Config
from configs.features import columns_from_json, columns_to_json
from configs.gates import Ranking
from configs.retrieval import Retrieval

EARLIER_SPLITS = {"test": ("train", "eval"), "eval": ("train",)}  # what a user has met when a split is judged


class RankedBy(BaseModel):
    """How lists are judged; of `columns`, JSON, those of users and context are what models are asked about."""

    user: str
    item: str
    time: str | None
    columns: str
    ranking: Ranking
    retrieval: Retrieval

    @classmethod
    def of(cls, config: Config) -> RankedBy | None:
        """Return it for a config; None where lists are not judged."""
        if (ranking := config.ranking) is None:
            return None
        return cls(
            user=config.data.user,
            item=config.data.item,
            time=config.data.time,
            columns=columns_to_json(config.raw_columns.values()),
            ranking=ranking,
            retrieval=config.retrieval,
        )

    def to_json(self) -> str:
        """Return it as JSON."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> RankedBy:
        """Read it again."""
        return cls.model_validate_json(text)

    @property
    def known_columns(self) -> Columns:
        """The columns that matter."""
        return Columns(self.user, self.item, self.time, columns_from_json(self.columns))

    def lists(self, models: Mapping[str, str], files: Callable[[str], list[str]], split: str, catalogue: str) -> Ranked:
        """Return the lists of SavedModels for the users of a split; `files` gives the Examples of one."""
        columns = self.known_columns
        items = candidates(catalogue, self.item, columns.raw)
        earlier = [file for before in EARLIER_SPLITS[split] for file in files(before)]
        return rank(models, files(split), earlier, columns, items, self.ranking, self.retrieval)

    def rank(
        self, models: Mapping[str, str], files: Callable[[str], list[str]], catalogue: str, output: str
    ) -> RankingMetrics:
        """Write the lists for the users of the test split to `output`; return TFMA's metric of them."""
        ranked = self.lists(models, files, "test", catalogue)
        path = os.path.join(output, RANKED_FILE)
        os.makedirs(output, exist_ok=True)
        ranked.save(path)
        return RankingMetrics(path, self.user, self.item)
