"""Stands for a package that is not installed, so that Ray does without its dashboard."""

raise ImportError("tests run Ray without its dashboard")
