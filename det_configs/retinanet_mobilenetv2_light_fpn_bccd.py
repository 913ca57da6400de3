"""MobileNetV2 of timm on BCCD's blood cells: the control of retinanet_dots_imagenet_light_fpn_bccd.

    OMP_NUM_THREADS=1 dots-zoo det train retinanet_mobilenetv2_light_fpn_bccd --data-root bccd \\
        --out runs/bccd_mobilenetv2

Expected: test AP50 58.6, mAP 25.3 (epoch 24, 8 min of one core).
2.32 M parameters, 0.80 G MACs at 320x240.
"""

_base_ = "./retinanet_dots_imagenet_light_fpn_bccd.py"

model = dict(
    backbone=dict(model_name="mobilenetv2_100"),
    neck=dict(in_channels=[24, 32, 96, 320]),
)
