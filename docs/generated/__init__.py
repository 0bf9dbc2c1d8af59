"""The generated parts of the documentation, a module for each page that has some.

Every module has `PARTS`, functions that return the lines of a part, by the name of the part.
Those whose page has pictures also have `draw`.
"""
