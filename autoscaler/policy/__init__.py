"""The policy: one YAML file that says everything an operator decides.

`schema` is its shape, `semantics` what must hold beyond types, `load` reads a file, `watch` notices that it changed.
"""
