"""RetinaNet with Single-Path NAS of timm on COCO: a baseline of Table 1.

    dots-zoo det train retinanet_spnasnet_fpn_1x_coco --data-root coco --out runs/spnasnet

Not trained. The paper's AP: 30.7.
12.41 M parameters, 165.02 G MACs at 1344x800.
"""

_base_ = "./retinanet_dots_imagenet_fpn_1x_coco.py"

model = dict(
    backbone=dict(model_name="spnasnet_100"),
    neck=dict(in_channels=[24, 40, 96, 320]),
)
