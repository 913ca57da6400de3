"""MMDetection configs, valid for its own tools as well: dots-zoo det check NAME.

The base is the installed mmdet's file, found without mmengine's `mmdet::`, which needs the pkg_resources
that setuptools no longer has. AP figures of Table 1 are those of DOTS's supplementary material: COCO 2017,
backbones with ImageNet weights. Nothing here is downloaded, and timm's baselines begin without weights too;
`--cfg-options model.backbone.pretrained=True model.backbone.norm_eval=True` gives them timm's.
FairDARTS-C, 31.9 AP in Table 1, is not in timm.
"""
