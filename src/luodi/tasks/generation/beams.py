"""Beam search: the likeliest texts side by side, the best one is the answer."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Bounded

from luodi.core.flow import Piece
from luodi.tasks.generation.sampling import Sampling, without
from luodi.tasks.generation.writing import Writing


class Search(BaseModel):
    """How many texts are followed at once, and how their probabilities are compared (arXiv 1609.08144, section 7).

    A text's score is the sum of its log-probabilities over (its tokens, the end counted) to the power of
    `length_penalty`: 0 compares probabilities, which favours short texts, 1 their geometric mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    beams: Annotated[int, Bounded(ge=1, le=64)] = 1  # 1: greedy, or drawn
    length_penalty: Annotated[float, Bounded(ge=0, le=4)] = 1.0


def objection(rules: Sampling, search: Search) -> str:
    """Why these rules cannot go together, "" if they can."""
    drawn = {"temperature": rules.temperature > 0, "repetition": rules.repetition != 1, "stop": bool(rules.stop)}
    wrong = next((name for name, given in drawn.items() if given), "")
    return f"a search of {search.beams} beams takes no {wrong}: that is for beams: 1" * (
        search.beams > 1 and bool(wrong)
    )


class Beams:
    """The likeliest ways to go on with one text. It ends once as many have ended as there are beams, or at its most
    tokens; what was cut off there is compared with what ended."""

    def __init__(self, writing: Writing, search: Search) -> None:
        self.writing, self.search = writing, search
        self.alive: list[tuple[float, list[int]]] = [(0.0, [])]  # summed log-probability, tokens; the likeliest first
        self.ended: list[tuple[float, list[int], str]] = []  # score, tokens, why

    @property
    def ticket(self) -> int:
        return self.writing.ticket

    @property
    def finish(self) -> str:
        return self.writing.finish

    @property
    def lines(self) -> list[list[int]]:
        return [[*self.writing.prompt, *ids] for _, ids in self.alive]

    def over(self) -> bool:
        return self.writing.over()

    def piece(self, more: str) -> Piece:
        return self.writing.piece(more)

    def go_on(self, logits: Any) -> tuple[Piece, list[int]]:
        """One more token of every line, from logits (lines, vocabulary), and from which line each next one comes."""
        sums = log_shares(without(logits, self.writing.cutter.never)) + np.asarray([[score] for score, _ in self.alive])
        width, vocabulary = self.search.beams, sums.shape[1]
        alive: list[tuple[float, list[int]]] = []
        parents: list[int] = []
        # A line may end only with a token that is among the `beams` best: else one beam would not be greedy.
        for rank, at in enumerate(likeliest(sums.ravel(), width * (1 + len(self.writing.cutter.ends)))):
            parent, token = divmod(int(at), vocabulary)
            score, ids = float(sums[parent, token]), [*self.alive[parent][1], token]
            if self.writing.is_end(token):
                if rank < width:
                    self._end(score, ids, "end")
            elif len(alive) < width:
                alive.append((score, ids))
                parents.append(parent)
        self.alive = alive
        tokens = len(alive[0][1]) if alive else 0
        if tokens >= self.writing.most:
            for score, ids in alive:
                self._end(score, ids, "length")
            return self._best(), []
        if len(self.ended) >= width or not alive:
            return self._best(), []
        return self.writing.piece("", tokens), parents

    def _end(self, score: float, ids: list[int], why: str) -> None:
        self.ended.append((score / len(ids) ** self.search.length_penalty, ids, why))

    def _best(self) -> Piece:
        writing = self.writing
        _, writing.ids, writing.finish = max(self.ended, key=lambda one: one[0])  # of equals the first
        return writing.piece(writing.text(writing.ids[:-1] if writing.finish == "end" else writing.ids))


def log_shares(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (rows, vocabulary) float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def likeliest(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` highest scores (n,), the highest first; ties in their order."""
    if count < len(scores):
        at = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    else:
        at = np.arange(len(scores))
    return at[np.argsort(-scores[at], kind="stable")][:count]
