"""Readers of data sets, one file each. Importing this package registers all of them."""

from distributed_avel.datasets import ave as ave
from distributed_avel.datasets import ave_features as ave_features
from distributed_avel.datasets import demo as demo
from distributed_avel.datasets import folder as folder
from distributed_avel.datasets import llp as llp
from distributed_avel.datasets import llp_features as llp_features
from distributed_avel.datasets import synthetic as synthetic
from distributed_avel.datasets import synthetic_llp as synthetic_llp
from distributed_avel.datasets.base import Span as Span
from distributed_avel.datasets.base import Split as Split
from distributed_avel.datasets.base import Video as Video
from distributed_avel.datasets.base import VideoSet as VideoSet
from distributed_avel.datasets.base import dataset_names as dataset_names
from distributed_avel.datasets.base import dataset_reader as dataset_reader
from distributed_avel.datasets.base import feature_source as feature_source
from distributed_avel.datasets.base import inspect_dataset as inspect_dataset
from distributed_avel.datasets.base import load_dataset as load_dataset
from distributed_avel.datasets.base import needs_root as needs_root
from distributed_avel.datasets.base import unread_sections as unread_sections
from distributed_avel.datasets.problems import Problems as Problems
