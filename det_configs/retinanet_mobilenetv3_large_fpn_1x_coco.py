"""RetinaNet with MobileNetV3-large of timm on COCO: a baseline of Table 1.

    dots-zoo det train retinanet_mobilenetv3_large_fpn_1x_coco --data-root coco --out runs/mobilenetv3

Not trained. The paper's AP: 29.9.
14.29 M parameters, 163.48 G MACs at 1344x800.
"""

_base_ = "./retinanet_dots_imagenet_fpn_1x_coco.py"

model = dict(
    backbone=dict(model_name="mobilenetv3_large_100"),
    neck=dict(in_channels=[24, 40, 112, 960]),
)
