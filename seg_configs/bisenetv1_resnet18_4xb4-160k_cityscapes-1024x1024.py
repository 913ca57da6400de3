"""BiSeNet with ResNet-18 of timm on Cityscapes.

    dots-zoo seg train bisenetv1_resnet18_4xb4-160k_cityscapes-1024x1024 --data-root cityscapes \\
        --out runs/resnet18

A baseline of Table 2. Not trained. The paper's mIoU: 74.8 val, 74.7 test; its costs: 14.1 M, 20.1 G.
13.43 M parameters, 59.17 G MACs at 1024x1024.
"""

_base_ = "./bisenetv1_dots_imagenet_4xb4-160k_cityscapes-1024x1024.py"

model = dict(backbone=dict(backbone_cfg=dict(model_name="resnet18")))
