"""What the errors of pydantic mean to a person."""

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from picwish_watchd.config.units import InvalidValueError, closest_match


def explain_schema_error(error: ErrorDetails, section: type[BaseModel], known: list[str]) -> InvalidValueError:
    """What one error of the schema means to a person; ``known``: the keys that may stand there.

    None of pydantic's own words is passed on. The kinds of errors are those that `picwish_watchd.config.schema` can
    cause: an unknown key, a missing one, a list that is none or is empty, and the refusals of `units` and `texts`.
    """
    kind, key = error["type"], str(error["loc"][-1])
    if kind == "extra_forbidden":
        return InvalidValueError(", ".join(known), found="an unknown key", meant=closest_match(key, known))
    if kind == "missing":
        return InvalidValueError(section.model_fields[key].description or "", found="nothing")
    if kind == "value_error":
        refused = error["ctx"]["error"]
        assert isinstance(refused, InvalidValueError)
        return refused
    assert kind == "tuple_type"
    return InvalidValueError('a list, such as ["*.jpg", "*.png"]')
