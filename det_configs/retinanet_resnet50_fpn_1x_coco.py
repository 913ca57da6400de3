"""RetinaNet with ResNet-50 of timm on COCO: a baseline of Table 1.

    dots-zoo det train retinanet_resnet50_fpn_1x_coco --data-root coco --out runs/resnet50

Not trained. The paper's AP: 36.3.
37.97 M parameters, 250.49 G MACs at 1344x800.
"""

_base_ = "./retinanet_dots_imagenet_fpn_1x_coco.py"

model = dict(
    backbone=dict(model_name="resnet50"),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
