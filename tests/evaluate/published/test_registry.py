"""What every published protocol has."""

from typing import get_args

import pytest

from raystp.errors import ConfigError
from raystp.evaluate.protocols import PROTOCOLS, PublishedName
from raystp.evaluate.published.registry import PUBLISHED, published_protocol


def test_configs_know_the_same_names() -> None:
    assert set(get_args(PublishedName)) == set(PUBLISHED)
    assert not set(PUBLISHED) & set(PROTOCOLS)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_protocol_states_its_leak_and_its_data(name: str) -> None:
    protocol = published_protocol(name)
    assert protocol.name == name
    assert protocol.leak.endswith(".")
    assert protocol.data


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown published protocol 'hest'; choose from bleep-liver, hest-alphacv, "):
        published_protocol("hest")
