"""The operator that is being built."""

from __future__ import annotations

from typing import Any

current: OpContext | None = None


class OpContext:
    def __init__(self, mode: str) -> None:
        assert mode == "static"
        self.infos: list[Any] = []

    def add_op_info(self, info: Any) -> None:
        self.infos.append(info)

    def __enter__(self) -> OpContext:
        global current
        current = self
        return self

    def __exit__(self, *_: object) -> None:
        global current
        current = None
