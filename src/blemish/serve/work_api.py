"""HTTP about the daily work: pictures, feedback, the review queue, thresholds, exports."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask

from blemish.catalog import CODE
from blemish.errors import BlemishError, UsageError
from blemish.serve.accounts import Person
from blemish.serve.exporting import csv_lines, rows, write_coco_file, write_parquet
from blemish.serve.frames import FrameSource
from blemish.serve.guard import need
from blemish.serve.history import Search, iso, now, shown
from blemish.serve.people_api import with_400
from blemish.serve.showing import View, encoded, explanation_of, picture_of
from blemish.serve.station import Station
from blemish.serve.thresholds import ChangedMeanwhile

Operator = Annotated[Person, Depends(need("operator"))]
Engineer = Annotated[Person, Depends(need("engineer"))]
Judgement = Literal["right", "false alarm", "missed"]
MOMENT = "Microseconds since 1970, UTC."


class Said(BaseModel):
    """What a person says of a verdict."""

    model_config = ConfigDict(extra="forbid")
    judgement: Judgement
    kind: str = Field("", max_length=64, description="Of defect.")
    note: str = Field("", max_length=2000)


class NewThreshold(BaseModel):
    """A threshold to be set."""

    model_config = ConfigDict(extra="forbid")
    threshold: float = Field(allow_inf_nan=False, description="Raw score from which a part is anomalous.")
    seen: float = Field(allow_inf_nan=False, description="The one that was in force when you decided.")
    reason: str = Field(min_length=1, max_length=2000)


def wanted_verdicts(
    since: Annotated[int | None, Query(ge=0, le=2**53, description=MOMENT)] = None,
    until: Annotated[int | None, Query(ge=0, le=2**53, description="The first moment after.")] = None,
    product: Annotated[str | None, Query(pattern=CODE)] = None,
    label: Literal["normal", "anomalous", "failed"] | None = None,
    source: Annotated[str | None, Query(max_length=64)] = None,
    part: Annotated[str | None, Query(max_length=256)] = None,
    low: Annotated[float | None, Query(allow_inf_nan=False, description="Lowest raw score.")] = None,
    high: Annotated[float | None, Query(allow_inf_nan=False, description="Highest raw score.")] = None,
    feedback: Annotated[Judgement | Literal["none"] | None, Query(description="The newest opinion.")] = None,
) -> Search:
    """Filters of the history, as a request names them."""
    return Search(since, until, product, label, source, part, low, high, feedback)


def work_routes(station: Station) -> APIRouter:
    """All of them."""
    router = APIRouter(tags=["work"], responses={400: {"description": "What is wrong is in `detail`."}})

    @router.get(
        "/verdicts/{uid}/explanation",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, 404: {"description": "There is none."}},
    )
    def explanation(uid: str) -> Response:
        """What was found in a part, beside good parts that the model remembers."""
        verdict = station.history.get(uid)
        known = verdict and verdict["product"] in station.models.products
        found = verdict and known and explanation_of(station.pictures, verdict, _session(station, verdict["product"]))
        if not found:
            raise HTTPException(404, "Another model judged it, or it knows no good parts, or the picture wasn't kept.")
        return Response(found, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @router.get(
        "/verdicts/{uid}/{view}",
        response_class=Response,
        responses={200: {"content": {"image/png": {}, "image/jpeg": {}}}, 404: {"description": "There is none."}},
    )
    def picture(uid: str, view: View) -> Response:
        """The picture of a part, an overlay of what was found, or a small one."""
        verdict = station.history.get(uid)
        found = verdict and picture_of(station.pictures, verdict, view, station.settings.max_pixels)
        if not found:
            raise HTTPException(404, "There is no picture of that part: it wasn't kept, or can't be read.")
        content, kind = found
        return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    @router.get("/verdicts/{uid}/feedback/all", responses={404: {"description": "There is no such verdict."}})
    def opinions(uid: str) -> list[dict[str, Any]]:
        """All that people said of a verdict, oldest first."""
        if station.history.get(uid) is None:
            raise HTTPException(404, "There is no verdict of that uid.")
        return [{**row, "time": iso(row["time"])} for row in station.feedback.all_of(uid)]

    @router.post("/verdicts/{uid}/feedback", status_code=201)
    def say(person: Operator, uid: str, said: Said) -> None:
        """Says what a verdict was worth. The verdict stays; the newest opinion counts."""
        with_400(station.feedback.add, uid, person.name, said.judgement, said.kind, said.note)

    @router.get("/review")
    def queue(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> list[dict[str, Any]]:
        """Verdicts that a person shall look at: near the threshold, and a sample of the others."""
        return [shown(verdict) for verdict in station.feedback.queue(limit)]

    @router.get("/products")
    def products() -> list[dict[str, Any]]:
        """Products and their models."""
        opened = station.models.open
        return [
            {"code": code, "model": path.name, "promoted": station.promotions.candidate(code), "open": code in opened}
            for code, path in station.models.products.items()
        ]

    @router.get("/sources")
    def sources() -> list[dict[str, Any]]:
        """Where pictures come from, beside HTTP."""
        return [{"name": one.name, "address": one.place, "trouble": one.trouble} for one in station.sources]

    @router.get(
        "/sources/{name}/picture",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, 404: {"description": "There is no such camera or video."}},
    )
    def newest(name: str) -> Response:
        """The picture of a camera or video that came last, inspected or not."""
        for source in station.sources:
            if source.name == name and isinstance(source, FrameSource) and source.newest is not None:
                picture = encoded(source.newest, "JPEG")
                return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "no-store"})
        raise HTTPException(404, "There is no camera or video of that name.")

    @router.get("/sinks")
    def sinks() -> list[dict[str, Any]]:
        """Where verdicts go, and how far each has got."""
        return [
            {"name": one.name, "kind": one.settings.kind, "address": one.settings.place, **asdict(state)}
            | {"last": None if state.last is None else iso(state.last)}
            for one in station.sinks
            for state in (one.state,)
        ]

    @router.get("/products/{code}/threshold", responses={404: {"description": "There is no model for the product."}})
    def preview(
        code: str, to: Annotated[float | None, Query(allow_inf_nan=False, description="A raw score.")] = None
    ) -> dict[str, Any]:
        """The threshold in force, and what another one would mean for the newest parts."""
        session = _session(station, code)
        proposed = session.threshold if to is None else to
        return asdict(with_400(station.thresholds.preview, session, code, proposed))

    @router.put(
        "/products/{code}/threshold",
        responses={
            404: {"description": "There is no model for the product."},
            409: {"description": "Another threshold is in force than the one that was seen."},
        },
    )
    def confirm(person: Engineer, code: str, new: NewThreshold) -> dict[str, float]:
        """Sets a threshold, from the next part on."""
        _session(station, code)
        try:
            value = station.thresholds.confirm(
                station.models, code, new.threshold, seen=new.seen, who=person.name, reason=new.reason
            )
        except ChangedMeanwhile as error:
            raise HTTPException(409, str(error)) from error
        except UsageError as error:
            raise HTTPException(400, str(error)) from error
        return {"threshold": value}

    @router.get("/export.{kind}", response_class=Response)
    def export(
        kind: Literal["csv", "parquet", "json"], wanted: Annotated[Search, Depends(wanted_verdicts)]
    ) -> Response:
        """The history as CSV or Parquet, or as a COCO data set (json), newest first."""
        wanted = replace(wanted, until=min(wanted.until or now(), now()))
        name = {"Content-Disposition": f'attachment; filename="verdicts.{kind}"'}
        if kind == "csv":
            found = rows(station.history, station.feedback, wanted)
            return StreamingResponse(csv_lines(found), media_type="text/csv", headers=name)
        with tempfile.NamedTemporaryFile(dir=station.settings.data, prefix="export-", delete=False) as file:
            path = Path(file.name)
        try:
            if kind == "parquet":
                write_parquet(rows(station.history, station.feedback, wanted), path)
            else:
                write_coco_file(station.history, wanted, path)
        except BlemishError as error:
            path.unlink()
            raise HTTPException(400, str(error)) from error
        return FileResponse(path, headers=name, background=BackgroundTask(path.unlink))

    return router


def _session(station: Station, code: str) -> Any:
    if code not in station.models.products:
        raise HTTPException(404, f"There is no model for product {code!r:.80}.")
    return station.models.session(code)
