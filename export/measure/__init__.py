"""Latency and memory of ONNX files.

`options` and `latency` measure, `schema` is the JSON, `compare` and `report` read it; `command` runs them.
"""
