"""Options: every problem is described with its key, what was found and what was expected."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from blur_es.errors import InputError
from blur_es.util.options import Number, Options, Whole, from_options, options_dataclass


class Inner(Options):
    names: list[Literal["left", "right"]] = Field(default=["left"])


class Outer(Options):
    size: Annotated[Whole, Field(ge=1, le=9)] | Literal["auto"] = "auto"
    rate: float = Field(default=0.5, gt=0)
    path: str = Field(description="the path of a folder")
    inner: Inner | None = None
    weights: dict[str, float] = Field(default={})


@options_dataclass("lengths")
class Lengths:
    steps: Annotated[Whole, Field(ge=1)]
    scale: Number = 1.0

    def __post_init__(self) -> None:
        if self.steps == 13:
            raise InputError("lengths.steps: found 13, expected a lucky number")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "outer.path: this key is missing; expected the path of a folder"),
        ({"path": 3}, "outer.path: found 3, expected the path of a folder"),
        ({"path": "", "size": 0}, "outer.size: found 0, expected auto or a whole number, 1 to 9"),
        ({"path": "", "size": "aut"}, "1 to 9 (did you mean 'auto'?)"),
        ({"path": "", "rate": 0}, "outer.rate: found 0, expected a number above 0"),
        ({"path": "", "rate": True}, "outer.rate: found True, expected a number above 0"),
        ({"path": "", "inner": 3}, "outer.inner: found 3, expected keys and values"),
        ({"path": "", "inner": {"name": 3}}, "outer.inner.name: unknown key (did you mean 'names'"),
        (
            {"path": "", "inner": {"names": ["left", "rihgt"]}},
            "outer.inner.names.1: found 'rihgt', expected one of left, right (did you mean 'right'",
        ),
        ({"path": "", "weights": {"a": "b"}}, "outer.weights.a: found 'b', expected a number"),
        ({"path": "x", "size": 10**5000}, "outer.size: found a int too large to show"),
        ({"path": ["x" * 10_000]}, "..., expected the path"),
        ([1], "outer: found [1], expected keys and values"),
    ],
)
def test_problems_are_described(options: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        from_options(Outer, options, "outer")
    assert message in str(error.value)
    assert len(str(error.value)) < 400


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(InputError) as error:
        Outer.checked({"size": 0, "rate": 0, "nothing": 0}, "outer")
    assert len(str(error.value).splitlines()) == 4


def test_a_dataclass_of_options() -> None:
    lengths = Lengths(3, 2)
    assert (lengths.steps, lengths.scale) == (3, 2.0)
    assert isinstance(lengths.scale, float)
    assert lengths == Lengths(steps=3, scale=2.0) == pickle.loads(pickle.dumps(lengths))
    assert dataclasses.replace(lengths, steps=4).steps == 4
    assert from_options(Lengths, {"steps": 3, "scale": 2}, "lengths") == lengths
    with pytest.raises(dataclasses.FrozenInstanceError):
        lengths.steps = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "lengths.steps: found 0, expected a whole number, 1 or more"),
        ((1, "2"), {}, "lengths.scale: found '2', expected a number"),
        ((1, float("nan")), {}, "lengths.scale: found nan, expected a finite number"),
        ((), {"scale": 1.0}, "lengths.steps: this key is missing"),
        ((1,), {"step": 2}, "lengths.step: unknown key (did you mean 'steps'?)"),
        ((13,), {}, "lengths.steps: found 13, expected a lucky number"),
    ],
)
def test_a_wrong_dataclass_of_options(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        Lengths(*arguments, **options)
    assert str(error.value).startswith(message)
