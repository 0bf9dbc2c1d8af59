"""Stands for a package that is not installed, so that Ray does without its dashboard."""

raise ModuleNotFoundError("tests run Ray without its dashboard")
