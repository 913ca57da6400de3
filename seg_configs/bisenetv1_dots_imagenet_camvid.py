"""BiSeNet with DOTS's ImageNet cell on CamVid at reduced size, from scratch on a CPU.

    OMP_NUM_THREADS=1 dots-zoo seg train bisenetv1_dots_imagenet_camvid --data-root camvid \\
        --out runs/camvid

Expected: test mIoU 42.9, val 51.7 (epoch 30, 19 min of one core).
7.30 M parameters, 2.06 G MACs at 288x216.
`camvid` holds train/, val/ and test/, each with images/*.jpg and labels/*.png (0 to 10, and 11 for void). The
checkpoint is chosen by mIoU on the validation images.
"""

_base_ = "./bisenetv1_dots_imagenet_4xb4-160k_cityscapes-1024x1024.py"
input_size = (216, 288)  # height, width

data_root = "data/camvid/"
size = (288, 216)  # width, height: three fifths of the images
crop = (144, 176)  # height, width
norm = dict(type="BN")
# Square root of the median share of the training pixels over a class's share.
weights = [0.52, 0.44, 2.14, 0.38, 1.0, 0.68, 1.96, 1.99, 0.87, 2.65, 3.93]
model = dict(
    data_preprocessor=dict(size=crop),
    backbone=dict(backbone_cfg=dict(channels_last=True)),
    decode_head=dict(
        num_classes=11,
        loss_decode=dict(_delete_=True, type="WeightedCrossEntropy", class_weight=weights),
    ),
    auxiliary_head=[
        dict(
            type="FCNHead",
            in_channels=128,
            channels=64,
            num_convs=1,
            num_classes=11,
            in_index=index,
            norm_cfg=norm,
            concat_input=False,
            align_corners=False,
            loss_decode=dict(type="WeightedCrossEntropy", class_weight=weights),
        )
        for index in (1, 2)
    ],
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=size, ratio_range=(0.6, 1.6), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=size, keep_ratio=True),
    dict(type="LoadAnnotations"),  # at full size, where the prediction is compared
    dict(type="PackSegInputs"),
]
images = dict(type="CamVidDataset", data_prefix=dict(img_path="images", seg_map_path="labels"))
train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(data_root=data_root + "train", pipeline=train_pipeline, **images),
)
evaluated = dict(batch_size=8, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False))
val_dataloader = dict(
    _delete_=True,
    dataset=dict(data_root=data_root + "val", pipeline=test_pipeline, test_mode=True, **images),
    **evaluated,
)
test_dataloader = dict(
    _delete_=True,
    dataset=dict(data_root=data_root + "test", pipeline=test_pipeline, test_mode=True, **images),
    **evaluated,
)

epochs = 30
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=3)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type="PolyLR",
        power=0.9,
        eta_min=1e-5,
        by_epoch=True,
        begin=0,
        end=epochs,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(logger=dict(log_metric_by_epoch=True), checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
randomness = dict(seed=0)
