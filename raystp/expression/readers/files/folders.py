"""Find a file among the names of a folder, where names may have a sample's prefix (GEO) and `.gz` behind."""

from dataclasses import dataclass

from raystp.errors import SectionError, some
from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath

PACKED = (".tar.gz", ".tgz", ".tar", ".zip", ".h5.gz", ".h5ad.gz")
"""Files that must be unpacked before they are read."""


@dataclass(frozen=True)
class Found:
    """A file of a role."""

    path: StoragePath
    prefix: str
    """What its name has before the role's own, such as `GSM0000001_S1_`."""


def find_role(folder: StoragePath, names: list[str], roles: tuple[str, ...], source: SectionSource) -> Found | None:
    """Return the file whose name ends with one of the roles, which are in order of preference; None without one.

    Raises SectionError where files of several samples are in the folder, and none has the name of the section.
    """
    found: dict[str, str] = {}
    for role in reversed(roles):
        for name in names:
            plain = name.removesuffix(".gz")
            if plain.endswith(role) and not name.startswith("._"):
                found[plain.removesuffix(role)] = name
    if not found:
        return None
    prefix = next(iter(found)) if len(found) == 1 else _choose(found, roles[0], folder, source)
    return Found(folder / found[prefix], prefix)


def split_role(name: str, roles: tuple[str, ...]) -> str | None:
    """Return the prefix of a file's name before one of the roles; None where it has none of them."""
    plain = name.removesuffix(".gz")
    return next((plain.removesuffix(role) for role in roles if plain.endswith(role)), None)


def refuse_packed(path: StoragePath, origin: str) -> None:
    """Raise SectionError for an archive, or an HDF5 file within gzip."""
    if path.name.endswith(PACKED):
        msg = f"{origin}: {path} is packed: unpack it (gunzip, tar -xf, unzip), and name the file or folder inside"
        raise SectionError(msg)


def _choose(found: dict[str, str], role: str, folder: StoragePath, source: SectionSource) -> str:
    wanted = [name for name in (source.library, source.section, source.slide) if name]
    for name in wanted:
        matching = [prefix for prefix in found if prefix.rstrip("_-.") == name or name in prefix.split("_")]
        if len(matching) == 1:
            return matching[0]
    if "" in found:
        return ""
    msg = (
        f"{source.origin}: {folder} has files of {len(found)} samples ({some(sorted(found.values()))}), and none has "
        f"the name of the section: give the file *{role} itself, or the sample's name in the column `library`"
    )
    raise SectionError(msg)
