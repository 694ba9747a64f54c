"""The house: imports go down, without circles; private names stay in their folder; every thing is in its place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# a folder or file imports from those before it, and from its own
FLOORS = (
    "visible", "errors", "bounded", "paths", "arguments", "interrupts", "child", "config", "settings", "store",
    "grammar", "native", "reduction", "media", "models", "drawing", "results", "engine", "chat", "llm", "convert",
    "hub", "demo", "live", "batch", "lab", "server", "cli",
)  # fmt: skip
# SigLIP and CLIP are vision encoders that families share, as qwen2 and llama are text towers
FAMILIES = re.compile(r"onevision|llava|qwen-?[23]?\.?5?_?-?vl|internvl|smolvlm|gemma", re.IGNORECASE)
FAMILY_PLACES = ("aim_local/models/", "convert/families/")
MAX_FUNCTION, MAX_TEST_FILE = 50, 400


@dataclass(frozen=True)
class Import:
    """`name` is what is taken from `module`, "" for the module as a whole."""

    module: str
    name: str
    line: int


@dataclass(frozen=True)
class Source:
    """A file of the package. module: with the package's name in front, as it is imported."""

    path: Path
    module: str
    tree: ast.Module

    @property
    def where(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def floor(self) -> str:
        return FLOORS[-1] if is_door(self.module) else floor_of(self.module)

    @property
    def folder(self) -> str:
        return self.module.rpartition(".")[0] if self.path.stem != "__init__" else self.module


def floor_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def is_door(module: str) -> bool:
    """What `python -m` runs may take from every floor, and nothing may import it."""
    return module.endswith(".__main__")


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in ("cli", "convert"):
        parts.insert(0, "aim_local")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, Source]:
    files = [
        path
        for top in ("aim_local", "cli", "convert")
        for path in sorted((ROOT / top).rglob("*.py"))
        if not any(p.is_symlink() for p in path.parents)
    ]
    found = [Source(p, module_name(p), ast.parse(p.read_text(encoding="utf-8"), str(p))) for p in files]
    return {source.module: source for source in found}


def imports_of(source: Source) -> Iterator[Import]:
    """All of them: inside functions and for type checking only as well."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(source, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner, "", node.lineno) if inner in sources() else Import(base, alias.name, node.lineno)


def absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = source.folder.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def own_imports(source: Source) -> list[Import]:
    """Of our own modules."""
    return [found for found in imports_of(source) if found.module in sources() and found.module != source.module]


def test_no_circle() -> None:
    """Guards against files that need each other: a package's __init__ counts as the files it takes names from."""
    edges = {module: {found.module for found in own_imports(source)} for module, source in sources().items()}
    edges.pop("aim_local")  # its names come on demand
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module in done:
            return
        for other in sorted(edges.get(module, ())):
            visit(other, (*way, module))
        done.add(module)

    for module in sorted(edges):
        visit(module, ())


def test_imports_go_down() -> None:
    """Guards the order of the floors: what is below knows nothing of what is above."""
    wrong = [
        f"{source.where}:{found.line} takes {found.module} from above"
        for source in sources().values()
        if source.floor
        for found in own_imports(source)
        if is_door(found.module)
        or (floor_of(found.module) and FLOORS.index(floor_of(found.module)) > FLOORS.index(source.floor))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_private_name_crosses_a_folder() -> None:
    """Guards what a folder keeps to itself: names and modules that begin with an underscore."""
    wrong = [
        f"{source.where}:{found.line} takes {found.module}.{found.name}"
        for source in sources().values()
        for found in own_imports(source)
        if found.module.rpartition(".")[0] != source.folder and found.module != source.folder
        if found.name.startswith("_") or found.module.rpartition(".")[2].startswith("_")
    ]
    assert not wrong, "\n".join(wrong)


def test_ctypes_in_native_only() -> None:
    """Guards the native edge: no other folder handles pointers or loads libraries."""
    wrong = [
        f"{source.where}:{found.line}"
        for source in sources().values()
        for found in imports_of(source)
        if found.module.split(".")[0] in ("ctypes", "llama_cpp") and source.floor != "native"
    ]
    assert not wrong, "\n".join(wrong)


def test_families_are_named_in_their_own_files_only() -> None:
    """Guards the seam: a new family is a file of its own, a branch on its name elsewhere would be a second place."""
    wrong = [
        f"{source.where}:{number}: {line.strip()}"
        for source in sources().values()
        if not source.where.startswith(FAMILY_PLACES)
        for number, line in enumerate(source.path.read_text(encoding="utf-8").splitlines(), 1)
        if FAMILIES.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def functions(source: Source) -> Iterator[tuple[str, int, int]]:
    """(name, line, lines from the end of the signature on)"""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.body[0].lineno + 1


def test_functions_are_short() -> None:
    """Guards against functions that do not fit on a screen. Signatures are not counted: options make them long."""
    wrong = [
        f"{source.where}:{line} {name}: {length} lines"
        for source in sources().values()
        for name, line, length in functions(source)
        if length > MAX_FUNCTION
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda path: path.stem)
def test_test_files_are_short(path: Path) -> None:
    """Guards one subject a file."""
    n = len(path.read_text(encoding="utf-8").splitlines())
    assert n <= MAX_TEST_FILE, f"{path.name} has {n} lines, at most {MAX_TEST_FILE} are allowed; split it by subject"


# where options are written: commands and programs of their own, and the service, which is started by one
SURFACES = ("aim_local.cli", "aim_local.server", "aim_local.demo")
OPTION = re.compile(r"(?<![\w(-])--[a-z][\w-]*+(?!:)")  # no variable of CSS
COMMAND_LINE = re.compile(r"`[\w-]+ [^`]*`|aim-local \w+ .*|pip install .*")


def said(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of what is below a node: f-strings as a whole; no docstrings, no options of a list of arguments."""
    if isinstance(node, ast.JoinedStr):
        yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    for child in ast.iter_child_nodes(node):
        is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        is_argument = isinstance(node, ast.List) and isinstance(child, ast.Constant)
        if not is_docstring and not (is_argument and OPTION.fullmatch(str(child.value))):
            yield from said(child)


def test_the_library_names_no_options() -> None:
    """Guards who is spoken to: Python has arguments, a request has fields, and the command line puts options there."""
    wrong = [
        f"{source.where}:{line}: {text}"
        for source in sources().values()
        if not source.module.startswith(SURFACES)
        if "argparse" not in {found.module for found in imports_of(source)}  # a program
        for line, text in said(source.tree)
        if OPTION.search(COMMAND_LINE.sub("", text))
    ]
    assert not wrong, "\n".join(wrong)
