"""Exceptions of the machine's settings rather than of the input, each as a sentence with the next step."""

import errno
import os
from pathlib import Path

from raystp.errors import describe_exception, unwrapped

SOCKET_BYTES = 107
"""Length limit of the path of a Unix socket on Linux."""

FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
TOO_MANY = (errno.EMFILE, errno.ENFILE)

TOKEN_PHRASES = ("InvalidAuthToken", "token authentication", "Token authentication")
"""Of Ray, where a token is wrong or missing."""


def ray_folder() -> str:
    """Return the folder under which Ray writes its sockets, logs and spilled objects."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def explain(error: BaseException) -> str | None:
    """Return the sentence for an exception of the machine's settings; None for any other exception."""
    error = unwrapped(error)
    text = str(error)
    if "AF_UNIX path" in text:
        return (
            f"the temporary folder {ray_folder()} is too long for Ray's sockets, whose paths have at most "
            f"{SOCKET_BYTES} bytes: set RAY_TMPDIR to a short folder, such as /tmp"
        )
    if "getpwuid" in text or "determine home directory" in text:
        return (
            f"the user id {os.getuid()} has no name or home folder on this machine ({describe_exception(error)}): set "
            "the environment variables USER and HOME, or add the user to /etc/passwd"
        )
    if "usable temporary directory" in text:
        return f"there is no writable temporary folder ({text}): set TMPDIR to one"
    if isinstance(error, MemoryError):
        return f"this machine is out of memory ({describe_exception(error)}): choose fewer or smaller workers"
    if isinstance(error, ModuleNotFoundError):
        return f"a package is missing ({text}): install raystp again with its dependencies"
    return _explain_os_error(error) if isinstance(error, OSError) else _explain_ray_error(error)


def _explain_os_error(error: OSError) -> str | None:
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in FULL:
        return f"there is no space left{where} ({error.strerror}): free some, or set RAY_TMPDIR, TMPDIR or run.store"
    if error.errno in DENIED:
        return (
            f"access is denied{where} ({error.strerror}): allow it, or set HOME, TMPDIR or run.store to another folder"
        )
    if error.errno in TOO_MANY:
        return f"too many files are open{where} ({error.strerror}): raise the limit with `ulimit -n 65536`"
    return None


def _explain_ray_error(error: BaseException) -> str | None:
    """Return the sentence for an error of Ray itself, such as a node or an actor that is lost."""
    if not type(error).__module__.startswith("ray."):
        return None
    if type(error).__name__ == "OutOfDiskError":
        return (
            "the object store of a Ray node is full, and so is the disk that it spills to "
            f"({ray_folder()}/ray, unless the cluster sets object_spilling_directory): free some space there, or set "
            "run.readers=0, which sends no pixels through the object store; finished work is kept, and the same "
            "command continues from there"
        )
    return f"Ray failed ({describe_exception(error)}); finished work is kept, and the same command continues from there"


def explain_start(error: BaseException) -> str:
    """Return the sentence for an exception of Ray's start on this machine."""
    if isinstance(error, OSError) and (explained := explain(error)) is None:
        return (
            f"Ray cannot start on this machine ({describe_exception(error)}): set HOME, where it keeps its token, and "
            f"RAY_TMPDIR (now {ray_folder()}) to folders that exist and can be written to"
        )
    explained = explain(error)
    logs = f"{ray_folder()}/ray/session_latest/logs"
    return explained or f"Ray cannot start on this machine ({describe_exception(error)}): see its logs in {logs}"


def explain_token(text: str) -> str | None:
    """Return the sentence for what Ray prints where a cluster refuses a token; None for any other text.

    Ray takes its token from RAY_AUTH_TOKEN, else from the file of RAY_AUTH_TOKEN_PATH, else from ~/.ray/auth_token.
    """
    if not any(phrase in text for phrase in TOKEN_PHRASES):
        return None
    file = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(Path("~/.ray/auth_token").expanduser())
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        refused = "needs a token, and RAY_AUTH_MODE=disabled sends none: set RAY_AUTH_MODE=token"
    elif os.environ.get("RAY_AUTH_TOKEN"):
        refused = "refuses the token of RAY_AUTH_TOKEN: set it to the right one"
    elif Path(file).is_file():
        refused = f"refuses the token of {file}: set RAY_AUTH_TOKEN to the right one"
    else:
        refused = (
            f"needs a token, and there is none in RAY_AUTH_TOKEN or {file}: set RAY_AUTH_MODE=token RAY_AUTH_TOKEN"
        )
    return f"{refused}; `ray get-auth-token` on the cluster's head prints it"
