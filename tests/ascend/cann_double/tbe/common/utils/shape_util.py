"""Shapes of a case."""


def variable_shape(case: list) -> list:
    return [list(item["shape"]) for item in case]
