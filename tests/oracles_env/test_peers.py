"""The tables of methods and metrics name everything that other tools have. Run with `make oracles`."""

from __future__ import annotations

from importlib.metadata import version

import peers
import pytest

pytestmark = pytest.mark.oracles


@pytest.mark.parametrize("peer", peers.PEERS)
def test_nothing_of_it_is_missing(peer: str) -> None:
    names = peers.exported(peer)
    if names is None:
        pytest.skip(f"{peers.PEERS[peer]}: not installed; run `make oracles`")
    assert version(peers.PEERS[peer]).startswith(peers.data()["versions"][peer])
    assert names
    assert set(peers.listed(peer)) == names
