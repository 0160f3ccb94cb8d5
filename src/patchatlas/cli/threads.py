"""How many threads torch may take."""


def one_thread() -> None:
    """Keep torch on one thread, for work that is many small sums.

    Sharing these out takes longer than doing them: on a busy machine with two cores two threads took ten times as long.
    And torch adds up the parts of a long sum by threads, so that the last bits would depend on their number.
    """
    import torch

    torch.set_num_threads(1)
