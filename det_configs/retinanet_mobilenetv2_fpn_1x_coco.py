"""RetinaNet with MobileNetV2 of timm on COCO: a baseline of Table 1.

    dots-zoo det train retinanet_mobilenetv2_fpn_1x_coco --data-root coco --out runs/mobilenetv2

Not trained. The paper's AP: 28.3.
11.49 M parameters, 164.28 G MACs at 1344x800.
"""

_base_ = "./retinanet_dots_imagenet_fpn_1x_coco.py"

model = dict(
    backbone=dict(model_name="mobilenetv2_100"),
    neck=dict(in_channels=[24, 32, 96, 320]),
)
