"""Read the API key from the first of its sources, and check what it looks like."""

from collections.abc import Iterator, Mapping

from picwish_watchd.config.model import Config
from picwish_watchd.config.secret_files import API_KEY_CREDENTIAL, find_credential, read_secret_file, validate_secret
from picwish_watchd.errors import ConfigError

API_KEY_VARIABLE = "PICWISH_API_KEY"

_KEY_SOURCES_HINT = (
    f"give it as the systemd credential {API_KEY_CREDENTIAL} (LoadCredential=), "
    f"in the environment as {API_KEY_VARIABLE}, or in a file named by api.key_file that others cannot read"
)


def read_api_key(config: Config, environ: Mapping[str, str]) -> str:
    """Return the API key, from the first of these that exists:

    1. the systemd credential ``$CREDENTIALS_DIRECTORY/picwish_api_key`` (systemd.exec(5), LoadCredential=),
    2. ``$PICWISH_API_KEY``,
    3. the file ``api.key_file``,
    4. ``api.key`` in the configuration, which causes a warning.

    So what an administrator gives to this one process has precedence over the file. A source that exists but cannot
    be used is an error, and the next one is not tried: the key in use must be the key that was meant. A final line
    break is removed. The key is redacted in all output from then on (`picwish_watchd.redaction`).

    Raises `ConfigError` for a key that is missing, empty, not a header value, or in a file that cannot be read, is not
    a regular file, is larger than 4096 bytes, or can be read by others (mode o+r).
    """
    for source, key in _iter_key_sources(config, environ):
        return validate_secret(key, source, f"put the key there, or remove it and {_KEY_SOURCES_HINT}")
    raise ConfigError("no API key", hint=_KEY_SOURCES_HINT)


def _iter_key_sources(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if (credential := find_credential(API_KEY_CREDENTIAL, environ)) is not None:
        yield f"the credential {credential}", read_secret_file(credential, "the key file", _KEY_SOURCES_HINT)
    if API_KEY_VARIABLE in environ:
        yield f"${API_KEY_VARIABLE}", environ[API_KEY_VARIABLE]
    if config.api.key_file is not None:
        yield (
            f"the key file {config.api.key_file}",
            read_secret_file(config.api.key_file, "the key file", _KEY_SOURCES_HINT),
        )
    if config.api.key is not None:
        yield "api.key", config.api.key.get_secret_value()
