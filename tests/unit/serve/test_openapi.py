"""What the OpenAPI document promises, tried by Schemathesis: no request, however odd, is answered by 5xx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from blemish.serve.accounts import Person
from stations import running


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_no_request_is_answered_by_an_error_of_the_server(small_model: Path, tmp_path: Path, good: bytes) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    with running(data=tmp_path, products=[{"code": "tile", "model": small_model}]) as (station, client):
        admin = Person("root", "admin")
        station.accounts.add_user(admin, "root", "correct horse battery", "admin")
        headers = {"Authorization": f"Bearer {station.accounts.add_token(admin, 'fuzz', 'admin', 1)}"}
        client.post("/api/v1/inspect", content=good, headers=headers)
        schema = schemathesis.openapi.from_dict(client.get("/api/v1/openapi.json", headers=headers).json())
        statuses: dict[str, set[int]] = {}
        for operation in (result.ok() for result in schema.get_all_operations()):

            @given(case=operation.as_strategy())
            @settings(max_examples=25, suppress_health_check=list(HealthCheck), database=None)
            def try_it(case: Any) -> None:
                answer = case.call(base_url=str(client.base_url), headers=headers)
                statuses.setdefault(case.operation.label, set()).add(answer.status_code)
                assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text[:500]}"

            try_it()
        assert len(statuses) > 20
        assert all(found - {401, 403} for found in statuses.values())  # each was let in
        assert client.get("/healthz").status_code == 200
