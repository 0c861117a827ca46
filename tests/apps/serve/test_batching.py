"""The queue in front of a model: order, batches, failures and the end."""

import threading
from concurrent.futures import wait

import pytest

from prunus.apps.serve.batching import Batcher
from prunus.runtime.errors import HostError, TensorError


class Doubling:
    """A model whose runs begin when the test says so, and that fails on 13."""

    def __init__(self, batch):
        self.batch, self.gate, self.runs = batch, threading.Event(), []

    def items(self, data):
        if data < 0:
            raise TensorError("below zero")
        return 2 if data >= 100 else 1

    def together(self, inputs):
        self.gate.wait(30)
        self.runs.append(list(inputs))
        if 13 in inputs:
            raise ZeroDivisionError("thirteen")
        return [2 * one for one in inputs]


@pytest.fixture
def made():
    opened = []

    def make(batch, **details):
        model = Doubling(batch)
        opened.append((model, batcher := Batcher(model, **details)))
        return model, batcher

    yield make
    for model, batcher in opened:
        model.gate.set()
        batcher.close()


def test_waiting_inputs_fill_the_batch_in_their_order(made):
    told = []
    model, batcher = made(4, ran=told.append)
    first = batcher.submit(0)
    while not first.running():
        pass
    futures = [batcher.submit(n) for n in (1, 2, 101, 3, 102)]
    model.gate.set()
    assert [f.result(30) for f in [first, *futures]] == [0, 2, 4, 202, 6, 204]
    assert model.runs == [[0], [1, 2, 101], [3, 102]] and told == [1, 3, 2]


def test_an_input_that_fails_fails_alone(made):
    model, batcher = made(4, wait_s=60)
    futures = [batcher.submit(n) for n in (1, 13, 2, 3)]
    model.gate.set()
    wait(futures, 30)
    assert [f.result() for f in futures if not f.exception()] == [2, 4, 6]
    assert isinstance(futures[1].exception(), ZeroDivisionError)
    with pytest.raises(TensorError):
        batcher.submit(-1)


def test_who_has_gone_is_not_computed(made):
    model, batcher = made(1)
    first = batcher.submit(1)
    while not first.running():
        pass
    gone, last = batcher.submit(2), batcher.submit(3)
    assert gone.cancel()
    model.gate.set()
    assert last.result(30) == 6 and model.runs == [[1], [3]]


def test_the_end_answers_what_was_submitted(made):
    model, batcher = made(1)
    futures = [batcher.submit(n) for n in range(3)]
    model.gate.set()
    batcher.close()
    assert [f.result(0) for f in futures] == [0, 2, 4]
    with pytest.raises(HostError, match="ending"):
        batcher.submit(1)
