"""All published protocols by name."""

from raystp.errors import ConfigError
from raystp.evaluate.published.bleep import BLEEP_LIVER
from raystp.evaluate.published.hest import HEST_ALPHACV, HEST_PAPER, HEST_README
from raystp.evaluate.published.mclstexp import MCLSTEXP_785
from raystp.evaluate.published.protocol import PublishedProtocol
from raystp.evaluate.published.st_benching import ST_BENCHING_833
from raystp.evaluate.published.stem import STEM_200
from raystp.evaluate.published.triplex import TRIPLEX_250

PUBLISHED: dict[str, PublishedProtocol] = {
    one.name: one
    for one in (
        ST_BENCHING_833,
        HEST_README,
        HEST_PAPER,
        HEST_ALPHACV,
        TRIPLEX_250,
        MCLSTEXP_785,
        BLEEP_LIVER,
        STEM_200,
    )
}


def published_protocol(name: str) -> PublishedProtocol:
    """Return the published protocol with this name; raise ConfigError, listing the known names, if there is none."""
    if name not in PUBLISHED:
        msg = f"protocol: unknown published protocol {name!r}; choose from {', '.join(sorted(PUBLISHED))}"
        raise ConfigError(msg)
    return PUBLISHED[name]
