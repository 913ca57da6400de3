"""MMDetection and MMSegmentation with timm networks as backbones.

`backbone` serves both, `bisenet` is the segmenter, `mmcv_ops` are operators that need no compiler. `config`
reads a shipped config or a file; `check`, `run`, `predict`, `plots` are what `command` (`dots-zoo det`,
`seg`) does; `check_data` looks through a data set first, `progress` prints a line an epoch, `onnx_model`
prepares an export."""
