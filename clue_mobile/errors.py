"""Errors of the toolkit; the type is shared with the device runtime so that a caller catches one."""

from pi_runtime.errors import ClueError, unknown

__all__ = ["ClueError", "unknown"]
