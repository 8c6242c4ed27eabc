"""HTTP for machines, under /api/v1; its OpenAPI document is at /api/v1/openapi.json.

`POST /api/v1/inspect` answers when the verdict is in the history. With the same `Idempotency-Key` a client may ask
again after a broken connection, or after the station itself was killed: the part is inspected once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, File, Header, HTTPException, Query, Request, Response, UploadFile
from pydantic import BaseModel, Field

from blemish._version import __version__
from blemish.catalog import CODE
from blemish.errors import UsageError
from blemish.serve.frames import CameraSource
from blemish.serve.guard import Guard, need
from blemish.serve.history import Part, Search, delivery_key, new_uid, shown
from blemish.serve.learn_api import learn_routes
from blemish.serve.people_api import people_routes, session_routes, with_400
from blemish.serve.rate import Rate
from blemish.serve.station import Station, product_of
from blemish.serve.work_api import wanted_verdicts, work_routes

MAX_FILES = 256
"""Pictures in one batch upload."""
TRIGGERED = 10.0
"""Seconds that a camera has to give a frame, and the frame to be inspected."""
BUSY = {"Retry-After": "1"}

Product = Annotated[str | None, Query(pattern=CODE, description="Its code; may be left out where there is one.")]
PartName = Annotated[str, Query(max_length=256, description="The part's own name or number.")]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]


class Region(BaseModel):
    """A connected part of the mask, in pixels of the picture."""

    box: list[int]
    area: int
    area_mm2: float | None
    peak: list[int]
    peak_score: float
    mean_score: float
    polygon: list[list[list[int]]]


class VerdictModel(BaseModel):
    """A verdict. "failed" is a part that could not be inspected: never take it for normal."""

    id: int
    uid: str
    accepted: str
    time: str
    source: str
    part: str
    product: str
    label: Literal["normal", "anomalous", "failed"]
    raw_score: float | None
    score: float | None
    threshold: float | None
    pixel_threshold: float | None
    height: int | None
    width: int | None
    model: str | None
    regions: list[Region]
    seconds: float
    error: str | None
    brightness: float | None
    sharpness: float | None


class PageModel(BaseModel):
    """Verdicts, newest first. A page may be short and still have a `cursor`: ask on with it."""

    verdicts: list[VerdictModel]
    cursor: str | None
    searched_to: int | None = Field(description="Microseconds since 1970, UTC.")


def create_app(station: Station) -> FastAPI:
    """The application around a station, which it starts and stops."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(station.start)
        yield
        await asyncio.to_thread(station.stop)

    app = FastAPI(
        title="blemish station",
        version=__version__,
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    rate = Rate(station.settings.requests_per_second)
    upload = station.settings.max_upload_mb * 1e6
    app.add_middleware(Guard, accounts=station.accounts, host=station.settings.host, rate=rate, max_upload=upload)
    app.include_router(operations(station))
    app.include_router(session_routes(station.accounts))
    people = people_routes(station.accounts)
    for routes in (verdict_routes(station), work_routes(station), learn_routes(station), people):
        app.include_router(routes, prefix="/api/v1")
    return app


def operations(station: Station) -> APIRouter:
    """What an operating system and a monitoring system ask."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz(request: Request, response: Response) -> dict[str, Any]:
        ready = station.running and station.pipeline.trouble is None
        response.status_code = 200 if ready else 503
        return {"ready": ready, "troubles": station.troubles if request.state.person else []}

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(station.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def verdict_routes(station: Station) -> APIRouter:
    """Inspecting, and looking up what was found."""
    router = APIRouter(tags=["verdicts"])
    refusals: dict[int | str, Mapping[str, Any]] = {
        400: {"description": "The request can't be understood."},
        413: {"description": "The picture is larger than the station takes."},
        503: {"description": "Too many parts wait, or the database can't be written to. Nothing was accepted."},
    }

    @router.post(
        "/inspect",
        response_model=VerdictModel,
        responses={**refusals},  # type: ignore[dict-item]
        dependencies=[Depends(need("operator"))],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def inspect(request: Request, product: Product = None, part: PartName = "", key: Key = None) -> Any:
        """Inspects one picture, which is the body of the request, in any format that blemish reads."""
        content = await _body(request, station.settings.max_upload_mb * 1e6)
        [verdict] = await _judge(station, [(part, content)], product, key)
        return verdict

    @router.post(
        "/inspect/batch",
        response_model=list[VerdictModel],
        responses={**refusals},  # type: ignore[dict-item]
        dependencies=[Depends(need("operator"))],
    )
    async def inspect_batch(
        files: Annotated[list[UploadFile], File(max_length=MAX_FILES)], product: Product = None
    ) -> Any:
        """Inspects several pictures; each is a part, named as its file. Verdicts come in their order."""
        bound = station.settings.max_upload_mb * 1e6
        if sum(file.size or 0 for file in files) > bound:
            raise HTTPException(413, f"Together, pictures may have {bound / 1e6:g} MB. Send fewer at a time.")
        return await _judge(
            station, [((file.filename or "")[:256], await file.read()) for file in files], product, None
        )

    @router.post(
        "/sources/{name}/trigger",
        response_model=VerdictModel,
        responses={404: {"description": "There is no such camera."}, 503: refusals[503], 400: refusals[400]},  # type: ignore[dict-item]
        dependencies=[Depends(need("operator"))],
    )
    async def trigger(name: str, part: PartName = "") -> Any:
        """Inspects the next frame that comes from a camera with `trigger`."""
        cameras = [source for source in station.sources if isinstance(source, CameraSource) and source.name == name]
        if not cameras:
            raise HTTPException(404, f"There is no camera {name!r:.80}.")
        asked = with_400(cameras[0].trigger, part)
        try:
            return shown(await asyncio.wait_for(asyncio.wrap_future(asked), TRIGGERED))
        except asyncio.TimeoutError as error:
            raise HTTPException(503, f"The camera gave no frame within {TRIGGERED:g} seconds.", BUSY) from error
        except Exception as error:
            raise HTTPException(503, "The frame could not be accepted. Ask again.", BUSY) from error

    @router.get("/verdicts", response_model=PageModel, responses={400: refusals[400]})  # type: ignore[dict-item]
    def search(
        wanted: Annotated[Search, Depends(wanted_verdicts)],
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        cursor: Annotated[str | None, Query(max_length=60)] = None,
    ) -> Any:
        """Verdicts that fit, newest first."""
        try:
            page = station.history.search(wanted, limit=limit, cursor=cursor)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        return {
            "verdicts": [shown(verdict) for verdict in page.verdicts],
            "cursor": page.cursor,
            "searched_to": page.searched_to,
        }

    @router.get(
        "/verdicts/{uid}", response_model=VerdictModel, responses={404: {"description": "There is no such verdict."}}
    )
    def verdict(uid: str) -> Any:
        """One verdict."""
        found = station.history.get(uid)
        if found is None:
            raise HTTPException(404, "There is no verdict of that uid.")
        return shown(found)

    return router


async def _body(request: Request, bound: float) -> bytes:
    """The body, read no further than the bound: a declared length may be missing, or a lie."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > bound:
            raise HTTPException(413, f"A picture may have {bound / 1e6:g} MB.")
        pieces.append(piece)
    if size == 0:
        raise HTTPException(400, "The body must be a picture. Got nothing.")
    return b"".join(pieces)


async def _judge(
    station: Station, pictures: list[tuple[str, bytes]], given: str | None, key: str | None
) -> list[dict[str, Any]]:
    """Verdicts on uploaded pictures, when they are in the history."""
    try:
        product = product_of(station, given)
    except UsageError as error:
        raise HTTPException(400, str(error)) from error
    pipeline = station.pipeline
    reserved = 0
    while reserved < len(pictures) and pipeline.reserve():
        reserved += 1
    if reserved < len(pictures):
        for _ in range(reserved):
            pipeline.release()
        station.metrics.refused.inc(len(pictures))
        raise HTTPException(503, "Too many parts wait. Send it again in a second.", BUSY)
    parts = []
    for name, content in pictures:
        uid = new_uid()
        path = await asyncio.to_thread(station.pictures.store, uid, content)
        own = None if key is None else delivery_key("http", product, key)
        parts.append((Part("http", name, product, None if path is None else str(path), own, uid), content))
    try:
        futures = await asyncio.shield(asyncio.wrap_future(pipeline.offer(parts)))
    except Exception as error:
        raise HTTPException(503, "The database can't be written to. Nothing was accepted.", BUSY) from error
    answers = []
    for (part, _), future in zip(parts, futures, strict=True):
        if future is not None:
            answers.append(shown(await asyncio.shield(asyncio.wrap_future(future))))
        else:
            answers.append(await _earlier(station, part))
    return answers


async def _earlier(station: Station, part: Part) -> dict[str, Any]:
    """The verdict on a part whose key was accepted before."""
    assert part.key is not None
    if part.path is not None:
        await asyncio.to_thread(station.pictures.remove, part.path)
    for _ in range(600):
        found = await asyncio.to_thread(station.history.by_key, part.key)
        if found is not None:
            return shown(found)
        await asyncio.sleep(0.1)
    raise HTTPException(503, "The part was accepted before and still waits for its verdict. Ask again.", BUSY)
