"""RetinaNet with DOTS's ImageNet cell and a light FPN on BCCD's blood cells, from scratch on a CPU.

    OMP_NUM_THREADS=1 dots-zoo det train retinanet_dots_imagenet_light_fpn_bccd --data-root bccd \\
        --out runs/bccd

Expected: test AP50 69.7, mAP 31.8 (epoch 24, 15 min of one core).
5.40 M parameters, 1.30 G MACs at 320x240.
`bccd` holds images/*.jpg and instances_train.json, _val.json and _test.json (COCO format). The checkpoint is
chosen by AP50 on the validation images.
"""

_base_ = "./retinanet_dots_imagenet_light_fpn_coco.py"
input_size = (240, 320)  # height, width

data_root = "data/bccd/"
metainfo = dict(classes=("RBC", "WBC", "Platelets"), palette=[(220, 20, 60), (0, 0, 142), (0, 160, 80)])
size = (320, 240)  # width, height: half of the images

model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    neck=dict(num_outs=4),
    bbox_head=dict(
        num_classes=3,
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
evaluated = dict(pipeline=test_pipeline, **images)
alone = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    dataset=dict(ann_file="instances_train.json", pipeline=train_pipeline, **images), **alone
)
val_dataloader = dict(  # its images are all of one size
    batch_size=8, dataset=dict(ann_file="instances_val.json", pipeline=test_pipeline, **images), **alone
)
test_dataloader = dict(
    batch_size=8, dataset=dict(ann_file="instances_test.json", pipeline=test_pipeline, **images), **alone
)
val_evaluator = dict(ann_file=data_root + "instances_val.json", classwise=True)
test_evaluator = dict(ann_file=data_root + "instances_test.json", classwise=True)

epochs = 24
train_cfg = dict(max_epochs=epochs, val_interval=3)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=True, T_max=epochs, eta_min=1e-5, convert_to_iter_based=True),
]
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best="coco/bbox_mAP_50", rule="greater")
)
randomness = dict(seed=0)
