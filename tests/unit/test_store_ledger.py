"""The ledger's positions and its lines."""

from processing.store import Batch, Range
from processing.store.ledger import advanced, decode, encode


def test_positions_advance_past_the_last_offset_and_never_go_back() -> None:
    before = {("a", 0): 10, ("a", 1): 5}
    ranges = [Range("a", "t", 0, 10, 19), Range("a", "t", 1, 0, 2), Range("b", "t", 0, 7, 7)]
    assert advanced(before, ranges) == {("a", 0): 20, ("a", 1): 5, ("b", 0): 8}
    assert before == {("a", 0): 10, ("a", 1): 5}


def test_an_entry_is_read_back_as_it_was_written() -> None:
    ranges = (Range("a", "t", 0, 0, 2**60), Range("b", "u", 11, 5, 5))
    batch = Batch(3, 'a "token"', ranges, 2**60 + 1, closed=True, windows_block=7)
    positions = {("b", 11): 6, ("a", 0): 2**60 + 1}
    line = encode(batch, positions)
    row = {
        "number": 3,
        "token": 'a "token"',
        "stored_at_ns": 2**60 + 1,
        "closed": True,
        # the engine keeps arrays as the text that they were
        "ranges": line.partition(b'"ranges":')[2].partition(b',"positions":')[0].decode(),
        "positions": line.partition(b'"positions":')[2].partition(b',"windows_block":')[0].decode(),
        "windows_block": int(line.partition(b'"windows_block":')[2][:-1]),
    }
    assert decode(row) == (batch, positions)
    assert decode(row)[0].windows_block == 7
