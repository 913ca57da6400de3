"""Run by `make wheel` with the interpreter of a fresh environment, in an empty folder."""

import importlib.metadata
import importlib.util
from pathlib import Path

import timm

import dots_zoo
from dots_zoo.drawing.html import page_environment

assert not list(Path.cwd().iterdir()), "run this in an empty folder"
assert timm.create_model("dots_imagenet").num_features == 768
assert timm.create_model("dots_cifar10_tiny", pretrained=True).num_classes == 10
for package in ("search", "export", "det_configs", "seg_configs"):
    assert importlib.util.find_spec(f"dots_zoo.{package}") is not None, package
    assert importlib.util.find_spec(package) is None, f"{package} landed at the top of site-packages"
files = importlib.metadata.files("dots-zoo") or []
tops = {Path(str(file)).parts[0] for file in files if ".." not in str(file)}
assert tops == {"dots_zoo", "dots_zoo_command", f"dots_zoo-{dots_zoo.__version__}.dist-info"}, tops
assert len(dots_zoo.bundled_names()) == 107
shipped = {Path(str(file)).name for file in files}
for config in (
    "retinanet_dots_imagenet_fpn_1x_coco",
    "bisenetv1_dots_imagenet_4xb4-160k_cityscapes-1024x1024",
):
    assert f"{config}.py" in shipped, config
for package, page in (
    ("dots_zoo.commands", "demo.html.j2"),
    ("dots_zoo.export.measure", "report.html.j2"),
    ("dots_zoo.export.tables", "tables.html.j2"),
    ("dots_zoo.search.run", "report.html.j2"),
):
    pages = page_environment(package)
    assert page in pages.list_templates(), f"{package} has no {page}"
    for name in pages.list_templates(extensions=["j2", "css", "js"]):
        pages.get_template(name)
print(f"wheel: dots_zoo {dots_zoo.__version__} imports from an empty folder, dots_imagenet builds")
