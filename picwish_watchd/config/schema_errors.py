"""Turn the errors of pydantic into faults that a person understands."""

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from picwish_watchd.config.units import InvalidValueError, closest_match


def explain_schema_error(error: ErrorDetails, section: type[BaseModel], known: list[str]) -> InvalidValueError:
    """Return what one error of ``section`` means; ``known`` are the keys that are allowed at its place.

    No text of pydantic is passed on. The kinds of errors are those that `picwish_watchd.config.schema` can cause: an
    unknown key, a missing key, a value that is not a list, and the errors that `units` and `strings` raise.
    """
    kind, key = error["type"], str(error["loc"][-1])
    if kind == "extra_forbidden":
        return InvalidValueError(", ".join(known), found="an unknown key", meant=closest_match(key, known))
    if kind == "missing":
        return InvalidValueError(section.model_fields[key].description or "", found="nothing")
    if kind == "value_error":
        invalid = error["ctx"]["error"]
        assert isinstance(invalid, InvalidValueError)
        return invalid
    assert kind == "tuple_type"
    return InvalidValueError('a list, such as ["*.jpg", "*.png"]')
