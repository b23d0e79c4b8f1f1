"""A closed set of fields, and pydantic's findings in words that name what to change."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, ValidationError, field_validator

from rfbench.errors import did_you_mean
from rfbench.names import check_name

LARGEST_INTEGER = 2**63 - 1  # of PyTorch, and of the tables that records are read into
# A field's word to `rfbench.records.identity`, as its json_schema_extra.
FREE: dict[str, JsonValue] = {"identity": "free"}  # it may change at any time
RESUME: dict[str, JsonValue] = {"identity": "resume"}  # it cannot change a training curve; a run keeps it to its end


def search(low: float, high: float, scale: Literal["log", "linear"] = "log") -> dict[str, JsonValue]:
    """A field's range for `rfbench tune`, as its ``json_schema_extra``; an ``int`` field gets whole numbers."""
    return {"search": {"low": low, "high": high, "scale": scale}}


class Settings(BaseModel):
    """A closed set of fields: an unknown key is an error, and so is a number that is not finite.

    A field that has a meaning for infinity or NaN says so: ``Field(allow_inf_nan=True)``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_no_huge_integer(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError(f"an integer is at most {LARGEST_INTEGER}, and this one has {value.bit_length()} bits")
        return value


Name = Annotated[str, AfterValidator(check_name)]


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's findings as lines a person can act on, with the nearest known name for an unknown key."""
    lines, problems = [], error.errors()
    around = {problem["loc"][:end] for problem in problems for end in range(len(problem["loc"]))}
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"] in around:  # only without its wrong entries
            continue
        location = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _fields_at(model, problem["loc"][:-1])
            lines.append(f"  unknown key {location}{did_you_mean(str(problem['loc'][-1]), known)}")
        elif problem["type"] == "missing":
            lines.append(f"  {location} is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = f" (it is {problem['input']!r})" if location and problem["type"] != "value_error" else ""
            lines.append(f"  {location}{': ' if location else ''}{message}{given}")
    return "\n".join(lines)


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The field names of the nested model that ``location`` leads to."""
    current: Any = model
    for part in location:
        fields = getattr(current, "model_fields", None)
        annotation = fields[part].annotation if fields and part in fields else current
        arguments = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
        current = arguments[-1] if arguments else annotation
    return list(getattr(current, "model_fields", {}))
