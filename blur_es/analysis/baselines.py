"""The baselines of comparisons: optimisers with learning rates and schedules, and classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from blur_es.errors import InputError, nearest

Schedule = Literal["constant", "cosine"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

# 13 rates over four orders of magnitude: neighbours differ by a factor of 2.15, which rarely makes
# a visible difference, and the best rate should be well inside the range. The steps of Adam and
# similar optimisers are as large as their rate, whatever the gradient. The steps of the others are
# proportional to the gradient of a mean over the batch, which is small, so they need larger rates.
# (This holds for Adagrad at first, because optax begins its sums of squares with 0.1.)
_SCALED = tuple(10.0 ** np.linspace(-3.0, 1.0, 13))
_UNSCALED = tuple(10.0 ** np.linspace(-4.0, 0.0, 13))

# SGD with and without momentum is the baseline of the paper. The others are common choices: steps
# normalised by the size of gradients, without momentum (Adagrad, RMSProp) and with it (Adam); Adam
# with weight decay; steps of equal size (Lion); orthogonalised steps (Muon); and averaging instead
# of a schedule (Schedule-Free AdamW).
LEARNING_RATES: dict[str, tuple[float, ...]] = {
    "sgd": _SCALED,
    "sgd + momentum": _SCALED,
    "sgd + nesterov": _SCALED,
    "adagrad": _SCALED,
    "rmsprop": _UNSCALED,
    "adam": _UNSCALED,
    "adamw": _UNSCALED,
    "lion": _UNSCALED,
    "muon": _UNSCALED,
    "schedule-free": _UNSCALED,
}

# These optimisers replace a schedule by averaging, so they are trained with a constant rate only.
WITHOUT_SCHEDULE = ("schedule-free",)

# The baselines at the end of every training: the other optimisers are similar to one of them.
USUAL_BASELINES = ("sgd", "sgd + momentum", "adam")

# Classifiers of scikit-learn: short names, and names in tables.
CLASSIFIERS = {
    "knn": "nearest neighbour",
    "lda": "linear discriminant analysis",
    "logistic": "logistic regression",
    "svm": "RBF support vector machine",
}


class Baseline(NamedTuple):
    """An optimiser, with a plain or a normalised network, that learns in the same episodes.

    Attributes:
        optimizer: name of the optimiser.
        normalized: whether its network has batch normalisation.
        learning_rates: the rates to try, in rising order.
        schedules: the schedules of the rate to try; each gives a separate entry.
    """

    optimizer: str
    normalized: bool
    learning_rates: tuple[float, ...]
    schedules: tuple[Schedule, ...] = ("constant",)


def baselines_of(
    learning_rates: Mapping[str, Sequence[float]], schedules: Sequence[Schedule] = ("constant",)
) -> list[Baseline]:
    """Return every optimiser, with a plain and with a normalised network."""
    return [
        Baseline(
            optimizer,
            normalized,
            tuple(rates),
            ("constant",) if optimizer in WITHOUT_SCHEDULE else tuple(schedules),
        )
        for optimizer, rates in learning_rates.items()
        for normalized in (False, True)
    ]


def optimizer_names(text: str, option: str = "--optimizers") -> tuple[str, ...]:
    """Parse a list of optimisers such as `sgd,momentum,adam`; `sgd + momentum` is accepted too.

    Raises `InputError`, whose message begins with `option`, for an unknown name or an empty list.
    """
    short = {name.rpartition(" ")[2]: name for name in LEARNING_RATES}
    return _chosen(text, option, "optimizer", short, LEARNING_RATES)


def classifier_names(text: str, option: str = "--classifiers") -> tuple[str, ...]:
    """Parse a list of classifiers such as `knn,svm`, or `none`. Raises `InputError`."""
    if text.strip() == "none":
        return ()
    names = {name: name for name in CLASSIFIERS}
    return _chosen(text, option, "classifier", names, names)


def schedule_names(text: str, option: str = "--schedules") -> tuple[Schedule, ...]:
    """Parse a list of schedules such as `constant,cosine`. Raises `InputError`."""
    names: dict[str, str] = {name: name for name in SCHEDULES}
    chosen = _chosen(text, option, "schedule", names, names)
    return tuple(schedule for schedule in SCHEDULES if schedule in chosen)


def _chosen(
    text: str, option: str, what: str, short: Mapping[str, str], known: Mapping[str, Any]
) -> tuple[str, ...]:
    names = []
    for given in filter(None, (part.strip() for part in text.split(","))):
        name = short.get(given, given)
        if name not in known:
            raise InputError(
                f"{option}: unknown {what} {given!r}{nearest(given, short)}; expected some of "
                f"{', '.join(short)}"
            )
        names.append(name)
    if not names:
        raise InputError(f"{option}: found none, expected some of {', '.join(short)}")
    return tuple(dict.fromkeys(names))


def steps_to_compare(unroll: int) -> tuple[int, ...]:
    """Return the steps at which accuracy is compared by default: 1, 2, 5, 10, 20, ... and the last.

    They are spaced about evenly on a logarithmic axis.
    """
    series = (digit * 10**power for power in range(len(str(unroll))) for digit in (1, 2, 5))
    return tuple(sorted({step for step in series if step < unroll} | {unroll}))
