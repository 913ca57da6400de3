"""TODO"""

_base_ = "./retinanet_dots_imagenet_light_fpn_bccd.py"

model = dict(
    backbone=dict(model_name="mobilenetv2_100"),
    neck=dict(in_channels=[24, 32, 96, 320]),
)
