"""Which of raystp's cards an encoder of another tool is, by the tool's own name and the dimension of its vectors.

The same name means different vectors in different tools: a class token alone or with the mean of the patches, an
output before or after a projection, other weights. So an imported encoder is `imported:<tool>:<name>`, and becomes a
card on request only. The rows were read from each tool's code: TRIDENT 0.3, CLAM, STAMP 2, slide2vec 7, LazySlide 0.13
and AtlasPatch 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from raystp.errors import FormatError, some

PREFIX = "imported:"

CARD_DIMS: Mapping[str, int] = {
    "uni_v1": 1024,
    "uni_v2": 1536,
    "conch_v1": 512,
    "conch_v15": 768,
    "virchow": 2560,
    "virchow2": 2560,
    "virchow2-cls": 1280,
    "gigapath": 1536,
    "hoptimus0": 1536,
    "hoptimus1": 1536,
    "h0-mini": 1536,
    "h0-mini-cls": 768,
    "phikon": 768,
    "phikon_v2": 1024,
    "midnight12k": 3072,
    "midnight12k-cls": 1536,
    "hibou_b": 768,
    "hibou_l": 1024,
    "kaiko-vits16": 384,
    "kaiko-vits8": 384,
    "kaiko-vitb16": 768,
    "kaiko-vitb8": 768,
    "kaiko-vitl14": 1024,
    "ctranspath": 768,
    "resnet50": 1024,
}
"""Card -> length of its vectors; a test compares it with the registry of encoders."""


@dataclass(frozen=True)
class Foreign:
    """An encoder of another tool that looks like a card and is none, at one dimension."""

    dim: int
    reason: str
    """Why it is none: the end of the sentence `<tool>'s '<name>' ...`."""


Entry = tuple[str | Foreign, ...]
"""The cards that the name may be, one per dimension, and what it is at other dimensions."""

_VIRCHOW_CLASS = Foreign(1280, "is the class token alone; raystp has no card of it")
_OTHER_CTRANSPATH = Foreign(768, "has the weights of CHIEF, not those of 'ctranspath'")
_PROJECTED_CONCH = Foreign(512, "is projected to the space of the text; 'conch_v1' is the row before the projection")
_WHOLE_RESNET = Foreign(2048, "is the whole network; 'resnet50' ends after its third stage, 'timm:resnet50' is whole")

ENCODERS: Mapping[str, Mapping[str, Entry]] = {
    "trident": {
        "uni_v1": ("uni_v1",),
        "uni_v2": ("uni_v2",),
        "conch_v1": ("conch_v1",),
        "conch_v15": ("conch_v15",),
        "virchow": ("virchow",),
        "virchow2": ("virchow2",),
        "gigapath": ("gigapath",),
        "hoptimus0": ("hoptimus0",),
        "hoptimus1": ("hoptimus1",),
        "h0-mini": ("h0-mini", "h0-mini-cls"),
        "phikon": ("phikon",),
        "phikon_v2": ("phikon_v2",),
        "midnight12k": ("midnight12k", "midnight12k-cls"),
        "hibou_l": ("hibou_l",),
        "resnet50": ("resnet50",),
        "ctranspath": ("ctranspath",),
    },
    "clam": {
        "resnet50_trunc": ("resnet50",),
        "uni_v1": ("uni_v1",),
        "conch_v1": ("conch_v1",),
        "conch_v1_5": ("conch_v15",),
    },
    "stamp": {
        "uni": ("uni_v1",),
        "uni2": ("uni_v2",),
        "conch": ("conch_v1",),
        "conch1_5": ("conch_v15",),
        "virchow": (_VIRCHOW_CLASS,),
        "virchow-full": ("virchow",),
        "virchow2": ("virchow2-cls",),
        "gigapath": ("gigapath",),
        "h-optimus-0": ("hoptimus0",),
        "h-optimus-1": ("hoptimus1",),
        "ctranspath": ("ctranspath",),
        "chief-ctranspath": (_OTHER_CTRANSPATH,),
    },
    "slide2vec": {
        "uni": ("uni_v1",),
        "uni2": ("uni_v2",),
        "conch": ("conch_v1",),
        "conchv15": ("conch_v15",),
        "virchow": ("virchow", _VIRCHOW_CLASS),
        "virchow2": ("virchow2", "virchow2-cls"),
        "gigapath": ("gigapath",),
        "h-optimus-0": ("hoptimus0",),
        "h-optimus-1": ("hoptimus1",),
        "h0-mini": ("h0-mini", "h0-mini-cls"),
        "phikon": ("phikon",),
        "phikonv2": ("phikon_v2",),
        "midnight": ("midnight12k",),
        "hibou-b": ("hibou_b",),
        "hibou-l": ("hibou_l",),
    },
    "lazyslide": {
        "uni": ("uni_v1",),
        "uni2": ("uni_v2",),
        "conch": (_PROJECTED_CONCH,),
        "conch-madeleine": ("conch_v1",),
        "conch_v1.5": ("conch_v15",),
        "titan": ("conch_v15",),
        "virchow": ("virchow",),
        "virchow2": ("virchow2",),
        "gigapath": ("gigapath",),
        "h-optimus-0": ("hoptimus0",),
        "h-optimus-1": ("hoptimus1",),
        "h0-mini": ("h0-mini", "h0-mini-cls"),
        "phikon": ("phikon",),
        "phikonv2": ("phikon_v2",),
        "midnight": ("midnight12k",),
        "hibou-b": ("hibou_b",),
        "hibou-l": ("hibou_l",),
        "ctranspath": ("ctranspath",),
        "chief": (_OTHER_CTRANSPATH,),
    },
    "atlaspatch": {
        "uni_v1": ("uni_v1",),
        "uni_v2": ("uni_v2",),
        "conch_v1": ("conch_v1",),
        "conch_v15": ("conch_v15",),
        "virchow_v1": ("virchow",),
        "virchow_v2": ("virchow2",),
        "prov_gigapath": ("gigapath",),
        "h_optimus_0": ("hoptimus0",),
        "h_optimus_1": ("hoptimus1",),
        "h0_mini": ("h0-mini",),
        "phikon_v1": ("phikon",),
        "phikon_v2": ("phikon_v2",),
        "midnight": ("midnight12k",),
        "resnet50": (_WHOLE_RESNET,),
        "chief-ctranspath": (_OTHER_CTRANSPATH,),
    },
}
"""Tool -> its name of an encoder -> what it is, by dimension. Names are in lower case."""


def imported_name(tool: str, name: str) -> str:
    """Return the name of an encoder whose vectors were imported: `imported:<tool>:<name>`."""
    return f"{PREFIX}{tool}:{name}"


def match_card(tool: str, name: str, dim: int) -> tuple[str | None, str]:
    """Return the card that a tool's encoder is, or None; and a sentence that says so.

    A card has the same weights and the same output. The pixels may still differ: only vectors made anew can tell.
    """
    entry = ENCODERS.get(tool, {}).get(name.lower())
    own = f"{tool}'s {name!r} of {dim} values"
    if not entry:
        return None, f"{own} is no encoder that raystp knows"
    for one in entry:
        if isinstance(one, Foreign) and one.dim == dim:
            return None, f"{own} {one.reason}"
        if isinstance(one, str) and CARD_DIMS[one] == dim:
            return one, f"{own} is raystp's '{one}'"
    known = " or ".join(f"{_dim(one)}" for one in entry)
    return None, f"{own} is no encoder that raystp knows: {name!r} has {known} values"


def check_card(card: str, tool: str, name: str | None, dim: int) -> str | None:
    """Check a user's request that vectors of `dim` values are those of `card`; return a note where the name is unknown.

    Raises FormatError where the dimension differs, and where the tool's encoder is known and is another. Of encoders
    without a card nothing is known.
    """
    if (known := CARD_DIMS.get(card, dim)) != dim:
        fitting = some([one for one in CARD_DIMS if CARD_DIMS[one] == dim], 20) or "none"
        msg = f"encoder={card}: it has {known} values a tile, and these vectors have {dim}; cards of {dim}: {fitting}"
        raise FormatError(f"{msg}. Leave encoder out, and they keep a name of their own")
    if name is None:
        return f"the files name no encoder: they are '{card}' because encoder={card} says so"
    entry = ENCODERS.get(tool, {}).get(name.lower())
    found, sentence = match_card(tool, name, dim)
    if entry and found != card and card in CARD_DIMS:
        msg = f"encoder={card}: {sentence}. Leave encoder out, and it is '{imported_name(tool, name)}'"
        raise FormatError(msg)
    return None if found == card else f"{sentence}: it is '{card}' because encoder={card} says so"


def name_in(tool: str, encoder: str, dim: int) -> str:
    """Return a tool's own name of an encoder; the encoder's name itself where the tool has none, fit for a folder.

    `imported:<tool>:<name>` is `<name>` again in the same tool, and in another tool what its card is there. A name that
    means another vector in the tool is not used: `raystp-<name>` is.
    """
    if encoder.startswith(PREFIX):
        other, _, name = encoder.removeprefix(PREFIX).partition(":")
        if other == tool:
            return _plain(name)
        encoder = match_card(other, name, dim)[0] or f"{other}-{name}"
    names = ENCODERS.get(tool, {})
    own = next((name for name, entry in names.items() if encoder in entry), _plain(encoder))
    return f"raystp-{own}" if own in names and encoder not in names[own] else own


def _plain(name: str) -> str:
    return name.replace(":", "-").replace("/", "-")


def _dim(one: str | Foreign) -> int:
    return one.dim if isinstance(one, Foreign) else CARD_DIMS[one]
