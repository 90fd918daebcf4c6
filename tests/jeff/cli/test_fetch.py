import importlib

fetch_module = importlib.import_module("jeff.cli.fetch")


def test_unknown_name_lists_what_there_is(cli):
    code, out, err = cli("fetch", "easy-vqaa")
    assert (code, out) == (2, "")
    assert err.startswith("jeff: error: argument NAME: unknown package 'easy-vqaa'; ")
    assert "did you mean 'easy-vqa'?" in err and err.count("\n") == 1


def test_prints_the_file(cli, monkeypatch):
    monkeypatch.setattr(fetch_module, "fetch_package", lambda name: f"/data/{name}")
    assert cli("fetch", "easy-vqa") == (0, "/data/easy-vqa\n", "")


def test_failures_by_kind(cli, monkeypatch):
    def refuse(name):
        raise PermissionError(13, "Permission denied")

    def fail(name):
        raise OSError("pip could not fetch easy-vqa==1.0: no route")

    monkeypatch.setattr(fetch_module, "fetch_package", refuse)
    code, _, err = cli("fetch", "easy-vqa")
    assert code == 2 and "JEFF_DATA: cannot write to" in err
    monkeypatch.setattr(fetch_module, "fetch_package", fail)
    code, _, err = cli("fetch", "easy-vqa")
    assert code == 1 and err.endswith("pip could not fetch easy-vqa==1.0: no route\n")
