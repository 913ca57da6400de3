"""Export a timm model to an ONNX file that is proven, and report its measured latency."""
