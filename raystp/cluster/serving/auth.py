"""The terms on which the service lets a request in, and how one is turned away."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from raystp.errors import ConfigError

LEAST_TOKEN = 16
"""Characters of a token."""


class RequestRefused(Exception):  # noqa: N818 -- an answer, said in HTTP's words
    """A request is not answered: the status and the sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass(frozen=True)
class BearerToken:
    """Where the bearer token is: a file, or an environment variable; never the token itself."""

    file: str | None = None
    env: str | None = None

    def digest(self) -> bytes:
        """Return the token's sha256; raises ConfigError where there is no token, or one that can be guessed."""
        where = f"the token file {self.file}" if self.file else f"the environment variable {self.env} of the token"
        try:
            text = Path(self.file).read_text(encoding="utf-8") if self.file else os.environ[self.env or ""]
        except (OSError, KeyError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not set, or no text"
            msg = f"{where} cannot be read: {reason}"
            raise ConfigError(msg) from None
        if len(text.strip()) < LEAST_TOKEN:
            msg = f"{where} holds {len(text.strip())} characters, at least {LEAST_TOKEN} would do: openssl rand -hex 32"
            raise ConfigError(msg)
        return hashlib.sha256(text.strip().encode()).digest()


@dataclass(frozen=True)
class AccessPolicy:
    """What is let in."""

    body_bytes: int = 16 << 20
    requests: int = 64
    """Inside at a time; times `body_bytes`, this bounds the memory that bodies take."""
    deadline_s: float = 30.0
    token: BearerToken | None = None

    def to_json(self) -> str:
        """Return this as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "AccessPolicy":
        """Return the door that `to_json` wrote."""
        values = json.loads(text)
        return cls(**values | {"token": BearerToken(**values["token"]) if values["token"] else None})
