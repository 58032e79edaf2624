"""The exceptions of the library; this module knows nothing else."""

from __future__ import annotations

__all__ = ["ArgumentError", "BuildError", "CacheMissError", "FqError", "LaunchError", "UntrustedError"]


class FqError(Exception):
    """Base class of every error that the library raises on purpose."""


class ArgumentError(FqError, ValueError):
    """An argument that the operator's contract refuses.

    Parameters
    ----------
    message : str
        Names the argument, what was given and what was expected.
    kind : {"null", "dtype", "shape", "range", "overlap"}
        Which check refused it.  The aclnn facade turns ``"null"`` into
        ``ACLNN_ERR_PARAM_NULLPTR`` and the rest into ``ACLNN_ERR_PARAM_INVALID``.
    """

    def __init__(self, message: str, kind: str = "shape") -> None:
        super().__init__(message)
        self.kind = kind


class BuildError(FqError, RuntimeError):
    """No kernel could be built or loaded for a specification."""


class CacheMissError(BuildError):
    """``FQ_TVM_REQUIRE_CACHE`` is set and no usable entry was found."""


class UntrustedError(BuildError):
    """A folder or a file of kernels could be written by another user, or is a link; nothing was loaded from it."""


class LaunchError(FqError, RuntimeError):
    """A kernel returned an error."""
