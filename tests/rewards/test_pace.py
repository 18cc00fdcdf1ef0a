"""The pace of requests, by a clock that only sleeping moves."""

from unified_rl.rewards.pace import Pace


class Clock:
    def __init__(self):
        self.now, self.during = 100.0, lambda: None

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds
        during, self.during = self.during, lambda: None
        during()


def test_twenty_a_minute_is_one_every_three_seconds():
    clock = Clock()
    pace = Pace(20, clock, clock.sleep)
    sent = []
    for _ in range(4):
        pace.wait()
        sent.append(clock.now)
    assert sent == [100, 103, 106, 109]
    clock.now = 200  # a long rest saves nothing up
    for _ in range(2):
        pace.wait()
        sent.append(clock.now)
    assert sent[4:] == [200, 203]


def test_no_limit_is_no_wait():
    clock = Clock()
    pace = Pace(0, clock, clock.sleep)
    for _ in range(1000):
        pace.wait()
    assert clock.now == 100


def test_all_are_held_back():
    clock = Clock()
    pace = Pace(20, clock, clock.sleep)
    pace.hold(10)
    pace.hold(4)  # the longer one counts
    pace.wait()
    assert clock.now == 110
    pace.wait()
    assert clock.now == 113


def test_who_sleeps_already_is_held_back_too():
    clock = Clock()
    pace = Pace(20, clock, clock.sleep)
    pace.wait()
    clock.during = lambda: pace.hold(30)  # told at 103, while the second sleeps
    pace.wait()
    assert clock.now == 133
