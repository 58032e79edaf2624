"""What an operator is called."""

from dataclasses import dataclass


@dataclass
class OpInfo:
    op_name: str
    op_type: str
