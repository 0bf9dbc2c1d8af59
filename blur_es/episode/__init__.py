"""Episodes: how they are specified, made, and what they do to their inputs."""

from __future__ import annotations

from blur_es.episode.episode import (
    MAXIMUM_LENGTH,
    Episode,
    EpisodeSpec,
    Length,
    initial_noise,
    make_episode,
    signed_labels,
)

__all__ = [
    "MAXIMUM_LENGTH",
    "Episode",
    "EpisodeSpec",
    "Length",
    "initial_noise",
    "make_episode",
    "signed_labels",
]
