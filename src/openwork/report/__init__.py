"""The page people look at: what a run did, what the compiler made of it, and how fast it is."""

from .page import write_report

__all__ = ["write_report"]
