"""A guest that redraws its whole screen without end:  python -m benchmarks.updates ROUNDS FOLDER      prints one line of JSON

`updates`: pictures a second that a page has painted. One page at a time is connected, so that each has the guest for itself.
"""

from __future__ import annotations

from benchmarks.screens import Note, Screens, run, show

SPELL_S = 3.0

COUNT = """
async (ms) => {
  bench.count = 0;
  const begun = performance.now();
  await new Promise((resolve) => setTimeout(resolve, ms));
  return bench.count / (performance.now() - begun) * 1000;
}
"""


async def measure(here: Screens, rounds: int, note: Note) -> None:
    """Round after round, each way for a spell."""
    here.guest.run("(flicker >/dev/tty1 &)")
    pages = {place: await here.window(place) for place in here.places}
    for number in range(rounds):
        for place in here.in_turn(number):
            await show(pages[place], place)
            note("updates", place.name, float(await pages[place].evaluate(COUNT, SPELL_S * 1000)))
            await place.leave(pages[place])


if __name__ == "__main__":
    run(measure)
