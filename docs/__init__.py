"""The documentation, and `docs.fill`, which fills its generated parts."""
