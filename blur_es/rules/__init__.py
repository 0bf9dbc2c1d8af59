"""Custom rules that ship, as examples and to start from; `blur_es.rule.SHIPPED` has their names.

They use nothing that a rule of your own could not use; `docs/own_rule.md` explains how to write
one.
"""
