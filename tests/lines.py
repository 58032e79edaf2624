"""Count lines of code: those with a token of a statement that is no docstring.  ``python tests/lines.py [ROOT]``."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip

FACTS = {"spec", "layout", "target", "schedule", "operators", "entry_points", "reference"}
CORE = {"codegen", "store", "launch"}


def count(source: str) -> int:
    """Return the lines of code of a module; a text that stands alone is documentation."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str):
                lines -= set(range(statement.lineno, (statement.end_lineno or 0) + 1))
    return len(lines)


def main() -> None:
    package = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]) / "fq_tvm"
    parts: dict[str, int] = {}
    for path in sorted(package.rglob("*.py")):
        part = path.relative_to(package).parts[0].removesuffix(".py")
        parts[part] = parts.get(part, 0) + count(path.read_text())
    for part, lines in parts.items():
        print(f"{lines:6} {part}")
    print(f"{sum(n for part, n in parts.items() if part in FACTS | CORE):6} the core: facts, codegen, store, launch")
    print(f"{sum(parts.values()):6} in all")


if __name__ == "__main__":
    main()
