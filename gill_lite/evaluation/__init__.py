"""The paper's tables: a catalogue, what is drawn and scored for them, runs that can be stopped."""
