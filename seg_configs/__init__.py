"""MMSegmentation configs, valid for its own tools as well: dots-zoo seg check NAME.

mIoU figures and costs of Table 2 are those of DOTS's supplementary material: Cityscapes, backbones with
ImageNet weights. At which input size it counts, and what, is not said.
"""
