"""Build the parts of the daemon from a configuration."""

from picwish_watchd.config.model import Config
from picwish_watchd.counters import Counters
from picwish_watchd.picwish import PicwishClient


def connection_settings(config: Config) -> tuple[object, ...]:
    return config.api.base_url, config.api.timeout, config.api.allow_insecure


def build_client(config: Config, key: str, tally: Counters) -> PicwishClient:
    api = config.api
    return PicwishClient(
        base_url=api.base_url,
        key=key,
        timeout=api.timeout,
        allow_insecure=api.allow_insecure,
        on_request_done=tally.count_request,
    )
