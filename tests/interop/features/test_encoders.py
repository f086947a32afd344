"""The names of encoders in other tools: which card each is, and which is none."""

import pytest

from raystp.encoders.registry import CARDS
from raystp.errors import FormatError
from raystp.interop.features.encoders import (
    CARD_DIMS,
    ENCODERS,
    Foreign,
    check_card,
    imported_name,
    match_card,
    name_in,
)
from raystp.interop.registry import FEATURES


def test_the_dimensions_are_those_of_the_cards() -> None:
    assert dict(CARD_DIMS) == {name: card.dim for name, card in CARDS.items()}


def test_every_entry_is_a_card_or_a_reason_and_the_dimension_decides() -> None:
    assert set(ENCODERS) <= set(FEATURES)
    for tool, names in ENCODERS.items():
        for name, entry in names.items():
            dims = [one.dim if isinstance(one, Foreign) else CARD_DIMS[one] for one in entry]
            assert len(set(dims)) == len(dims), (tool, name)
            for one, dim in zip(entry, dims, strict=True):
                assert match_card(tool, name, dim)[0] == (None if isinstance(one, Foreign) else one)
            assert match_card(tool, name, 7)[0] is None


@pytest.mark.parametrize(
    ("encoder", "card", "said"),
    [
        (("trident", "uni_v2", 1536), "uni_v2", "is raystp's 'uni_v2'"),
        (("trident", "h0-mini", 768), "h0-mini-cls", "is raystp's 'h0-mini-cls'"),
        (("trident", "midnight12k", 1536), "midnight12k-cls", ""),
        (("stamp", "virchow2", 1280), "virchow2-cls", ""),
        (("stamp", "virchow2", 2560), None, "'virchow2' has 1280 values"),
        (("stamp", "virchow", 1280), None, "is the class token alone; raystp has no card of it"),
        (("stamp", "virchow-full", 2560), "virchow", ""),
        (("stamp", "chief-ctranspath", 768), None, "has the weights of CHIEF, not those of 'ctranspath'"),
        (("slide2vec", "virchow2", 1280), "virchow2-cls", ""),
        (("lazyslide", "conch", 512), None, "is projected to the space of the text; 'conch_v1' is the row before"),
        (("lazyslide", "conch-madeleine", 512), "conch_v1", ""),
        (("lazyslide", "titan", 768), "conch_v15", ""),
        (("lazyslide", "chief", 768), None, "has the weights of CHIEF"),
        (("atlaspatch", "resnet50", 2048), None, "is the whole network; 'resnet50' ends after its third stage"),
        (("trident", "resnet50", 1024), "resnet50", ""),
        (("clam", "resnet50_trunc", 1024), "resnet50", ""),
        (("trident", "own_model", 1024), None, "TRIDENT's"),
    ],
)
def test_names_that_clash_are_told_apart(encoder: tuple[str, str, int], card: str | None, said: str) -> None:
    tool, name, dim = encoder
    found, sentence = match_card(tool, name, dim)
    assert found == card
    assert said.lower() in sentence.lower()
    assert f"{name!r} of {dim} values" in sentence


def test_vectors_become_those_of_a_card_only_where_the_dimension_fits_and_nothing_speaks_against_it() -> None:
    assert check_card("uni_v2", "stamp", "uni2", 1536) is None
    note = check_card("uni_v2", "trident", "own_model", 1536)
    assert note is not None
    assert note.endswith("it is 'uni_v2' because encoder=uni_v2 says so")
    assert "name no encoder" in str(check_card("uni_v1", "clam", None, 1024))
    assert check_card("tiny", "stamp", "tiny", 8) is not None  # an encoder without a card: nothing is known of it
    with pytest.raises(FormatError, match=r"encoder=uni_v2: it has 1536 values a tile, and these vectors have 1024; "):
        check_card("uni_v2", "stamp", "uni2", 1024)
    with pytest.raises(FormatError, match=r"is projected to the space .*, and it is 'imported:lazyslide:conch'"):
        check_card("conch_v1", "lazyslide", "conch", 512)
    with pytest.raises(FormatError, match=r"is raystp's 'gigapath'\. Leave encoder out"):
        check_card("uni_v2", "stamp", "gigapath", 1536)


def test_a_tool_s_name_of_an_encoder_is_found_and_an_imported_one_keeps_its_own() -> None:
    assert imported_name("stamp", "uni2") == "imported:stamp:uni2"
    assert name_in("stamp", "uni_v2", 1536) == "uni2"
    assert name_in("stamp", "virchow2-cls", 1280) == "virchow2"
    assert name_in("stamp", "virchow2", 2560) == "raystp-virchow2"  # STAMP's own is the class token alone
    assert name_in("stamp", "imported:stamp:keep", 768) == "keep"
    assert name_in("stamp", "imported:trident:uni_v2", 1536) == "uni2"
    assert name_in("stamp", "imported:trident:a/b", 8) == "trident-a-b"
    assert name_in("clam", "gigapath", 1536) == "gigapath"
    assert name_in("trident", "h0-mini-cls", 768) == "h0-mini"
