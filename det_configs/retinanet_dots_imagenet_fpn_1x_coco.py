"""RetinaNet with DOTS's ImageNet cell on COCO: Table 1 of DOTS's supplementary material."""

_base_ = __import__("mmdet").__path__[0] + "/.mim/configs/retinanet/retinanet_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["dots_zoo.openmm"])
input_size = (800, 1344)  # height, width: 1333x800 filled up to the stride

model = dict(
    backbone=dict(_delete_=True, type="DotsBackbone", model_name="dots_imagenet"),
    neck=dict(in_channels=[48, 192, 384, 768]),
)
