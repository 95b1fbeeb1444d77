"""A bell wakes every coroutine that waits, from any thread, and is never missed."""

import asyncio
import threading

from warpfuse.web.bell import AsyncEvent


def test_a_stroke_wakes_all_that_wait():
    bell = AsyncEvent()

    async def scene():
        waiting = [asyncio.create_task(bell.wait(0)) for _ in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=bell.notify).start()
        return await asyncio.gather(*waiting)

    assert asyncio.run(scene()) == [1, 1, 1]


def test_a_notification_before_the_wait_is_not_missed():
    bell = AsyncEvent()
    bell.notify()
    assert asyncio.run(bell.wait(0)) == 1


def test_patience_ends_without_a_stroke_and_leaves_nobody_waiting():
    bell = AsyncEvent()
    assert asyncio.run(bell.wait(0, timeout=0)) == 0
    bell.notify()  # its loop is closed: nobody is woken, nothing is raised
    assert bell.count == 1
