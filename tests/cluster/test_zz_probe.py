import pytest, time, ray
from pathlib import Path
pytestmark = pytest.mark.ray
def test_smoke(smoke_store):
    print(sorted(p.name for p in smoke_store.iterdir()))
