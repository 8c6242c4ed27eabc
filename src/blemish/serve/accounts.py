"""People and programs: who they are, and what they may do.

Passwords are argon2id hashes. Of session cookies and API tokens the database holds the SHA-256 alone: 256 random bits
need no slow hash, and who reads the database can't log in with what is in it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import Connection, Engine, delete, func, insert, literal, select, update

from blemish.errors import UsageError
from blemish.serve.audit import note
from blemish.serve.database import Writer
from blemish.serve.history import now
from blemish.serve.tables import sessions, tokens, users

ROLES = ("viewer", "operator", "engineer", "admin")
"""Each may do all that those before it may."""
SESSION_HOURS = 12
MIN_PASSWORD = 10
MAX_PASSWORD = 200
FREE_TRIES = 5
"""Wrong passwords in a row after which a name, and an address, waits: 2 seconds, then 4, 8, ... up to 5 minutes."""
_NAME = re.compile(r"[\w.@+-]{1,64}")


@dataclass(frozen=True)
class Person:
    """Whoever asks for something: a user, a program with a token, or anybody at a station without accounts."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether this role is among those that it has."""
        return ROLES.index(self.role) >= ROLES.index(role)


ANYBODY = Person("anybody", "operator")
"""Who asks at a station on which nobody has an account."""


class TooManyTries(UsageError):
    """Wrong passwords too often; `seconds` says how long to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Too many wrong passwords. Try again in {seconds:.0f} seconds.")
        self.seconds = seconds


class Accounts:
    """Users, sessions and tokens.

    Args:
        engine: of a migrated database. writer: over the same, of the only process that uses it.

    Attributes:
        engine: the same. setup_key: makes the first admin, once; None when there are users.
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self.engine, self._writer = engine, writer
        self._hasher = PasswordHasher()
        self._hashing = threading.Semaphore(2)  # each takes 64 MB, and strangers may ask for it
        self._nobody = self._hasher.hash(secrets.token_hex())  # compared with where there is no such user
        self._known: dict[str, tuple[Person, int]] = {}  # digest -> person and expiry; this process is the only one
        self._tries: dict[str, tuple[int, float]] = {}
        with engine.connect() as connection:
            self._any = bool(connection.scalar(select(func.count()).select_from(users)))
        self.setup_key = None if self._any else secrets.token_urlsafe(32)

    @property
    def any(self) -> bool:
        """Whether anybody has an account, so that everybody needs one."""
        return self._any

    # ---------------------------------------------------------------------------------------------------------- people

    def set_up(self, key: str, name: str, password: str) -> None:
        """Makes the first admin.

        Raises:
            UsageError: for a wrong or used key, a bad name or password.
        """
        if self.setup_key is None or not secrets.compare_digest(key.encode(), self.setup_key.encode()):
            raise UsageError(
                "This link was used, or is of an earlier start. The station prints a new one when it starts."
            )
        self.add_user(Person("setup", "admin"), name, password, "admin")
        self.setup_key = None

    def add_user(self, by: Person, name: str, password: str, role: str) -> None:
        """Makes a user.

        Raises:
            UsageError: for a name that is taken or odd, a short password, an unknown role.
        """
        _check_name(name)
        _check_role(role)
        hashed = self._hash(password)

        def job(connection: Connection) -> None:
            if connection.scalar(select(users.c.name).where(users.c.name == name)) is not None:
                raise UsageError(f"There is a user called {name!r} already.")
            row = {"name": name, "password": hashed, "role": role, "active": True, "created": now()}
            connection.execute(insert(users).values(**row))
            note(connection, by.name, "add user", name=name, role=role)

        self._writer.run(job)
        self._any = True

    def change_user(
        self, by: Person, name: str, *, role: str | None = None, active: bool | None = None, password: str | None = None
    ) -> None:
        """Changes what isn't None, and ends the user's sessions.

        Raises:
            UsageError: for an unknown user or role, a short password, or if no admin would be left.
        """
        if role is not None:
            _check_role(role)
        values: dict[str, Any] = {"role": role, "active": active, "password": password and self._hash(password)}
        values = {key: value for key, value in values.items() if value is not None}

        def job(connection: Connection) -> None:
            if connection.scalar(select(users.c.name).where(users.c.name == name)) is None:
                raise UsageError(f"There is no user called {name!r}.")
            connection.execute(update(users).where(users.c.name == name).values(**values))
            admins = select(func.count()).where(users.c.role == "admin", users.c.active)
            if not connection.scalar(admins):
                raise UsageError("One active admin has to be left. Make another one first.")
            connection.execute(delete(sessions).where(sessions.c.user == name))
            shown = {key: "changed" if key == "password" else value for key, value in values.items()}
            note(connection, by.name, "change user", name=name, **shown)

        self._writer.run(job)
        self._known.clear()

    def users(self) -> Sequence[dict[str, Any]]:
        """Name, role, whether active, and when made."""
        columns = (users.c.name, users.c.role, users.c.active, users.c.created)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(*columns).order_by(users.c.name)).mappings()]

    # -------------------------------------------------------------------------------------------------------- sessions

    def log_in(self, name: str, password: str, address: str) -> str:
        """The content of a session cookie.

        Raises:
            UsageError: for a wrong name or password, which of them isn't told; TooManyTries.
        """
        for who in (f"name {name}", f"address {address}"):
            self._check_tries(who)
        with self.engine.connect() as connection:
            row = connection.execute(select(users).where(users.c.name == name, users.c.active)).first()
        if not self._matches(self._nobody if row is None else row.password, password) or row is None:
            for who in (f"name {name}", f"address {address}"):
                self._tries[who] = (self._tries.get(who, (0, 0.0))[0] + 1, time.monotonic())
            self._writer.run(lambda connection: note(connection, name[:64], "wrong password", address=address))
            raise UsageError("Name or password is wrong.")
        self._tries.pop(f"name {name}", None)
        secret = secrets.token_urlsafe(32)

        def job(connection: Connection) -> None:
            connection.execute(delete(sessions).where(sessions.c.expires < now()))
            expires = now() + SESSION_HOURS * 3_600_000_000
            connection.execute(insert(sessions).values(digest=_digest(secret), user=name, expires=expires))
            note(connection, name, "log in", address=address)

        self._writer.run(job)
        return secret

    def log_out(self, secret: str) -> None:
        """Ends a session, on the station as well."""
        digest = _digest(secret)
        self._writer.run(lambda connection: connection.execute(delete(sessions).where(sessions.c.digest == digest)))
        self._known.pop(digest, None)

    def of_session(self, secret: str) -> Person | None:
        """Whose session this is; None if it has ended or never was."""
        query = select(users.c.name, users.c.role, sessions.c.expires).join_from(sessions, users)
        return self._find(secret, query.where(users.c.active), sessions)

    # ---------------------------------------------------------------------------------------------------------- tokens

    def add_token(self, by: Person, name: str, role: str, days: float) -> str:
        """Makes a token for a program; it can't be looked up again.

        Raises:
            UsageError: for a name that is taken or odd, a role above that of `by`, or days that aren't above 0 and at
                most 3650.
        """
        _check_name(name)
        _check_role(role)
        if not by.may(role):
            raise UsageError(f"A token can't be more than who makes it: {by.role}. Got {role!r}.")
        if not 0 < days <= 3650:
            raise UsageError(f"days must be above 0 and at most 3650. Got {days}.")
        secret = f"blemish_{secrets.token_urlsafe(32)}"
        expires = now() + int(days * 86_400_000_000)

        def job(connection: Connection) -> None:
            if connection.scalar(select(tokens.c.name).where(tokens.c.name == name)) is not None:
                raise UsageError(f"There is, or was, a token called {name!r}. Choose another name.")
            row = {"digest": _digest(secret), "name": name, "role": role, "expires": expires}
            connection.execute(insert(tokens).values(**row, revoked=False, creator=by.name))
            note(connection, by.name, "add token", name=name, role=role, expires=expires)

        self._writer.run(job)
        return secret

    def revoke_token(self, by: Person, name: str) -> None:
        """Ends a token.

        Raises:
            UsageError: if there is none of that name.
        """

        def job(connection: Connection) -> None:
            changed = connection.execute(update(tokens).where(tokens.c.name == name).values(revoked=True))
            if not changed.rowcount:
                raise UsageError(f"There is no token called {name!r}.")
            note(connection, by.name, "revoke token", name=name)

        self._writer.run(job)
        self._known.clear()

    def tokens(self) -> Sequence[dict[str, Any]]:
        """All but what would let one in."""
        columns = [column for column in tokens.c if column is not tokens.c.digest]
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(*columns).order_by(tokens.c.name)).mappings()]

    def of_token(self, secret: str) -> Person | None:
        """Whose token this is; None if it has ended or never was."""
        name = literal("token ") + tokens.c.name
        query = select(name, tokens.c.role, tokens.c.expires).where(~tokens.c.revoked)
        return self._find(secret, query, tokens)

    # --------------------------------------------------------------------------------------------------------- private

    def _find(self, secret: str, query: Any, table: Any) -> Person | None:
        digest = _digest(secret)
        found = self._known.get(digest)
        if found is None:
            with self.engine.connect() as connection:
                row = connection.execute(query.where(table.c.digest == digest)).first()
            if row is None:
                return None
            found = Person(row[0][:64], row[1]), row[2]
            if len(self._known) > 1000:
                self._known.clear()
            self._known[digest] = found
        person, expires = found
        return person if now() < expires else None

    def _check_tries(self, who: str) -> None:
        count, last = self._tries.get(who, (0, 0.0))
        if count >= FREE_TRIES:
            left = last + min(300.0, 2.0 ** (count - FREE_TRIES + 1)) - time.monotonic()
            if left > 0:
                raise TooManyTries(left)
        if len(self._tries) > 10_000:
            self._tries.clear()

    def _hash(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise UsageError(f"A password must have {MIN_PASSWORD} to {MAX_PASSWORD} characters. Got {len(password)}.")
        with self._hashing:
            return self._hasher.hash(password)

    def _matches(self, hashed: str, password: str) -> bool:
        try:
            with self._hashing:
                return len(password) <= MAX_PASSWORD and self._hasher.verify(hashed, password)
        except VerificationError:
            return False


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise UsageError(f"role must be one of {', '.join(ROLES)}. Got {role!r}.")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"A name must have 1 to 64 letters, digits or .@+-_ characters. Got {name!r:.80}.")
