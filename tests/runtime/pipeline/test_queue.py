"""A queue that loses nothing, a slot for the newest, and their ends."""

import threading

from prunus.runtime.pipeline.queue import END, Channel


def _later(work):
    """Run something in a thread; return it, and a list that will hold what it returns."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, found


def test_everything_comes_in_order_and_the_end_after_it():
    channel = Channel(3, newest=False)
    assert [channel.put(k) for k in range(3)] == [True] * 3
    channel.close()
    assert channel.put(3) is False
    assert [channel.get() for _ in range(5)] == [0, 1, 2, END, END]
    assert channel.dropped == 0


def test_a_full_queue_makes_its_producer_wait():
    channel = Channel(1, newest=False)
    channel.put("a")
    thread, found = _later(lambda: channel.put("b"))
    thread.join(0.1)
    assert not found  # it waits
    assert channel.get() == "a"
    thread.join(10)
    assert found == [True] and channel.get() == "b"


def test_who_waits_is_woken_by_the_end():
    for end in ("close", "abort"):
        full, empty = Channel(1, newest=False), Channel(1, newest=False)
        full.put("a")
        puts, refused = _later(lambda full=full: full.put("b"))
        gets, got = _later(empty.get)
        getattr(full, end)()
        getattr(empty, end)()
        puts.join(10)
        gets.join(10)
        assert refused == [False] and got == [END]
        assert full.get() == ("a" if end == "close" else END)


def test_who_waits_for_an_item_is_woken_by_it():
    channel = Channel(1, newest=True)
    thread, found = _later(channel.get)
    channel.put("a")
    thread.join(10)
    assert found == ["a"]


def test_a_slot_keeps_the_newest_and_counts_what_it_dropped():
    channel = Channel(2, newest=True)
    for k in range(5):
        assert channel.put(k)
    assert channel.dropped == 3
    assert [channel.get(), channel.get()] == [3, 4]
    assert channel.put(5) and channel.dropped == 3  # there is room again
    channel.close()
    assert channel.put(6) is False and channel.dropped == 3


def test_what_replaces_may_take_over_a_part():
    told = []

    def replace(old, new):
        told.append((old, new))
        return 7

    channel = Channel(1, newest=True, replace=replace)
    channel.put("a")
    channel.put("b")
    assert (told, channel.dropped, channel.get()) == ([("a", "b")], 7, "b")


def test_a_signal_may_close_what_its_own_thread_holds():
    channel = Channel(1, newest=False)
    with channel._changed:
        channel.close()
    assert channel.get() is END
