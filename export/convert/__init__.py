"""PyTorch to ONNX, with proofs.

`to_onnx` traces, rewrites, proves and writes; `parity` compares, `precision` is float16 and int8, `tasks`
says what goes before and behind a network; `command` runs it."""
