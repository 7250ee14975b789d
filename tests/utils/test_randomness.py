"""A draw depends on its address and on nothing else."""

import torch

from mlrpl_bench.utils.randomness import generator_at, seed_of, torch_draws_are_lent, torch_draws_from


def test_one_address_gives_one_seed_in_every_process_and_release():
    # SHA-256 of "augmentation/0/3/17", first eight bytes, little endian, halved; other values would change all scores.
    assert seed_of("augmentation", 0, 3, 17) == 4430253360731275734


def test_neighbouring_addresses_give_different_seeds():
    seeds = {seed_of("augmentation", seed, epoch, row) for seed in range(5) for epoch in range(5) for row in range(40)}
    assert len(seeds) == 1000


def test_a_seed_fits_a_signed_64_bit_integer():
    assert all(0 <= seed_of("order", n) < 2**63 for n in range(1000))


def test_the_parts_of_an_address_do_not_run_together():
    assert len({seed_of("a", 1, 23), seed_of("a", 12, 3), seed_of("a", 123)}) == 3


def test_a_generator_draws_the_same_whatever_was_drawn_before():
    first = torch.rand(4, generator=generator_at("order", 0, 1))
    torch.rand(100, generator=generator_at("order", 0, 0))
    torch.rand(100)
    assert torch.equal(torch.rand(4, generator=generator_at("order", 0, 1)), first)


def test_making_and_using_a_generator_leaves_the_global_one_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    torch.rand(10, generator=generator_at("order", 0))
    assert torch.equal(torch.rand(3), expected)


def test_a_library_that_takes_no_generator_draws_from_the_given_one_and_leaves_the_global_one_alone():
    torch.manual_seed(7)
    expected_next = torch.rand(3)
    torch.manual_seed(7)
    drawn = []
    for address in (1, 1, 2):
        with torch_draws_from(generator_at("strong", address)):
            assert torch_draws_are_lent()
            drawn.append(torch.rand(3))
    assert not torch_draws_are_lent()
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.rand(3), expected_next)


def test_two_uses_of_one_generator_draw_differently():
    generator, drawn = generator_at("strong", 1), []
    for _ in range(2):
        with torch_draws_from(generator):
            drawn.append(torch.rand(3))
    assert not torch.equal(*drawn)
