"""What is kept of a few test images, batch by batch; whole cells' examples are in ``test_run.py``."""

import numpy as np
import torch

from mlrpl_bench.training.parts.examples import NUM_EXAMPLES, Examples

SCORES_NC = np.arange(40.0).reshape(20, 2)


def test_rows_go_from_the_first_image_to_the_last_and_few_images_are_all_examples():
    rows = Examples(20).rows
    assert len(rows) == NUM_EXAMPLES and (rows[0], rows[-1]) == (0, 19)
    assert Examples(3).rows.tolist() == [0, 1, 2]


def test_maps_are_wanted_of_the_examples_of_a_batch_alone_and_kept_in_their_order():
    examples = Examples(20)
    assert examples.among(torch.tensor([1, 3])) is None
    for batch in (torch.arange(10), torch.arange(10, 20)):
        wanted_B = examples.among(batch)
        assert batch[wanted_B].tolist() == [row for row in examples.rows if row in batch]
        examples.keep(batch[wanted_B].double().view(-1, 1, 1, 1))
    found = examples.arrays(SCORES_NC)
    assert found["attention"].flatten().tolist() == found["rows"].tolist()
    assert found["attention"].dtype == np.float32
    assert np.array_equal(found["scores"], SCORES_NC[found["rows"]])


def test_once_a_method_does_not_tell_where_it_looks_it_is_not_asked_again():
    examples = Examples(20)
    examples.keep(None)
    assert examples.among(torch.arange(20)) is None
    assert set(examples.arrays(SCORES_NC)) == {"rows", "scores"}
