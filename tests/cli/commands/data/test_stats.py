"""``data stats`` prints counts, and draws them."""

import json

from PIL import Image


def test_stats_print_a_card_and_write_a_picture(ask, root, tmp_path):
    answer = ask("stats", "mine", "--root", root)
    assert answer.code == 0 and answer.out.startswith("mine\nPictures in a folder.\n")
    assert "More about them" not in answer.out and "wrote mine-stats.png" in answer.err
    assert Image.open(tmp_path / "mine-stats.png").width > 1000


def test_stats_write_the_whole_card_beside_the_picture(ask, root, tmp_path):
    (tmp_path / "out").mkdir()
    answer = ask("stats", "mine", "--root", root, "--mask-seed", 3, "--output", "out/a.png")
    text = (tmp_path / "out" / "mine-card.md").read_text()
    assert "wrote out/mine-card.md" in answer.err and "wrote out/a.png" in answer.err
    assert "known positives of every category at every ratio: out/mine-card.md" in answer.out
    assert "## Known positives of every category at every ratio, mask seed 3" in text and "| at 0.2" in text
    assert "| at 0.2" not in answer.out and "mask seed 3" in answer.out
    assert text.startswith("# mine\n\nPictures in a folder.\n")


def test_stats_as_json(ask, tmp_path):
    answer = ask("stats", "tiny", "--json", "--output", "counts.png")
    found = json.loads(answer.out)
    assert found["splits"]["train"]["images"] == 12 and len(found["known"]) == 9
    assert (tmp_path / "counts.png").is_file()
