"""HTTP about models: what there is to learn from, jobs, candidates, promotion and the way back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from blemish.errors import BlemishError
from blemish.serve.accounts import Person
from blemish.serve.guard import need
from blemish.serve.history import iso
from blemish.serve.learning import Busy
from blemish.serve.station import Station
from blemish.serve.tables import READY
from blemish.serve.thresholds import ChangedMeanwhile

Engineer = Annotated[Person, Depends(need("engineer"))]
Number = Annotated[int, InPath(ge=1, le=2**53)]
MISSING: dict[int | str, Any] = {404: {"description": "There is no model for the product."}}
CHANGED: dict[int | str, Any] = {409: {"description": "Something else is in force, or going on, than was seen."}}


class Way(BaseModel):
    """How to learn."""

    model_config = ConfigDict(extra="forbid")
    how: Literal["update", "fit"] = Field(description="Add pictures to the model, or learn anew with its settings.")


class Seen(BaseModel):
    """What was in force when a person decided."""

    model_config = ConfigDict(extra="forbid")
    seen: str = Field(max_length=64, description="Fingerprint of the model.")


def learn_routes(station: Station) -> APIRouter:
    """All of them."""
    router = APIRouter(tags=["learning"], responses={400: {"description": "What is wrong is in `detail`."}})

    @router.get("/products/{code}/learning", responses=MISSING)
    def overview(code: str) -> dict[str, Any]:
        """The model in force, what there is to learn from, the job that runs, and candidates, newest first."""
        _check(station, code)
        job = station.learning.job
        return {
            "model": station.models.session(code).fingerprint,
            "promoted": station.promotions.candidate(code),
            "reviewed": station.learning.reviewed(code).counts(),
            "job": job if job is not None and job["product"] == code else None,
            "candidates": [_shown(station, row) for row in station.learning.candidates(code)],
        }

    @router.post("/products/{code}/learning", status_code=202, responses={**MISSING, **CHANGED})
    def learn(person: Engineer, code: str, way: Way) -> dict[str, int]:
        """Starts to learn from what people judged; the answer is the candidate's number."""
        _check(station, code)
        return {"candidate": _or_refused(station.learning.start, code, way.how, person.name)}

    @router.post("/products/{code}/rollback", responses={**MISSING, **CHANGED})
    def go_back(person: Engineer, code: str, seen: Seen) -> None:
        """Lets the model judge that did so before the newest promotion."""
        _check(station, code)
        _or_refused(station.go_back, code, seen=seen.seen, who=person.name)

    @router.post("/candidates/{number}/promote", responses=CHANGED)
    def promote(person: Engineer, number: Number, seen: Seen) -> None:
        """Lets a candidate judge, from the next part on."""
        _or_refused(station.promote, number, seen=seen.seen, who=person.name)

    @router.delete("/candidates/{number}")
    def discard(person: Engineer, number: Number) -> None:
        """Ends a job, or the shadow of a candidate."""
        _or_refused(station.learning.discard, number, person.name)

    return router


def _shown(station: Station, row: dict[str, Any]) -> dict[str, Any]:
    shadow = asdict(station.shadow.summary(row["id"])) if row["state"] == READY else None
    return {**row, "time": iso(row["time"]), "shadow": shadow}


def _check(station: Station, code: str) -> None:
    if code not in station.models.products:
        raise HTTPException(404, f"There is no model for product {code!r:.80}.")


def _or_refused(call: Any, *arguments: Any, **named: Any) -> Any:
    try:
        return call(*arguments, **named)
    except (Busy, ChangedMeanwhile) as error:
        raise HTTPException(409, str(error)) from error
    except BlemishError as error:
        raise HTTPException(400, str(error)) from error
