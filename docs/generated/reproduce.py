"""The comparison with the paper in `docs/reproduce.md`, from `docs/results/reproduce`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from blur_es.reproduce.results import Summary, read_results, summaries
from blur_es.util.markdown import markdown_table
from docs.generated.results import RESULTS


def _summaries(name: str, *labels: str) -> list[Summary]:
    """The summaries of a result at full size that have all these labels."""
    return [
        each
        for each in summaries(read_results(RESULTS / f"{name}.json"))
        if set(labels) <= {str(label) for label in each.labels.values()}
    ]


def _span(values: Iterable[float], digits: int = 2) -> str:
    """The smallest and the largest value, or the only one."""
    found = [f"{value:.{digits}f}" for value in sorted(values)]
    return found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def _medians(found: Iterable[Summary]) -> list[float]:
    return [each.median for each in found]


def _comparison() -> list[str]:
    variants = _summaries("variants")
    single = [each for each in variants if ", single, " in each.labels["variant"]]
    additive, multiplicative = (
        [each for each in single if each.labels["backward update"] == update]
        for update in ("additive", "multiplicative")
    )
    [shallow] = _summaries("architectures", "1 layer", "2")
    [normalized] = _summaries("long_episodes", "normalised")
    states = [each for k in (2, 3, 4) for each in _summaries("states", f"{k} states")]
    rows = [
        (
            "3, 4",
            "a rule trained on simple functions learns others",
            "confirmed; MNIST is learned with some seeds, and poorly",
        ),
        (
            "6",
            "ahead of gradient descent with and without momentum at every learning rate",
            "confirmed for plain networks; the README has the comparison with batch normalisation",
        ),
        (
            "7",
            "CMA-ES needs only accuracies and finds rules that learn",
            "confirmed, with better rules than in the paper; meta-gradients find better rules in "
            "less time",
        ),
        (
            "8",
            "normalising both passes makes rules generalise",
            "confirmed for other layer sizes with one hidden layer. Rules trained with one hidden "
            "layer fail with two and three, whichever passes are normalised; they fail least if "
            "only the forward pass is",
        ),
        (
            "9, 17",
            "eight variants of symmetry, states and initialisation, with three backward updates, "
            "all learn",
            f"confirmed on MNIST, with medians of {_span(_medians(variants))}. With one state per "
            "synapse the multiplicative update is better than the additive one "
            f"({_span(_medians(multiplicative))}, compared with {_span(_medians(additive))}) and "
            f"its best seeds reach {_span(each.best for each in multiplicative)}; with several "
            "states it is not",
        ),
        (
            "10",
            "a rule trained with few layers learns with more",
            f"not from one hidden layer: with two, the median is {shallow.median:.2f}. From two "
            "hidden layers it depends on the seed. From four, most seeds learn with one to five "
            "layers, but some fail with one and with five. If rules are meta-trained on three "
            "depths at once, none fails there. With ten layers, no rule of any kind exceeds "
            f"{max(each.high for each in _summaries('architectures', '10')):.2f}",
        ),
        (
            "12",
            "the choice of activation function matters little",
            f"confirmed: medians of {_span(_medians(_summaries('nonlinearities')), 3)}; the "
            "identity is among the best",
        ),
        (
            "13",
            "more states are better",
            f"one state is worse ({_span(_medians(_summaries('states', '1 state')))}); two, three "
            f"and four are alike ({_span(_medians(states))}); eight are no better with the same "
            "number of evaluations",
        ),
        (
            "15, 16",
            "the Oja term and normalised synapses hold in long episodes",
            "normalised synapses stay bounded for 500 steps (best "
            f"{normalized.best:.2f}, median {normalized.median:.2f}). The Oja term from "
            "activations, with or without a learned factor, does not bound them: all genomes with "
            "it have diverged by then, most before step 250, and so have all without it. A weak "
            "Oja term from weights does ([analysis](analysis.md))",
        ),
    ]
    return markdown_table(["figure", "the paper", "here"], [list(row) for row in rows])


PARTS: dict[str, Callable[[], list[str]]] = {"comparison": _comparison}
