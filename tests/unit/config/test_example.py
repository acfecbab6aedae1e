"""The example configuration that users start from."""

from pathlib import Path

from picwish_watchd.config.fields import Section
from picwish_watchd.config.loader import load_config
from picwish_watchd.config.schema import Api, General, Log, Rule

EXAMPLE = Path(__file__).parents[3] / "config.example.yaml"


def test_the_example_loads_unchanged_and_shows_the_defaults() -> None:
    config = load_config(EXAMPLE, {})
    (rule,) = config.rules
    assert config.warnings == ()
    assert config.api == Api(key_file=Path("/etc/picwish-watchd/api.key"))
    assert config.log == Log()
    assert rule == Rule(name=rule.name, inbox=rule.inbox, outbox=rule.outbox)
    general = General()
    assert (config.journal, config.charging) == (general.journal, general.charging)
    assert (config.max_attempts, config.retry_backoff) == (general.max_attempts, general.retry_backoff)
    assert config.keep == general.keep


def test_the_example_names_every_key() -> None:
    written = {line.strip(" #-").split(":")[0] for line in EXAMPLE.read_text().splitlines() if ":" in line}
    sections: list[type[Section]] = [Api, General, Log, Rule]
    for section in sections:
        assert set(section.model_fields) <= written
