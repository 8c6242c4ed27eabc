"""Who may do what, and a table of attacks, each tried on a running station."""

from __future__ import annotations

import datetime
import ipaddress
import re
import sqlite3
import ssl
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from blemish.errors import UsageError
from blemish.serve import audit
from blemish.serve.accounts import Accounts, Person, TooManyTries
from blemish.serve.configuration import station_settings
from blemish.serve.database import Writer, migrate, open_database
from blemish.serve.people_api import local
from blemish.serve.rate import Rate
from blemish.serve.server import check_exposure
from blemish.serve.station import Station
from stations import Process, running

PASSWORD = "correct horse battery"
ADMIN = Person("root", "admin")
ROLES = ("viewer", "operator", "engineer", "admin")


@pytest.fixture(scope="module")
def guarded(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, str]]:
    """A station with a user and a token of each role."""
    products = [{"code": "tile", "model": small_model}]
    folder = tmp_path_factory.mktemp("station")
    with running(data=folder, products=products, max_upload_mb=1) as (station, client):
        station.accounts.set_up(station.accounts.setup_key or "", "root", PASSWORD)
        for role in ROLES:
            station.accounts.add_user(ADMIN, f"{role}.user", PASSWORD, role)
        yield station, str(client.base_url)


@pytest.fixture
def stranger(guarded: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded[1], timeout=60) as client:
        yield client


def log_in(client: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    return client.post("/login", data={"name": name, "password": password, "to": "/"})


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    engine = open_database(f"sqlite:///{tmp_path}/a.sqlite")
    migrate(engine)
    writer = Writer(engine)
    yield Accounts(engine, writer)
    writer.close()
    engine.dispose()


# ------------------------------------------------------------------------------------------------------------- accounts


def test_the_link_makes_one_admin_once(accounts: Accounts) -> None:
    key = accounts.setup_key
    assert key is not None
    for wrong in ("", "x", key[:-1]):
        with pytest.raises(UsageError, match="This link was used"):
            accounts.set_up(wrong, "root", PASSWORD)
    accounts.set_up(key, "root", PASSWORD)
    assert accounts.any
    with pytest.raises(UsageError, match="This link was used"):
        accounts.set_up(key, "again", PASSWORD)
    assert Accounts(accounts.engine, accounts._writer).setup_key is None


@pytest.mark.parametrize(
    ("name", "password", "role", "message"),
    [
        ("", PASSWORD, "viewer", "A name must have 1 to 64"),
        ("a b", PASSWORD, "viewer", "A name must have 1 to 64"),
        ("a", "short", "viewer", "must have 10 to 200 characters. Got 5"),
        ("a", "x" * 201, "viewer", "must have 10 to 200 characters. Got 201"),
        ("a", PASSWORD, "king", "role must be one of viewer, operator, engineer, admin. Got 'king'"),
        ("root", PASSWORD, "viewer", "There is a user called 'root' already"),
    ],
)
def test_users_are_checked(accounts: Accounts, name: str, password: str, role: str, message: str) -> None:
    accounts.add_user(ADMIN, "root", PASSWORD, "admin")
    with pytest.raises(UsageError, match=message):
        accounts.add_user(ADMIN, name, password, role)


def test_no_secret_is_in_the_database(accounts: Accounts, tmp_path: Path) -> None:
    accounts.add_user(ADMIN, "root", PASSWORD, "admin")
    secrets = [PASSWORD, accounts.log_in("root", PASSWORD, "here"), accounts.add_token(ADMIN, "plc", "operator", 1)]
    accounts.engine.dispose()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"$argon2id$" in content
    for secret in secrets:
        assert secret.encode() not in content


def test_the_last_admin_stays(accounts: Accounts) -> None:
    accounts.add_user(ADMIN, "root", PASSWORD, "admin")
    for change in ({"role": "viewer"}, {"active": False}):
        with pytest.raises(UsageError, match="One active admin has to be left"):
            accounts.change_user(ADMIN, "root", **change)  # type: ignore[arg-type]
    assert accounts.users()[0]["role"] == "admin"


def test_wrong_passwords_make_one_wait(accounts: Accounts) -> None:
    accounts.add_user(ADMIN, "root", PASSWORD, "admin")
    for number in range(5):
        with pytest.raises(UsageError, match="Name or password is wrong"):
            accounts.log_in("root", "guess", f"10.0.0.{number}")
    with pytest.raises(TooManyTries, match="Try again in 2 seconds"):
        accounts.log_in("root", PASSWORD, "10.0.0.9")  # the name waits, from wherever it is tried
    for number in range(5):
        with pytest.raises(UsageError, match="Name or password is wrong"):
            accounts.log_in(f"user{number}", "guess", "10.0.0.7")
    with pytest.raises(TooManyTries):
        accounts.log_in("somebody", "guess", "10.0.0.7")  # and the address, for whomever


def test_tokens_end(accounts: Accounts) -> None:
    accounts.add_user(ADMIN, "root", PASSWORD, "admin")
    secret = accounts.add_token(ADMIN, "plc", "operator", 1)
    assert accounts.of_token(secret) == Person("token plc", "operator")
    accounts.revoke_token(ADMIN, "plc")
    assert accounts.of_token(secret) is None
    short = accounts.add_token(ADMIN, "short", "viewer", 1e-9)
    assert accounts.of_token(short) is None
    with pytest.raises(UsageError, match="There is, or was, a token called 'plc'"):
        accounts.add_token(ADMIN, "plc", "viewer", 1)
    with pytest.raises(UsageError, match=r"can't be more than who makes it: engineer. Got 'admin'"):
        accounts.add_token(Person("e", "engineer"), "up", "admin", 1)


def test_the_audit_trail_shows_what_was_changed_in_it(accounts: Accounts) -> None:
    accounts.add_user(ADMIN, "root", PASSWORD, "admin")
    accounts.add_token(ADMIN, "plc", "operator", 1)
    accounts.revoke_token(ADMIN, "plc")
    entries = list(audit.entries(accounts.engine))
    assert [entry["action"] for entry in entries] == ["add user", "add token", "revoke token"]
    assert entries[0]["detail"] == {"name": "root", "role": "admin"}
    assert audit.broken_at(accounts.engine) is None
    for statement, place in (
        ("UPDATE audit SET who = 'nobody' WHERE id = 2", 2),
        ("DELETE FROM audit WHERE id = 2", 2),
        ("DELETE FROM audit WHERE id = 1", 1),
    ):
        with accounts.engine.connect() as connection:
            connection.execute(text(statement))
            connection.commit()
        assert audit.broken_at(accounts.engine) == place


# ---------------------------------------------------------------------------------------------------------------- doors


def test_a_person_logs_in_and_out(guarded: Any, stranger: httpx.Client) -> None:
    assert stranger.get("/api/v1/me").status_code == 401
    page = stranger.get("/anything", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?to=/anything")
    assert "Name or password is wrong" in log_in(stranger, "operator.user", "wrong password").text
    answer = log_in(stranger, "operator.user")
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert stranger.get("/api/v1/me").json() == {"name": "operator.user", "role": "operator"}
    stolen = stranger.cookies["blemish_session"]
    stranger.post("/logout")
    headers = {"Cookie": f"blemish_session={stolen}"}
    assert stranger.get("/api/v1/me", headers=headers).status_code == 401  # ended on the station, not in the browser


NEEDS = [
    ("GET", "/api/v1/verdicts", None, "viewer"),
    ("GET", "/metrics", None, "viewer"),
    ("GET", "/api/v1/openapi.json", None, "viewer"),
    ("POST", "/api/v1/inspect", b"x", "operator"),
    ("POST", "/api/v1/sources/none/trigger", None, "operator"),
    ("GET", "/api/v1/review", None, "viewer"),
    ("GET", "/api/v1/products", None, "viewer"),
    ("GET", "/api/v1/sources", None, "viewer"),
    ("GET", "/api/v1/sinks", None, "viewer"),
    ("GET", "/api/v1/export.csv", None, "viewer"),
    ("GET", "/api/v1/products/tile/threshold", None, "viewer"),
    ("POST", "/api/v1/verdicts/none/feedback", {"judgement": "right"}, "operator"),
    ("PUT", "/api/v1/products/tile/threshold", {"threshold": 1e39, "seen": 1, "reason": "x"}, "engineer"),
    ("GET", "/api/v1/products/tile/learning", None, "viewer"),
    ("POST", "/api/v1/products/tile/learning", {"how": "fit"}, "engineer"),
    ("POST", "/api/v1/products/tile/rollback", {"seen": ""}, "engineer"),
    ("POST", "/api/v1/candidates/1/promote", {"seen": ""}, "engineer"),
    ("DELETE", "/api/v1/candidates/1", None, "engineer"),
    ("GET", "/api/v1/users", None, "admin"),
    ("POST", "/api/v1/users", {"name": "x", "password": "y", "role": "viewer"}, "admin"),
    ("PATCH", "/api/v1/users/nobody", {"role": "admin"}, "admin"),
    ("GET", "/api/v1/tokens", None, "admin"),
    ("POST", "/api/v1/tokens", {"name": "a b", "role": "viewer"}, "admin"),
    ("DELETE", "/api/v1/tokens/none", None, "admin"),
    ("GET", "/api/v1/audit.jsonl", None, "admin"),
    ("GET", "/api/v1/audit/check", None, "admin"),
]


@pytest.mark.parametrize(("method", "path", "body", "needed"), NEEDS)
def test_each_door_opens_from_its_role_on(guarded: Any, method: str, path: str, body: Any, needed: str) -> None:
    station, address = guarded
    content = {"json": body} if isinstance(body, dict) else {"content": body}
    assert httpx.request(method, address + path, **content).status_code == 401
    for role in ROLES:
        name = f"{role}-{abs(hash((method, path)))}"
        headers = {"Authorization": f"Bearer {station.accounts.add_token(ADMIN, name, role, 1)}"}
        status = httpx.request(method, address + path, headers=headers, timeout=60, **content).status_code
        if ROLES.index(role) >= ROLES.index(needed):
            assert status in (200, 400, 404, 409), (role, status)
        else:
            assert status == 403, role


def test_every_route_of_the_document_is_in_the_table_above(guarded: Any) -> None:
    station, address = guarded
    token = station.accounts.add_token(ADMIN, "reader", "viewer", 1)
    document = httpx.get(f"{address}/api/v1/openapi.json", headers={"Authorization": f"Bearer {token}"}).json()
    tested = {(method, path) for method, path, *_ in NEEDS}
    read_by_all = {"/api/v1/me", "/api/v1/verdicts/{uid}", "/api/v1/verdicts/{uid}/{view}"}
    read_by_all |= {"/api/v1/verdicts/{uid}/feedback/all", "/api/v1/verdicts/{uid}/explanation"}
    read_by_all |= {"/api/v1/sources/{name}/picture"}
    for path, methods in document["paths"].items():
        for method in methods:
            filled = (
                path.replace("{code}", "tile")
                .replace("{kind}", "csv")
                .replace("{uid}", "none")
                .replace("{number}", "1")
            )
            filled = filled.replace("{name}", "nobody" if method == "patch" else "none")
            known = (method.upper(), filled) in tested or path == "/api/v1/inspect/batch"  # which is like another
            assert known or (method == "get" and path in read_by_all), f"{method} {path}"


CROSS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", CROSS)
def test_other_sites_cannot_act_with_a_persons_cookie(
    guarded: Any, stranger: httpx.Client, headers: dict[str, str]
) -> None:
    log_in(stranger, "admin.user")
    body = {"name": "mole", "password": PASSWORD, "role": "admin"}
    refused = stranger.post("/api/v1/users", json=body, headers=headers)
    assert refused.status_code == 403
    assert "another site" in refused.text
    assert stranger.post("/login", data={"name": "x", "password": "y"}, headers=headers).status_code == 403
    assert "mole" not in {user["name"] for user in guarded[0].accounts.users()}
    own = {"Sec-Fetch-Site": "same-origin", "Origin": str(stranger.base_url).rstrip("/")}
    assert stranger.patch("/api/v1/users/nobody", json={"role": "admin"}, headers=own).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer blemish_guess"},
        {"Authorization": "Basic cm9vdDpyb290"},
        {"Cookie": "blemish_session="},
        {"Cookie": "blemish_session=' OR 1=1 --"},
        {"Cookie": "blemish_session=a; blemish_session=root"},
    ],
)
def test_guesses_open_nothing(stranger: httpx.Client, headers: dict[str, str]) -> None:
    assert stranger.get("/api/v1/me", headers=headers).status_code == 401


def test_a_role_and_a_password_change_end_sessions(guarded: Any, stranger: httpx.Client) -> None:
    accounts = guarded[0].accounts
    accounts.add_user(ADMIN, "leaver", PASSWORD, "admin")
    for change in ({"role": "viewer"}, {"password": "another password"}, {"active": False}):
        log_in(stranger, "leaver", "another password" if "active" in change else PASSWORD)
        assert stranger.get("/api/v1/me").status_code == 200
        accounts.change_user(ADMIN, "leaver", **change)
        assert stranger.get("/api/v1/me").status_code == 401
    assert log_in(stranger, "leaver", "another password").status_code == 401


@pytest.mark.parametrize("role", ["viewer", "operator", "engineer"])
def test_nobody_gives_themselves_a_role(guarded: Any, stranger: httpx.Client, role: str) -> None:
    log_in(stranger, f"{role}.user")
    attempts = [
        stranger.patch(f"/api/v1/users/{role}.user", json={"role": "admin"}),
        stranger.post("/api/v1/users", json={"name": "mole", "password": PASSWORD, "role": "admin"}),
        stranger.post("/api/v1/tokens", json={"name": "mole", "role": "admin"}),
        stranger.post("/setup", data={"key": "", "name": "mole", "password": PASSWORD}),
    ]
    assert [attempt.status_code for attempt in attempts] == [403, 403, 403, 400]
    assert stranger.get("/api/v1/me").json()["role"] == role


def test_whoever_asks_too_often_waits_and_nobody_else(small_model: Path, tmp_path: Path) -> None:
    products = [{"code": "tile", "model": small_model}]
    with running(data=tmp_path, products=products, requests_per_second=2) as (station, client):
        station.accounts.add_user(ADMIN, "root", PASSWORD, "admin")
        tokens = [station.accounts.add_token(ADMIN, name, "viewer", 1) for name in ("one", "other")]
        headers = [{"Authorization": f"Bearer {token}"} for token in tokens]
        answers = [client.get("/api/v1/me", headers=headers[0]) for _ in range(12)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert answers[0].status_code == 200
        assert refused[0].json()["detail"].startswith("Too many requests: at most 2 per second. Try again in ")
        assert int(refused[0].headers["retry-after"]) >= 1
        assert client.get("/api/v1/me", headers=headers[1]).status_code == 200
        guesses = [client.get("/api/v1/me", headers={"Authorization": f"Bearer guess{n}"}) for n in range(12)]
        assert {answer.status_code for answer in guesses} == {401, 429}  # other guesses are no way out
        assert {client.get("/healthz").status_code for _ in range(12)} == {200}


def test_a_bucket_fills_up_again() -> None:
    rate = Rate(2.0)
    assert [rate.take("a", now) for now in (0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.5)] == [0, 0, 0, 0, 0.5, 0.25, 0]
    assert rate.take("b", 0.0) == 0
    assert [rate.take("a", 1000.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]  # and holds no more than two seconds' worth


def test_paths_lead_nowhere_else(stranger: httpx.Client) -> None:
    log_in(stranger, "admin.user")
    for path in (
        "/api/v1/verdicts/..%2F..%2Fetc%2Fpasswd",
        "/api/v1/verdicts/%00",
        "/../../etc/passwd",
        "//etc/passwd",
    ):
        answer = stranger.get(path)
        assert answer.status_code == 404, path
        assert "root:" not in answer.text


FORM = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
ENDLESS = [
    ("viewer", "POST", "/api/v1/inspect/batch", FORM, "multipart/form-data; boundary=x"),
    ("operator", "POST", "/api/v1/inspect/batch", FORM, "multipart/form-data; boundary=x"),
    ("operator", "POST", "/api/v1/inspect", b"", "image/png"),
    ("viewer", "POST", "/api/v1/verdicts/none/feedback", b'{"judgement": "', "application/json"),
    ("viewer", "PUT", "/api/v1/products/tile/threshold", b"[", "application/json"),
    (None, "POST", "/login", b"name=", "application/x-www-form-urlencoded"),
    (None, "POST", "/api/v1/inspect", b"", "image/png"),
]


@pytest.mark.parametrize(("role", "method", "path", "head", "kind"), ENDLESS)
def test_a_body_that_goes_on_is_refused_at_every_door(
    guarded: Any, stranger: httpx.Client, role: str | None, method: str, path: str, head: bytes, kind: str
) -> None:
    if role is not None:
        log_in(stranger, f"{role}.user")
    pieces = iter([head, *[bytes(65_536)] * 40])  # of no declared length
    answer = stranger.request(method, path, content=pieces, headers={"Content-Type": kind})
    assert answer.status_code == (413 if role or path == "/login" else 401)


def test_a_picture_that_swells_is_not_inspected(guarded: Any, stranger: httpx.Client) -> None:
    log_in(stranger, "operator.user")
    side = 20_000
    row = zlib.compress(bytes((side // 8 + 1) * side), 9)

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")
    assert len(bomb) < 100_000
    verdict = stranger.post("/api/v1/inspect", content=bomb).json()
    assert verdict["label"] == "failed"
    assert "400000000" in verdict["error"].replace(",", "").replace(" ", "")
    for view in ("picture", "thumbnail", "overlay"):
        assert stranger.get(f"/api/v1/verdicts/{verdict['uid']}/{view}").status_code == 404


def test_logging_in_gives_a_new_session_whatever_the_browser_brought(stranger: httpx.Client) -> None:
    planted = "x" * 43
    answer = stranger.post(
        "/login",
        data={"name": "operator.user", "password": PASSWORD},
        headers={"Cookie": f"blemish_session={planted}"},
    )
    assert answer.cookies["blemish_session"] != planted
    assert stranger.get("/api/v1/me", headers={"Cookie": f"blemish_session={planted}"}).status_code == 401


def test_who_reads_the_database_finds_nothing_that_lets_one_in(accounts: Accounts, tmp_path: Path) -> None:
    accounts.add_user(ADMIN, "root", PASSWORD, "admin")
    secrets = [PASSWORD, accounts.log_in("root", PASSWORD, "10.0.0.1"), accounts.add_token(ADMIN, "plc", "operator", 1)]
    content = b"".join(path.read_bytes() for path in tmp_path.glob("a.sqlite*"))
    assert b"root" in content
    assert [secret for secret in secrets if secret.encode() in content] == []


def test_forms_are_small_and_lead_to_this_station(stranger: httpx.Client) -> None:
    assert stranger.post("/login", content=b"name=" + bytes(20_000)).status_code == 413
    script = stranger.get("/login", params={"to": '"><script>alert(1)</script>'}).text
    assert "<script" not in script
    german = stranger.get("/login", headers={"Accept-Language": "de-DE,de;q=0.9"}).text
    assert "<button>Anmelden</button>" in german
    assert '<html lang="de">' in german
    table = {"/history": "/history", "//evil.example": "/", "https://evil.example": "/", "/\\evil": "/", "/a\nb": "/"}
    for to, target in table.items():
        assert local(to) == target


def test_answers_forbid_frames_and_foreign_scripts(stranger: httpx.Client) -> None:
    headers = stranger.get("/login").headers
    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


# ----------------------------------------------------------------------------------------------------- without accounts


def test_without_accounts_this_machine_may_operate_and_no_more(small_model: Path, tmp_path: Path) -> None:
    with running(data=tmp_path, products=[{"code": "tile", "model": small_model}]) as (station, client):
        assert client.get("/api/v1/me").json() == {"name": "anybody", "role": "operator"}
        assert client.get("/api/v1/users").status_code == 403
        port = client.base_url.port
        for headers in (
            {"Host": f"evil.example:{port}"},
            {"X-Forwarded-For": "10.0.0.1"},
            {"Forwarded": "for=1.2.3.4"},
        ):
            assert client.get("/api/v1/me", headers=headers).status_code == 401  # rebound names, and proxies
        for headers in CROSS:
            assert client.post("/api/v1/inspect", content=b"x", headers=headers).status_code == 403
        key = station.accounts.setup_key
        form = {"key": key, "name": "root", "password": PASSWORD}
        assert client.post("/setup", data={**form, "password": "short"}).status_code == 400
        assert client.post("/setup", data=form).headers["location"] == "/login"
        assert client.get("/api/v1/me").status_code == 401


def test_exposed_without_accounts_is_refused(small_model: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {"data": tmp_path, "products": [{"code": "tile", "model": small_model}]}
    station = Station(station_settings({**values, "host": "0.0.0.0"}))
    try:
        with pytest.raises(UsageError, match=r"host 0\.0\.0\.0 is reached from other machines, and nobody has"):
            check_exposure(station)
        station.settings = station_settings({**values, "host": "0.0.0.0", "insecure": True})
        check_exposure(station)
        station.settings = station_settings({**values, "host": "0.0.0.0"})
        station.accounts.add_user(ADMIN, "root", PASSWORD, "admin")
        check_exposure(station)
    finally:
        station.writer.close()
        station.close()


def test_https_and_the_link_of_a_real_process(small_model: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    arguments = [str(small_model), "--port", "0", "--data", "d"]
    with Process(
        tmp_path, *arguments, "--cert", str(cert), "--key", str(key), verify=ssl.create_default_context(cafile=cert)
    ) as station:
        link = station.process.stdout.readline().rpartition(" ")[2].strip()
        assert link.startswith("https://127.0.0.1:")
        assert "Make the admin" in station.client.get(link).text
        form = {"key": link.rpartition("key=")[2], "name": "root", "password": PASSWORD}
        assert station.client.post("/setup", data=form).status_code == 303
        assert "secure" in log_in(station.client, "root").headers["set-cookie"].lower()
        assert station.client.get("/api/v1/me").json()["role"] == "admin"
        station.stop()
    with sqlite3.connect(tmp_path / "d/station.sqlite") as database:
        assert [row[0] for row in database.execute("SELECT action FROM audit")] == ["add user", "log in"]
    database.close()


def certificate(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "station")])
    moment = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, private


def test_the_table_of_attacks_names_tests_that_exist() -> None:
    page = (Path(__file__).parents[3] / "docs/security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(test_\w+)`", page))
    written = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in written} == set()
