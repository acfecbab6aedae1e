"""The structure of the package: which module may import which, and where a library belongs."""

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_type_hints

import pytest

import picwish_watchd

# The tests read the package and run nothing of it.
pytestmark = pytest.mark.untraced

PACKAGE = Path(picwish_watchd.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: Packages and modules from the lowest layer to the highest. A layer may import lower layers only, so packages of one
#: layer do not know each other.
LAYERS = (
    # Words, numbers and secrets, without input or output.
    {"clock", "errors", "redaction", "counters", "pricing", "state", "job", "wording", "job_json"},
    # POSIX primitives, threads and logging, without the domain.
    {"fs", "runtime", "log"},
    # One concern each: the configuration, the journal, the API client, images, new files.
    {"config", "journal", "picwish", "images", "inbox"},
    # Publishing results; deciding whose request is next and what may be spent.
    {"outbox", "scheduling"},
    # The steps of one image.
    {"pipeline"},
    # They observe the pipeline, which does not know them.
    {"metrics", "notify", "reporting"},
    {"daemon"},
    {"simulator"},
    {"cli"},
)
#: Modules of the lowest layer build on each other in this order.
GROUND_MODULES = ("clock", "errors", "redaction", "counters", "pricing", "state", "job", "wording", "job_json")
#: The modules of the steps of one image, in their order. `submit` is built on `prepare` and `submit_outcomes`.
STEPS = ("intake", "prepare", "submit_outcomes", "submit", "collect", "deliver", "dispose")
#: A library, and the folders and files that may import it.
LIBRARY_HOMES = {
    "sqlite3": ("journal",),
    # A webhook is not a call of the API, and knows nothing of picwish.
    "httpx": ("picwish", "notify/channels/webhook.py"),
    "smtplib": ("notify/channels/smtp.py",),
    "httpcore": ("picwish",),
    "watchdog": ("inbox/inotify_events.py", "inbox/event_listener.py"),
    "yaml": ("config",),
    "pydantic": ("config", "notify/state_file.py"),
    "PIL": ("images/inspect.py", "images/downscale_process.py", "simulator"),
    "h11": ("simulator",),
    "prometheus_client": ("metrics",),
    "wsgiref": ("metrics",),
    "rich": ("cli",),
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "base", "manager", "misc"}


def relative_name(path: Path) -> str:
    """Return a file's path below the package, as it is shown in test names and messages."""
    return str(path.relative_to(PACKAGE))


def module_name(path: Path) -> str:
    """Return the dotted name under which a file of the package is imported."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def top_level_name(module: str) -> str:
    """Return the package or module below ``picwish_watchd`` that a module belongs to; "" for the package itself."""
    return [*module.split("."), ""][1]


@cache
def parse_file(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def list_imports(tree: ast.Module) -> list[str]:
    """Return the names of all modules that a file imports, also within functions and under TYPE_CHECKING."""
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            full_names = [f"{node.module}.{alias.name}" for alias in node.names]
            imports += [name if name in MODULES else node.module for name in full_names]
    return imports


def layer_of(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def find_cycle(trees: Mapping[str, ast.Module]) -> list[str]:
    """Return modules of which each imports the next and the last is the first, or nothing if there is no such circle.

    An import of a module counts for that module alone, not for the packages around it.
    """
    graph = {name: trees.keys() & set(list_imports(tree)) - {name} for name, tree in trees.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # Each module of the error is imported by the next one.
        cycle: list[str] = error.args[1]
        return cycle[::-1]
    return []


def parse_package() -> dict[str, ast.Module]:
    return {name: parse_file(path) for name, path in MODULES.items()}


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_imports_point_downward(path: Path) -> None:
    here = top_level_name(module_name(path))
    if here in ("", "__main__"):
        return
    for module in list_imports(parse_file(path)):
        there = top_level_name(module)
        if not module.startswith("picwish_watchd.") or there == here:
            continue
        if layer_of(here) == layer_of(there) == 0:
            assert GROUND_MODULES.index(there) < GROUND_MODULES.index(here), f"{path} imports {module}"
        else:
            assert layer_of(there) < layer_of(here), f"{path} imports {module}"


def test_no_import_closes_a_circle() -> None:
    assert find_cycle(parse_package()) == []


def test_a_step_knows_no_later_step() -> None:
    for number, step in enumerate(STEPS):
        imports = list_imports(parse_file(PACKAGE / "pipeline" / f"{step}.py"))
        later = {f"picwish_watchd.pipeline.{other}" for other in STEPS[number + 1 :]}
        assert not later & set(imports), f"pipeline/{step}.py"


@pytest.mark.parametrize(
    ("module", "statement", "other"),
    [
        (
            "picwish_watchd.config.fields",
            "if TYPE_CHECKING:\n    from picwish_watchd.config.schema import Rule",
            "picwish_watchd.config.schema",
        ),
        (
            "picwish_watchd.journal.reader",
            "def f():\n    from picwish_watchd.journal import writer",
            "picwish_watchd.journal.writer",
        ),
        ("picwish_watchd.state", "import picwish_watchd.job", "picwish_watchd.job"),
    ],
    ids=["under TYPE_CHECKING", "in a function", "at the top"],
)
def test_a_planted_circle_is_found(module: str, statement: str, other: str) -> None:
    trees = parse_package()
    trees[module] = ast.parse(f"{ast.unparse(trees[module])}\n{statement}\n")
    cycle = find_cycle(trees)
    assert cycle[0] == cycle[-1]
    assert {module, other} <= set(cycle)


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_a_library_is_imported_in_its_home_only(path: Path) -> None:
    for module in list_imports(parse_file(path)):
        homes = LIBRARY_HOMES.get(module.split(".")[0])
        assert homes is None or relative_name(path).startswith(homes), f"{path} imports {module}"


def list_public_objects(module: str) -> Iterator[tuple[str, object]]:
    """Yield the public classes and functions that a module defines, and the functions of these classes."""
    for name, value in vars(importlib.import_module(module)).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        if inspect.isclass(value):
            for method_name, attribute in vars(value).items():
                method = (
                    attribute.fget if isinstance(attribute, property) else getattr(attribute, "__func__", attribute)
                )
                if inspect.isfunction(method):
                    yield f"{name}.{method_name}", method


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "__main__.py"], ids=relative_name)
def test_type_hints_of_public_names_can_be_resolved(path: Path) -> None:
    unresolved = []
    for name, value in list_public_objects(module_name(path)):
        try:
            get_type_hints(value)
        except (NameError, AttributeError) as error:
            unresolved.append(f"{name}: {error}")
    assert unresolved == []


def test_no_module_has_a_meaningless_name() -> None:
    assert not {path.stem for path in FILES} & FORBIDDEN_NAMES


def test_broad_except_is_used_in_two_places_only() -> None:
    """A bug is caught where one job's work ends and in the command line's main function, and nowhere else."""
    broad = set()
    for path in FILES:
        for node in ast.walk(parse_file(path)):
            if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id == "Exception":
                broad.add(relative_name(path))
    assert broad == {"pipeline/error_boundary.py", "cli/main.py"}


def test_every_public_name_has_a_docstring() -> None:
    undocumented = []
    for path in FILES:
        for node in parse_file(path).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if not node.name.startswith("_") and ast.get_docstring(node) is None:
                undocumented.append(f"{relative_name(path)}: {node.name}")
    assert undocumented == []
