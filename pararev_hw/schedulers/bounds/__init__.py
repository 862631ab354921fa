"""What no schedule can beat: in time, in overlap, in memory."""
