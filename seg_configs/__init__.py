"""MMSegmentation configs, valid for its own tools as well: dots-zoo seg check NAME.

mIoU figures of Table 2 are those of DOTS's supplementary material: Cityscapes, backbones with ImageNet weights;
its input size and what it counts are not said.
"""
