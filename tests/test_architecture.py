"""The floors of the house: who may know whom, and how large a room may grow."""

import ast
from functools import cache
from pathlib import Path

import pytest

import picwish_watchd

# they read the package, and run nothing of it
pytestmark = pytest.mark.untraced

PACKAGE = Path(picwish_watchd.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: Lower floors come first; rooms on one floor do not know each other.
LAYERS = (
    {"clock", "errors", "redaction", "counters", "pricing", "state", "job", "wording", "job_json"},
    {"fs", "runtime", "log"},
    {"config", "journal", "picwish", "images", "inbox"},
    {"outbox", "scheduling"},
    {"pipeline"},
    # they observe the pipeline; the pipeline does not know them
    {"metrics", "notify", "reporting"},
    {"daemon"},
    {"simulator"},
    {"cli"},
)
#: Rooms of the ground floor build on each other in this order.
GROUND_MODULES = ("clock", "errors", "redaction", "counters", "pricing", "state", "job", "wording", "job_json")
#: The one room, or files, in which a library is known.
LIBRARY_HOMES = {
    "sqlite3": ("journal",),
    "httpx": (
        "picwish",
        "notify/channels/webhook.py",
        # a webhook is no call of the API: nothing of picwish is about it
    ),
    "smtplib": ("notify/channels/smtp.py",),
    "httpcore": ("picwish",),
    "watchdog": ("inbox/watcher.py",),
    "yaml": ("config",),
    "pydantic": ("config", "notify/state_file.py"),
    "PIL": ("images/inspect.py", "images/downscale_process.py", "simulator"),
    "h11": ("simulator",),
    "prometheus_client": ("metrics",),
    "wsgiref": ("metrics",),
    "rich": ("cli",),
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "base", "manager", "misc"}


def package_of(module: str) -> str:
    """ "picwish_watchd.outbox.spool" -> "files"; the package itself is "" ."""
    return [*module.split("."), ""][1]


@cache
def parse_file(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def list_imports(path: Path) -> list[str]:
    """All modules that a file imports, wherever in it."""
    found: list[str] = []
    for node in ast.walk(parse_file(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            if node.module == "picwish_watchd":
                found += [f"picwish_watchd.{alias.name}" for alias in node.names if alias.name != "__version__"]
    return found


def layer_of(room: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


def package_of_file(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    here = package_of_file(path)
    if here in ("__init__", "__main__"):
        return
    for module in list_imports(path):
        if not module.startswith("picwish_watchd.") or (there := package_of(module)) == here:
            continue
        if layer_of(here) == layer_of(there) == 0:
            assert GROUND_MODULES.index(there) < GROUND_MODULES.index(here), f"{path} imports {module}"
        else:
            assert layer_of(there) < layer_of(here), f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_library_is_imported_in_its_home_only(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    for module in list_imports(path):
        homes = LIBRARY_HOMES.get(module.split(".")[0])
        assert homes is None or place.startswith(homes), f"{place} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_packages_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400, f"{path} is too long"
    for node in ast.walk(parse_file(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 52, f"{path}: {node.name} is too long"


def test_no_module_has_a_meaningless_name() -> None:
    assert not {path.stem for path in FILES} & FORBIDDEN_NAMES


def test_broad_except_is_used_in_two_places_only() -> None:
    """A bug is caught at one job's border and at the CLI's top, and nowhere else."""
    blind = set()
    for path in FILES:
        for node in ast.walk(parse_file(path)):
            if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id == "Exception":
                blind.add(str(path.relative_to(PACKAGE)))
    assert blind == {"pipeline/error_boundary.py", "cli/main.py"}


def test_every_public_name_has_a_docstring() -> None:
    silent = []
    for path in FILES:
        for node in parse_file(path).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if not node.name.startswith("_") and ast.get_docstring(node) is None:
                silent.append(f"{path.relative_to(PACKAGE)}: {node.name}")
    assert silent == []
