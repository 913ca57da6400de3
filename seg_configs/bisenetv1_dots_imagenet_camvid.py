"""TODO"""

_base_ = __import__("mmseg").__path__[0] + "/.mim/configs/_base_/models/bisenetv1_r18-d32.py"
custom_imports = dict(imports=["dots_zoo.openmm_seg"])
default_scope = "mmseg"

data_root = "data/camvid/"
size = (288, 216)  # width, height: three fifths of the images
crop = (144, 176)  # height, width
norm = dict(type="BN")
# Square root of the median share of the training pixels over a class's share.
weights = [0.52, 0.44, 2.14, 0.38, 1.0, 0.68, 1.96, 1.99, 0.87, 2.65, 3.93]
loss = dict(_delete_=True, type="WeightedCrossEntropy", class_weight=weights)
auxiliary = dict(
    type="FCNHead",
    in_channels=128,
    channels=64,
    num_convs=1,
    num_classes=11,
    norm_cfg=norm,
    concat_input=False,
    align_corners=False,
    loss_decode=dict(type="WeightedCrossEntropy", class_weight=weights),
)
model = dict(
    data_preprocessor=dict(size=crop),
    backbone=dict(
        _delete_=True,
        type="DotsBiSeNet",
        backbone_cfg=dict(type="DotsBackbone", model_name="dots_imagenet", channels_last=True),
    ),
    decode_head=dict(num_classes=11, norm_cfg=norm, loss_decode=loss),
    auxiliary_head=[dict(in_index=1, **auxiliary), dict(in_index=2, **auxiliary)],
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


train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CamVidDataset",
        data_root=data_root + "train",
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CamVidDataset",
        data_root=data_root + "val",
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CamVidDataset",
        data_root=data_root + "test",
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="ClassIoU", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

epochs = 30
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=3)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type="PolyLR", power=0.9, eta_min=1e-5, by_epoch=True, begin=0, end=epochs, convert_to_iter_based=True
    ),
]
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2, save_best="mIoU", rule="greater")
)
visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer")
randomness = dict(seed=0)
