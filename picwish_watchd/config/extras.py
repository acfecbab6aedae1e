"""What works only with a package that is not always installed."""

import importlib.util

# extra (pyproject.toml) -> what it brings
_PACKAGE_BY_EXTRA = {"metrics": "prometheus_client", "notify": "apprise"}


def install_hint(extra: str) -> str | None:
    """How to install what an extra brings; None where it is there. Imports nothing."""
    module = _PACKAGE_BY_EXTRA[extra]
    if importlib.util.find_spec(module) is not None:
        return None
    package = module.replace("_", "-")
    return f"pip install 'picwish-watchd[{extra}]', or pip install {package}, into the environment of picwish-watchd"
