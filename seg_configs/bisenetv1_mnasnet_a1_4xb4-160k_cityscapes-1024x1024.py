"""BiSeNet with MnasNet-A1 (the paper does not say which variant it has) of timm on Cityscapes.

    dots-zoo seg train bisenetv1_mnasnet_a1_4xb4-160k_cityscapes-1024x1024 --data-root cityscapes \\
        --out runs/mnasnet_a1

A baseline of Table 2. Not trained. The paper's mIoU: 76.8 val, 74.2 test; its costs: 6.8 M, 11.0 G.
4.03 M parameters, 26.42 G MACs at 1024x1024.
"""

_base_ = "./bisenetv1_dots_imagenet_4xb4-160k_cityscapes-1024x1024.py"

model = dict(backbone=dict(backbone_cfg=dict(model_name="semnasnet_100")))
