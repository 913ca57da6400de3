"""Load data sets by name: `datasets` defines what training needs of one, `load` loads one by its options.

`torchvision_sets` are read into memory, `image_folder` decodes images as batches need them; `augment` and
`transforms` vary images, in memory and from files; `split` divides a set class by class.
"""

from .datasets import Data as Data
from .datasets import DataOptions as DataOptions
from .datasets import Dataset as Dataset
from .datasets import ImageData as ImageData
from .datasets import register_dataset as register_dataset
from .load import load_data as load_data
