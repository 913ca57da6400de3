"""RetinaNet with MobileNetV3-large of timm on COCO: a baseline of Table 1.

    dots-zoo det train retinanet_mobilenetv3_large_fpn_1x_coco --data-root coco --work-dir runs/mobilenetv3_large

Not trained. The paper's AP: 29.9. COST.
"""

_base_ = "./retinanet_dots_imagenet_fpn_1x_coco.py"

model = dict(
    backbone=dict(model_name="mobilenetv3_large_100"),
    neck=dict(in_channels=[24, 40, 112, 960]),
)
