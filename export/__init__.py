"""From a timm model to an ONNX file that is proven and a report that is measured."""
