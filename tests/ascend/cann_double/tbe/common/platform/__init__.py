"""The SoC that is built for."""

soc = core_type = ""


def set_current_compile_soc_info(name: str, core: str = "AiCore") -> None:
    global soc, core_type
    assert name.startswith("Ascend") and core in ("AiCore", "VectorCore")
    soc, core_type = name, core
