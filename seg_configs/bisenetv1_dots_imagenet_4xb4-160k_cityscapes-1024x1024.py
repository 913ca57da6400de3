"""BiSeNet with DOTS's ImageNet cell on Cityscapes: Table 2 of DOTS's supplementary material.

    dots-zoo seg train bisenetv1_dots_imagenet_4xb4-160k_cityscapes-1024x1024 --data-root cityscapes \\
        --out runs/cityscapes

Not trained. The paper's mIoU: 79.3 val, 77.6 test; its costs: 8.0 M, 12.9 G.
7.30 M parameters, 34.43 G MACs at 1024x1024.
As in the BiSeNet paper where mmseg's settings differ: context path of 128 channels, weight decay 1e-4 (mmseg:
5e-4), a learning rate that falls to 0 (1e-4), scales 0.75, 1, 1.5, 1.75 and 2 (0.5 to 2, continuous), no
shifts of colour (PhotoMetricDistortion). As in mmseg: 1000 steps of warm-up, 160,000 steps (4 GPUs x 4). It
begins with ImageNet weights; `--cfg-options model.backbone.backbone_cfg.checkpoint=FILE` loads yours.
"""

_base_ = (
    __import__("mmseg").__path__[0]
    + "/.mim/configs/bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py"
)
custom_imports = dict(imports=["dots_zoo.openmm.bisenet"])
input_size = (1024, 1024)  # height, width

norm = dict(type="BN")  # mmseg's SyncBN runs on GPUs only
model = dict(
    backbone=dict(
        _delete_=True,
        type="DotsBiSeNet",
        backbone_cfg=dict(type="DotsBackbone", model_name="dots_imagenet"),
    ),
    decode_head=dict(norm_cfg=norm),
    auxiliary_head=[
        dict(
            type="FCNHead",
            in_channels=128,
            channels=64,
            num_convs=1,
            num_classes=19,
            in_index=index,
            norm_cfg=norm,
            concat_input=False,
            align_corners=False,
            loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
        )
        for index in (1, 2)
    ],
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(
        type="RandomChoiceResize",
        scales=[(1536, 768), (2048, 1024), (3072, 1536), (3584, 1792), (4096, 2048)],
        resize_type="Resize",
        keep_ratio=True,
    ),
    dict(type="RandomCrop", crop_size=(1024, 1024), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(_delete_=True, type="ClassIoU", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(weight_decay=1e-4, lr=0.025))
param_scheduler = [
    dict(type="LinearLR", by_epoch=False, start_factor=0.1, begin=0, end=1000),
    dict(type="PolyLR", power=0.9, eta_min=0.0, begin=1000, end=160000, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best="mIoU", rule="greater"))
