"""The structure of the package: layers, circles, and the sizes of modules and folders.

`LAYERS` is the one place where the order of layers is written down. A unit is a file or folder
directly inside `blur_es/`. It may import from units to the left of it, never from units to the
right. Imports inside functions count; imports for type checkers only (`if TYPE_CHECKING`) do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "blur_es"
LONGEST_MODULE = 500
MOST_LOOSE_FILES = 10

LAYERS = (
    "redact",
    *("errors", "util"),
    *("keys", "rule", "rules"),
    *("fitness", "storage", "genome"),
    *("tasks", "episode"),
    "inner",
    *("config", "evaluator"),
    *("run", "genomes"),
    *("fleet", "classifier"),
    *("meta", "analysis"),
    *("report", "experiment", "reproduce"),
    "cli",
)


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name without `blur_es.`; `""` is the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import of a module, without those of `if TYPE_CHECKING` blocks."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from statements(other)
        elif isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        else:
            yield from statements(child)


def imports(module: str, path: Path) -> set[str]:
    """The modules of the package that a module imports."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for statement in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        else:
            base = statement.module or ""
            if statement.level:
                parts = ["blur_es", *filter(None, package.split("."))]
                base = ".".join([*parts[: len(parts) + 1 - statement.level], *filter(None, [base])])
            names = [f"{base}.{alias.name}" for alias in statement.names]
        for name in names:
            if not f"{name}.".startswith("blur_es."):
                continue
            # The name of a module, or of something inside a module.
            inside = name.removeprefix("blur_es").removeprefix(".")
            while inside not in MODULES:
                inside = inside.rpartition(".")[0]
            if inside:
                found.add(inside)
    return found - {module}


IMPORTS = {module: imports(module, path) for module, path in MODULES.items()}


def unit(module: str) -> str:
    """The file or folder directly inside the package that a module belongs to."""
    return module.partition(".")[0]


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of several nodes that all reach each other (strongly connected components)."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        pending = [start]
        while pending:
            for following in graph[pending.pop()] - seen:
                seen.add(following)
                pending.append(following)
        reached[start] = seen
    return {
        frozenset(other for other in reached[node] if node in reached[other])
        for node in graph
        if node in reached[node]
    }


def upward_imports() -> set[tuple[str, str]]:
    """Pairs (module, imported module) that go against the order of layers."""
    return {
        (module, imported)
        for module, targets in IMPORTS.items()
        for imported in targets
        if module and LAYERS.index(unit(imported)) > LAYERS.index(unit(module))
    }


def module_lengths() -> dict[str, int]:
    """Lines of every module."""
    return {
        module: len(path.read_text(encoding="utf-8").splitlines())
        for module, path in MODULES.items()
    }


def test_every_unit_has_a_layer() -> None:
    assert sorted(LAYERS) == sorted({unit(module) for module in MODULES} - {""})


def test_imports_run_downward() -> None:
    assert upward_imports() == set()


def test_there_are_no_circular_imports() -> None:
    assert circles(IMPORTS) == set()
    units: dict[str, set[str]] = {unit(module): set() for module in MODULES}
    for module, targets in IMPORTS.items():
        units[unit(module)] |= {unit(target) for target in targets} - {unit(module)}
    assert circles(units) == set()


def test_modules_are_short() -> None:
    assert {name for name, lines in module_lengths().items() if lines > LONGEST_MODULE} == set()


def test_few_files_are_directly_in_the_package() -> None:
    loose = [path.name for path in PACKAGE.iterdir() if path.suffix in {".py", ".typed"}]
    assert len(loose) <= MOST_LOOSE_FILES, loose


def test_the_check_itself_finds_circles_and_relative_imports() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}
    assert circles({"a": {"b"}, "b": set()}) == set()
    source = "if TYPE_CHECKING:\n    import a\ndef f():\n    from . import b\n"
    found = list(statements(ast.parse(source)))
    assert [statement.names[0].name for statement in found] == ["b"]
