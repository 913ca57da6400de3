"""RetinaNet with MnasNet-A1 of timm on COCO: a baseline of Table 1.

    dots-zoo det train retinanet_mnasnet_a1_fpn_1x_coco --data-root coco --out runs/mnasnet_a1

Not trained. The paper's AP: 30.5, with MnasNet-A2, which timm has not.
11.88 M parameters, 164.56 G MACs at 1344x800.
"""

_base_ = "./retinanet_dots_imagenet_fpn_1x_coco.py"

model = dict(
    backbone=dict(model_name="semnasnet_100"),
    neck=dict(in_channels=[24, 40, 112, 320]),
)
