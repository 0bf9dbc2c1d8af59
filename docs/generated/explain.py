"""Tables and equations of `docs/explain.md`, from `docs/results/explain.json`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blur_es.analysis.equations import number, rule_equations
from blur_es.analysis.symmetries import canonical_genome
from blur_es.genomes import load_genome
from blur_es.util.markdown import markdown_table
from docs.generated.common import Row, accuracy, origin, read

MAIN = "mnist-3state"


def _block(equations: Sequence[str]) -> list[str]:
    return ["```text", *equations, "```"]


def _terms(content: Row) -> list[str]:
    return markdown_table(
        ["term", "value", "replaced by", "accuracy lost"],
        [
            [
                f"`{term['name']}`" if term["value"] is not None else term["name"],
                *(
                    "" if term[key] is None else number(term[key])
                    for key in ("value", "replacement")
                ),
                f"{term['lost']:.3f}",
            ]
            for term in content["terms"]
        ],
    )


def _values(term: Row) -> tuple[float | None, float | None]:
    return term["value"], term["replacement"]


def _shipped() -> list[str]:
    return markdown_table(
        ["genome", "numbers other than 0 and 1", "simplified", "test accuracy", "simplified"],
        [
            [
                f"`{name}`" + (" (R²)" if content["score"] == "r2" else ""),
                *map(str, content["numbers"]),
                *(f"{value:.3f}" for value in content["test"]),
            ]
            for name, content in read("explain")["explained"].items()
        ],
    )


def _setup() -> list[str]:
    results = read("explain")
    return [
        f"Each genome was explained on MNIST at 14x14, in a network with one hidden layer of "
        f"{results['hidden']}, after {results['steps']} steps with batches of 128; "
        "`regression-4state` on the function `friedman1`, where the measure is R². At most "
        f"{results['tolerance']} of accuracy may be lost. Accuracies are means over "
        f"{results['episodes']} test episodes."
    ]


def _comparison_setup() -> list[str]:
    results = read("explain")
    return [
        f"These are test accuracies after {results['steps']} steps with batches of 128 on MNIST at "
        f"14x14, with one hidden layer of {results['sparse_hidden']}, mean ± standard deviation "
        f"over {results['compared_episodes']} episodes. Learning rates of Adam are tuned on other "
        "episodes, with a constant rate and with a cosine schedule, in the plain network and in "
        "one with batch normalisation. The search used the same task, but other rows of it."
    ]


def _others() -> list[str]:
    """The equations of all shipped genomes but the main one."""
    lines: list[str] = []
    for name, content in read("explain")["explained"].items():
        if name != MAIN:
            lines += [*([""] if lines else []), f"### {name}", "", *_block(content["equations"])]
    return lines


def _comparison() -> list[str]:
    entries = sorted(read("explain")["comparison"], key=lambda entry: -float(entry["mean"]))
    rows = []
    for entry in entries:
        name = "**the rule with few numbers**" if entry["learned"] else entry["name"]
        rows.append([name, accuracy(entry)])
    return markdown_table(["", f"test accuracy after {read('explain')['steps']} steps"], rows)


def _sparse_numbers() -> list[str]:
    content = read("explain")["sparse"]
    before, after = content["numbers"]
    return [
        f"The genome that the search found has {before} numbers other than 0 and 1. Simplified, it "
        f"has {after}, and its test accuracy is {content['test'][1]:.3f} in place of "
        f"{content['test'][0]:.3f}."
    ]


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": lambda: origin(read("explain")),
    "backprop": lambda: _block(rule_equations(canonical_genome(load_genome("backprop"))[0])),
    "setup": _setup,
    "shipped": _shipped,
    "main": lambda: _block(read("explain")["explained"][MAIN]["equations"]),
    "main_terms": lambda: _terms(read("explain")["explained"][MAIN]),
    "others": _others,
    "comparison": _comparison,
    "comparison_setup": _comparison_setup,
    "sparse_numbers": _sparse_numbers,
    "sparse": lambda: _block(read("explain")["sparse"]["equations"]),
    "sparse_terms": lambda: _terms(read("explain")["sparse"]),
}
