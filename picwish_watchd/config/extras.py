"""Say how to install the packages that only some settings need."""

import importlib.util

#: Extra (pyproject.toml) -> the module that it installs.
_PACKAGE_BY_EXTRA = {"metrics": "prometheus_client", "notify": "apprise"}


def install_hint(extra: str) -> str | None:
    """Return how to install an extra, or None if it is installed. Imports nothing of it."""
    module = _PACKAGE_BY_EXTRA[extra]
    if importlib.util.find_spec(module) is not None:
        return None
    package = module.replace("_", "-")
    return f"pip install 'picwish-watchd[{extra}]', or pip install {package}, into the environment of picwish-watchd"
