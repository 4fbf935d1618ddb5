"""From a press to a guest's screen:  python -m benchmarks.first_screen ROUNDS FOLDER      prints one line of JSON

`first-screen`: from the press of the button to the first picture, on a page that is there. `page-load`: from the navigation of a
browser that has none of it, until the page can be used: ours signs somebody in, noVNC's has its button.
"""

from __future__ import annotations

from benchmarks.screens import Note, Screens, run, show


async def measure(here: Screens, rounds: int, note: Note) -> None:
    """Round after round, each way once; one round before them does not count."""
    pages = {place: await here.window(place) for place in here.places}
    for number in range(-1, rounds):
        for place in here.in_turn(number):
            taken = await show(pages[place], place)
            await place.leave(pages[place])
            fresh = await here.window(place, entered=False)
            loaded = float(await fresh.evaluate("bench.ready"))
            await fresh.context.close()
            if number >= 0:
                note("first-screen", place.name, taken)
                note("page-load", place.name, loaded)


if __name__ == "__main__":
    run(measure)
