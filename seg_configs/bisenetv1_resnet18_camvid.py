"""ResNet-18 of timm on CamVid at reduced size: the control of bisenetv1_dots_imagenet_camvid.

    OMP_NUM_THREADS=1 dots-zoo seg train bisenetv1_resnet18_camvid --data-root camvid \\
        --out runs/camvid_resnet18

Expected: test mIoU 40.7, val 51.0 (epoch 30).
13.42 M parameters, 3.55 G MACs at 288x216.
"""

_base_ = "./bisenetv1_dots_imagenet_camvid.py"

model = dict(backbone=dict(backbone_cfg=dict(model_name="resnet18")))
