"""TODO"""

_base_ = "./bisenetv1_dots_imagenet_camvid.py"

model = dict(backbone=dict(backbone_cfg=dict(model_name="resnet18")))
