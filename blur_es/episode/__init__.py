"""Episodes: how they are specified and made, and how their inputs are prepared."""

from __future__ import annotations

from blur_es.episode.episode import Episode, initial_noise
from blur_es.episode.make import check_regression, make_episode, signed_labels
from blur_es.episode.spec import (
    MAXIMUM_LENGTH,
    EpisodeSpec,
    Length,
    Lengths,
    Rows,
    Scale,
    Share,
    drawn_unroll,
)

__all__ = [
    "MAXIMUM_LENGTH",
    "Episode",
    "EpisodeSpec",
    "Length",
    "Lengths",
    "Rows",
    "Scale",
    "Share",
    "check_regression",
    "drawn_unroll",
    "initial_noise",
    "make_episode",
    "signed_labels",
]
