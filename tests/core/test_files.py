"""Files that are whole or not there, and folders in which an interrupted job resumes."""

import json

import numpy as np
import pytest

from tfpeft.core.arguments import InputError
from tfpeft.core.files import PARTIAL, ResumableFolder, remove, replacing


class TestReplacing:
    def test_a_file_is_there_when_the_body_ends(self, tmp_path):
        path = tmp_path / "deep" / "a.txt"
        with replacing(path) as partial:
            assert partial.parent == path.parent
            assert partial.suffix == ".txt"
            partial.write_text("new")
            assert not path.exists()
        assert path.read_text() == "new"
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("as_folder", [False, True])
    def test_a_body_that_raises_leaves_the_old_file(self, tmp_path, as_folder):
        path = tmp_path / "a.txt"
        path.write_text("old")

        def write():
            with replacing(path) as partial:
                if as_folder:
                    partial.mkdir()
                    (partial / "half").write_text("new")
                else:
                    partial.write_text("new")
                raise RuntimeError("in between")

        with pytest.raises(RuntimeError, match="in between"):
            write()
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_body_that_writes_nothing_raises(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old")
        with pytest.raises(FileNotFoundError, match="Cannot write"), replacing(path):
            pass
        assert path.read_text() == "old"

    def test_folders_replace_folders(self, tmp_path):
        path = tmp_path / "folder"
        for name in ("old", "new"):
            with replacing(path) as partial:
                partial.mkdir()
                (partial / name).write_text(name)
            assert [file.name for file in path.iterdir()] == [name]
        assert list(tmp_path.iterdir()) == [path]

    def test_leftovers_of_a_kill_are_no_obstacle(self, tmp_path):
        (tmp_path / f"{PARTIAL}folder").mkdir()
        (tmp_path / f"{PARTIAL}folder" / "half").write_text("half")
        with replacing(tmp_path / "folder") as partial:
            partial.mkdir()
        assert list((tmp_path / "folder").iterdir()) == []
        assert [file.name for file in tmp_path.iterdir()] == ["folder"]

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_link_stays_and_what_it_leads_to_is_replaced(self, tmp_path, exists):
        (tmp_path / "real").mkdir()
        (tmp_path / "link.txt").symlink_to("real/a.txt")
        if exists:
            (tmp_path / "real" / "a.txt").write_text("old")
        with replacing(tmp_path / "link.txt") as partial:
            assert partial.parent == tmp_path / "real"
            partial.write_text("new")
        assert (tmp_path / "link.txt").is_symlink()
        assert (tmp_path / "real" / "a.txt").read_text() == "new"
        assert [path.name for path in (tmp_path / "real").iterdir()] == ["a.txt"]

    def test_the_longest_name_of_a_file_can_be_written(self, tmp_path):
        path = tmp_path / ("a" * 251 + ".txt")
        with replacing(path) as partial:
            assert partial.suffix == ".txt"
            partial.write_text("new")
        assert list(tmp_path.iterdir()) == [path]

    def test_what_is_not_there_is_removed_without_an_error(self, tmp_path):
        remove(tmp_path / "none")
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "folder")
        remove(tmp_path / "link")
        assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def resumable(path, **settings):
    settings = {"seed": 1, "model": {"name": "a", "sizes": (1, 2)}, **settings}
    return ResumableFolder(path, "run.json", settings, kind="outputs", argument="`path`")


class TestResumableFolder:
    def test_a_new_folder_has_no_progress(self, tmp_path):
        folder = resumable(tmp_path / "deep" / "run")
        assert folder.path == tmp_path / "deep" / "run"
        assert folder.path.is_dir()
        assert folder.progress is None
        assert folder / "file" == folder.path / "file"

    def test_the_same_settings_resume(self, tmp_path):
        resumable(tmp_path).save(shards=[3, 4], done=False)
        folder = resumable(tmp_path)
        assert folder.progress == {"shards": [3, 4], "done": False}
        folder.save(shards=[3, 4, 5], done=True)
        assert resumable(tmp_path).progress == {"shards": [3, 4, 5], "done": True}
        record = json.loads((tmp_path / "run.json").read_text())
        assert record == {
            "seed": 1,
            "model": {"name": "a", "sizes": [1, 2]},
            "shards": [3, 4, 5],
            "done": True,
        }

    def test_other_settings_raise_and_are_named(self, tmp_path):
        resumable(tmp_path).save(shards=[])
        before = (tmp_path / "run.json").read_text()
        with pytest.raises(InputError) as error:
            resumable(tmp_path, seed=2, model={"name": "b", "sizes": (1, 2)}, extra=None)
        assert str(error.value) == (
            f"{tmp_path} (`path`) holds other outputs, expected the same settings, or another "
            "folder. Received: name was 'a' and is 'b'; seed was 1 and is 2"
        )
        assert (tmp_path / "run.json").read_text() == before

    @pytest.mark.parametrize("record", ["{", "[]", "3", "null"])
    def test_a_damaged_record_raises(self, tmp_path, record):
        (tmp_path / "run.json").write_text(record)
        with pytest.raises(InputError, match="invalid `path`, .*whose run.json is damaged"):
            resumable(tmp_path)

    @pytest.mark.parametrize(
        ("record", "missing"), [("{}", "seed, model"), ('{"seed": 1}', "model")]
    )
    def test_a_record_without_settings_is_damaged(self, tmp_path, record, missing):
        (tmp_path / "run.json").write_text(record)
        with pytest.raises(InputError, match=f"run.json is damaged, without {missing}: remove"):
            resumable(tmp_path)

    def test_long_and_many_differences_are_shortened(self, tmp_path):
        resumable(tmp_path, **{f"s{i}": "a" * 200 for i in range(7)}).save()
        with pytest.raises(InputError) as error:
            resumable(tmp_path, **{f"s{i}": 3 for i in range(7)})
        text = f"'{'a' * 96}... and is 3"
        listed = "; ".join(f"s{i} was {text}" for i in range(5))
        assert str(error.value).endswith(f"Received: {listed}; and 2 more")

    def test_other_files_raise(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match="invalid `path`, .*which holds other files"):
            resumable(tmp_path)
        for path in (tmp_path / "notes.txt", None):
            with pytest.raises(InputError, match="`path`, expected a folder"):
                resumable(path)
        assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]

    @pytest.mark.parametrize("shards", [None, [1, "2"], {}])
    def test_a_record_with_progress_of_another_form_raises(self, tmp_path, shards):
        resumable(tmp_path).save(shards=shards)
        with pytest.raises(InputError, match="damaged, without .* for shards.*: remove the folder"):
            ResumableFolder(
                tmp_path,
                "run.json",
                {"seed": 1, "model": {"name": "a", "sizes": (1, 2)}},
                kind="outputs",
                argument="`path`",
                progress={"shards": [int]},
            )

    def test_half_written_files_are_removed(self, tmp_path):
        resumable(tmp_path).save(shards=[])
        (tmp_path / f"{PARTIAL}model.keras").write_text("half")
        (tmp_path / f"{PARTIAL}tokenizer").mkdir()
        (tmp_path / f"{PARTIAL}tokenizer" / "half").write_text("half")
        resumable(tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["run.json"]

    def test_leftovers_alone_are_no_other_files(self, tmp_path):
        (tmp_path / f"{PARTIAL}run.json").write_text("half")
        assert resumable(tmp_path).progress is None

    def test_texts_files_and_folders_are_written(self, tmp_path):
        folder = resumable(tmp_path)
        folder.write("a.txt", "text")
        folder.write("b.npy", lambda path: np.save(path, np.arange(3)))
        folder.write("c", lambda path: (path.mkdir(), (path / "d").write_text("inside")))
        folder.close()
        assert (tmp_path / "a.txt").read_text() == "text"
        np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), np.arange(3))
        assert (tmp_path / "c" / "d").read_text() == "inside"
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "b.npy", "c"]

    def test_what_cannot_be_written_names_file_and_argument(self, tmp_path):
        folder = resumable(tmp_path)

        def full(path):
            raise OSError("no space left")

        with pytest.raises(OSError, match=r"Cannot write .*a.txt \(`path`\): no space left"):
            folder.write("a.txt", full)
