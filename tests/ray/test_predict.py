"""`avel predict --actors`: the same output as in one process, without repeated work."""

import pytest
from media.clips import clip

from distributed_avel.commands import main
from tests.predict.folders import write_folder

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.usefixtures("ray_cluster")]


def test_actors_write_what_one_process_writes_and_keep_finished_files(tmp_path, capsys):
    model = write_folder(tmp_path / "model")
    for name, content in {"a": clip(2.0), "b": b"", "c": clip(21.0, fps=4.0)}.items():
        path = tmp_path / "videos" / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def predict(out: str, *options: str) -> tuple[str, str]:
        arguments = [model, tmp_path / "videos", "--out", tmp_path / out, "--processes", 1]
        formats = ["--format", "csv", "json", "vtt"]
        assert main(["predict", *map(str, arguments), *options, *formats]) == 1
        shown = capsys.readouterr()
        return shown.out, shown.err

    alone, _ = predict("alone")
    together, _ = predict("together", "--actors", "1")
    again, progress = predict("together", "--actors", "1")

    assert together == again == alone
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert names == ["a.vtt", "c.vtt", "events.csv", "events.html", "failures.txt",
                     "predictions.json"]  # fmt: skip
    for name in names:
        of_actors = (tmp_path / "together" / name).read_bytes()
        assert of_actors == (tmp_path / "alone" / name).read_bytes()
    assert "0 bytes" in (tmp_path / "together" / "failures.txt").read_text()
    assert "predict: 0 of 3 videos to do" in progress
