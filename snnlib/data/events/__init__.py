"""Event recordings (structured x, y, t, p): checked, binned, read from published layouts, or simulated."""

from snnlib.data.events.event_set import EventSet
from snnlib.data.events.load import event_set, load_events
from snnlib.data.events.moving import moving_image, saccade_events, saccades
from snnlib.data.events.pixel import Pixel, simulate
from snnlib.data.events.recording import EVENT, bin_numbers, checked, from_bins, recording, to_bins

__all__ = [
    "EVENT",
    "EventSet",
    "Pixel",
    "bin_numbers",
    "checked",
    "event_set",
    "from_bins",
    "load_events",
    "moving_image",
    "recording",
    "saccade_events",
    "saccades",
    "simulate",
    "to_bins",
]
