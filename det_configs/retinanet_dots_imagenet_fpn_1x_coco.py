"""RetinaNet with DOTS's ImageNet cell on COCO, 1x: Table 1 of DOTS's supplementary material.

    dots-zoo det train retinanet_dots_imagenet_fpn_1x_coco --data-root coco --out runs/coco

Not trained. The paper's AP: 35.7, AP50 55.2.
15.52 M parameters, 172.26 G MACs at 1344x800.
Its setting is FairDARTS's, mmdet's 1x: 12 epochs, SGD 0.01 in steps at 8 and 11, batch 16 (8 GPUs x 2),
1333x800. It begins with ImageNet weights, of which there are none here: those of your own training come by
`--cfg-options model.backbone.checkpoint=runs/net/model.safetensors model.backbone.norm_eval=True`.
"""

_base_ = __import__("mmdet").__path__[0] + "/.mim/configs/retinanet/retinanet_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["dots_zoo.openmm.backbone"])
input_size = (800, 1344)  # height, width: 1333x800 filled up to the largest stride

model = dict(
    backbone=dict(_delete_=True, type="DotsBackbone", model_name="dots_imagenet"),
    neck=dict(in_channels=[48, 192, 384, 768]),
)
