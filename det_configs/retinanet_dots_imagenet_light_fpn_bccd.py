"""TODO"""

_base_ = __import__("mmdet").__path__[0] + "/.mim/configs/retinanet/retinanet_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["dots_zoo.openmm"])

data_root = "data/bccd/"
metainfo = dict(classes=("RBC", "WBC", "Platelets"), palette=[(220, 20, 60), (0, 0, 142), (0, 160, 80)])
size = (320, 240)  # half of the images'

model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(_delete_=True, type="DotsBackbone", model_name="dots_imagenet", channels_last=True),
    neck=dict(in_channels=[48, 192, 384, 768], out_channels=64, num_outs=4, norm_cfg=dict(type="BN")),
    bbox_head=dict(
        num_classes=3,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type="GN", num_groups=16),
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32, 64]),  # a platelet is 20 pixels wide
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=size, ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(240, 320), allow_negative_crop=True),
    dict(type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PhotoMetricDistortion", hue_delta=9),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=size, keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
images = dict(data_root=data_root, data_prefix=dict(img="images/"), metainfo=metainfo)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(ann_file="instances_train.json", pipeline=train_pipeline, **images),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(ann_file="instances_val.json", pipeline=test_pipeline, **images),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(ann_file="instances_test.json", pipeline=test_pipeline, **images),
)
val_evaluator = dict(ann_file=data_root + "instances_val.json", classwise=True)
test_evaluator = dict(ann_file=data_root + "instances_test.json", classwise=True)

epochs = 24
train_cfg = dict(max_epochs=epochs, val_interval=3)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=True, T_max=epochs, eta_min=1e-5, convert_to_iter_based=True),
]
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best="coco/bbox_mAP_50", rule="greater")
)
randomness = dict(seed=0)
