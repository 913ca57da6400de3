"""PyTorch to ONNX, with proofs.

`to_onnx` is the chain and `options` what is asked of it; `tasks` wraps the network and `pre_post` what goes
before and after it, `trace` makes the graph, `precision` lowers it to float16 and int8; `prove` has the file
proven, `parity` compares one graph with torch; `command` runs it.
"""
