"""RetinaNet with DOTS's ImageNet cell and a light FPN and head on COCO, for small machines.

    dots-zoo det train retinanet_dots_imagenet_light_fpn_coco --data-root coco --out runs/light

Not trained.
5.84 M parameters, 4.10 G MACs at 512x320.
64 channels in place of 256, two convolutions in the head in place of four, with normalisation, which training
without weights needs; images of 512x320, AdamW.
"""

_base_ = "./retinanet_dots_imagenet_fpn_1x_coco.py"
input_size = (320, 512)  # height, width
size = (512, 320)  # width, height

model = dict(
    backbone=dict(channels_last=True),
    neck=dict(out_channels=64, norm_cfg=dict(type="BN")),
    bbox_head=dict(
        in_channels=64, feat_channels=64, stacked_convs=2, norm_cfg=dict(type="GN", num_groups=16)
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=size, keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=size, keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
# One image a batch: those of a batch are filled up to one size, and that changes what is found in them.
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline))

epochs = 12
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type="CosineAnnealingLR", by_epoch=True, T_max=epochs, eta_min=1e-5, convert_to_iter_based=True),
]
