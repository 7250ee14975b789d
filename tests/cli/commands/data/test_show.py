"""``data show`` draws a sheet of images."""

from PIL import Image


def test_show_takes_the_mask_that_is_asked_for(ask, tmp_path):
    sheets = []
    for seed in (0, 1):
        assert ask("show", "tiny", "--images", 3, "--mask-seed", seed).code == 0
        sheets.append((tmp_path / "tiny-images.png").read_bytes())
    assert sheets[0] != sheets[1]


def test_show_writes_a_sheet(ask, tmp_path):
    assert ask("show", "tiny", "--images", 3, "--ratio", 0.3, "--output", "sheet.png").code == 0
    one_row = Image.open(tmp_path / "sheet.png").size
    assert ask("show", "tiny", "--split", "test").code == 0
    assert Image.open(tmp_path / "tiny-images.png").height > one_row[1]
