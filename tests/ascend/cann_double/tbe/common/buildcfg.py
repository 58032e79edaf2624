"""Where kernels go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

current: dict[str, str] = {}


@contextlib.contextmanager
def build_config(**options: str) -> Iterator[None]:
    assert set(options) == {"kernel_meta_parent_dir"}
    current.update(options)
    yield
    current.clear()
